//! Multicast DNS by the real avahi-daemon: ours, which the program under test asks, and that of a machine at the end of a
//! cable, which announces.

use super::{Daemon, Guest, Namespace, must};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
/// Neither is confined: both run as root, in the foreground.
const ARGUMENTS: [&str; 4] = ["--no-drop-root", "--no-chroot", "--no-rlimits", "--no-proc-title"];

impl Guest {
    /// Our Avahi, with Debian's configuration; needs a bus. Returns when it is there to be asked.
    #[track_caller]
    pub fn start_avahi(&self) -> Daemon {
        let avahi = self.spawn("avahi-daemon", &ARGUMENTS);
        avahi.wait_log("Server startup complete", PATIENCE);
        avahi
    }

    /// An Avahi on the far machine. What it calls itself is the machine's name. It has no use for a bus.
    #[track_caller]
    pub fn start_announcer(&self, far: &Namespace) -> Announcer {
        let directory = PathBuf::from("/tmp/avahi").join(far.name());
        let (services, config) = (directory.join("services"), directory.join("avahi-daemon.conf"));
        must(fs::create_dir_all(&services), "make a directory for announcements");
        let server = format!("[server]\nhost-name={}\nenable-dbus=no\n", far.name());
        self.write(&config, &format!("{server}[publish]\npublish-workstation=no\n"));
        // The paths of its pid file and of the directory are built in: it gets its own view of both.
        let script = format!(
            "mkdir -p /run/avahi-daemon && mount -t tmpfs tmpfs /run/avahi-daemon &&
             mount --bind {} /etc/avahi/services && exec avahi-daemon -f {} {}",
            services.display(),
            config.display(),
            ARGUMENTS.join(" ")
        );
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", far.name()));
        command.args(["unshare", "--mount", "sh", "-c", &script]);
        let daemon = self.spawn_command(&format!("avahi on {}", far.name()), &mut command);
        daemon.wait_log("Server startup complete", PATIENCE);
        Announcer { daemon, services }
    }
}

/// An Avahi that announces what it is told to.
#[derive(Debug)]
pub struct Announcer {
    pub daemon: Daemon,
    services: PathBuf,
}

impl Announcer {
    /// Announces a service, as `_nvme-disc._tcp`, under this name; returns when it is announced.
    #[track_caller]
    pub fn announce(&self, name: &str, service_type: &str, port: u16, txt: &[&str]) {
        let records: String = txt.iter().map(|record| format!("<txt-record>{record}</txt-record>")).collect();
        self.announce_records(name, service_type, port, &records);
    }

    /// The same with the TXT record as the XML elements of a service file.
    #[track_caller]
    pub fn announce_records(&self, name: &str, service_type: &str, port: u16, records: &str) {
        let service = format!("<service><type>{service_type}</type><port>{port}</port>{records}</service>");
        let file = format!("<service-group><name>{name}</name>{service}</service-group>");
        must(fs::write(self.file(name), file), "write a service file");
        self.reload();
    }

    /// Says goodbye for a service.
    #[track_caller]
    pub fn withdraw(&self, name: &str) {
        must(fs::remove_file(self.file(name)), "remove a service file");
        self.reload();
    }

    fn reload(&self) {
        let before = self.daemon.count_log("Got SIGHUP, reloading.");
        self.daemon.reload();
        let guest = Guest { _only_here: () };
        guest.wait_until("Avahi reads its services", PATIENCE, || {
            self.daemon.count_log("Got SIGHUP, reloading.") > before
        });
    }

    fn file(&self, name: &str) -> PathBuf {
        self.services.join(format!("{name}.service"))
    }
}
