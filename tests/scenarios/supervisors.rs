//! Service managers as Debian ships them that need no machine of their own to be tried: runit and s6 with the scripts in
//! `init/`, and what systemd thinks of the units there. How OpenRC and systemd start them, `root.rs` shows.

use crate::guest::{Debian, Guest, OURS};
use crate::stas::{SOON, STAFD_CONF, controller, nqn};
use crate::vm::Scenario;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Emulated, `systemd-analyze` and a supervisor's second between two starts take their time.
const PATIENCE: Duration = Duration::from_secs(40);

const SHIPPED: &str = "/usr/share/stas/init";

/// A supervisor of processes in the manner of daemontools.
struct Supervisor {
    /// Where its script is in `init/`.
    files: &'static str,
    /// Starts what is in this directory, each with its own.
    scan: [&'static str; 2],
    /// Where it has the process's id.
    pid: fn(&Debian<'_>, &str) -> Option<u32>,
    reload: &'static [&'static str],
    stop: &'static [&'static str],
}

const RUNIT: Supervisor = Supervisor {
    files: "runit/stas",
    scan: ["/usr/bin/runsvdir", "/run/runit"],
    pid: |_, service| fs::read_to_string(format!("{service}/supervise/pid")).ok()?.trim().parse().ok(),
    reload: &["sv", "hup"],
    stop: &["sv", "down"],
};

const S6: Supervisor = Supervisor {
    files: "s6/stas",
    scan: ["/usr/bin/s6-svscan", "/run/s6"],
    pid: |debian, service| debian.run("s6-svstat", &["-o", "pid", service]).stdout.trim().parse().ok(),
    reload: &["s6-svc", "-h"],
    stop: &["s6-svc", "-d"],
};

#[test]
fn runit_and_s6_keep_it_running() {
    Scenario::new().with_debian().limit(Duration::from_secs(240)).run(|guest| {
        let debian = guest.debian();
        debian.install();
        units_are_as_the_readme_says(guest, &debian);
        // The first start gives this host its name.
        for file in ["hostnqn", "hostid"] {
            fs::remove_file(format!("/etc/nvme/{file}")).unwrap();
        }
        let disks = ["a", "b"].map(|letter| guest.target().subsystem(&nqn(letter)));
        let ports = [8009, 8010].map(|port| guest.target().tcp_port("127.0.0.1", port));
        ports.iter().zip(&disks).for_each(|(port, disk)| port.link(disk));
        for supervisor in [RUNIT, S6] {
            supervises(guest, &debian, &supervisor);
        }
    });
}

fn supervises(guest: &Guest, debian: &Debian<'_>, supervisor: &Supervisor) {
    let [a, b] = ["a", "b"].map(nqn);
    guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
    let service = format!("{}/stas", supervisor.scan[1]);
    fs::create_dir_all(supervisor.scan[1]).unwrap();
    guest.run("cp", &["-rL", &format!("{SHIPPED}/{}", supervisor.files), supervisor.scan[1]]).ok();
    // As `init/install` does for a prefix other than /usr.
    let run = format!("{service}/run");
    guest.write(&run, &fs::read_to_string(&run).unwrap().replace("/usr/sbin", OURS));
    fs::set_permissions(run, Permissions::from_mode(0o755)).unwrap();
    let tell = |command: &[&str]| drop(debian.run(command[0], &[&command[1..], &[&service]].concat()).ok());
    let pid = || (supervisor.pid)(debian, &service).filter(|pid| is_daemon(*pid));

    let scan = debian.spawn(supervisor.scan[0], &supervisor.scan[1..]);
    guest.wait_for_storage(&[&a], PATIENCE);
    assert!(Path::new("/etc/nvme/hostnqn").exists() && Path::new("/etc/nvme/hostid").exists());
    guest.write(STAFD_CONF, &[8009, 8010].map(|port| controller("127.0.0.1", port)).concat());
    tell(supervisor.reload);
    let both = guest.wait_for_storage(&[&a, &b], PATIENCE);

    let first = pid().expect("the daemon runs");
    guest.run("kill", &["-9", &first.to_string()]).ok();
    guest.wait_until("it is started again", PATIENCE, || pid().is_some_and(|pid| pid != first));
    scan.wait_log("already connected as", SOON);
    guest.assert_untouched(&both);

    tell(supervisor.stop);
    guest.wait_until("it has stopped", PATIENCE, || pid().is_none());
    guest.assert_untouched(&both);
    scan.terminate();
    guest.controllers().iter().for_each(|controller| guest.disconnect(&controller.name));
}

fn is_daemon(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "stas")
}

/// What `systemd-analyze security` says of how much the units can do: a figure that grows is to be seen.
fn units_are_as_the_readme_says(guest: &Guest, debian: &Debian<'_>) {
    guest.run("mkdir", &["-p", "/run/systemd/system"]).ok();
    guest.run("cp", &["-rL", &format!("{SHIPPED}/systemd/."), "/run/systemd/system"]).ok();
    for unit in ["stas.service", "stafd.service", "stacd.service"] {
        let told = debian.run("systemd-analyze", &["security", "--offline=true", "--no-pager", unit]).ok();
        let figure =
            told.rsplit_once(&format!("exposure level for {unit}: ")).and_then(|(_, rest)| rest.split(' ').next());
        let figure = figure.unwrap_or_else(|| panic!("{told}"));
        let claim = format!("`systemd-analyze security` gives them {figure} ");
        assert!(include_str!("../../README.md").contains(&claim), "README.md does not say: {claim}\n{told}");
    }
}
