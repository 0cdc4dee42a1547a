//! What a service manager is told, in the protocol of sd_notify(3).

use crate::stas::{AT_ONCE, SOON, STAFD_CONF, controller, nqn};
use crate::vm::scenario;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

const SOCKET: &str = "/run/notify";

#[test]
fn a_service_manager_is_told() {
    scenario(|guest| {
        let [a, b] = ["a", "b"].map(nqn);
        let target = guest.target();
        target.tcp_port("127.0.0.1", 8009).link(&target.subsystem(&a));
        target.tcp_port("127.0.0.1", 8010).link(&target.subsystem(&b));
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let manager = Manager::listen();
        let stas = guest.spawn_command("stas", Command::new("stas").arg("run").env("NOTIFY_SOCKET", SOCKET));
        manager.wait_for("READY=1");
        guest.wait_for_storage(&[&a], SOON);
        manager.wait_for("STATUS=");

        guest.write(STAFD_CONF, &(controller("127.0.0.1", 8009) + &controller("127.0.0.1", 8010)));
        let asked = monotonic_usec();
        stas.reload();
        let reloading = manager.wait_for("RELOADING=1");
        let told = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        let told: u64 = told.and_then(|usec| usec.parse().ok()).unwrap_or_else(|| panic!("no time in {reloading}"));
        assert!((asked..=monotonic_usec()).contains(&told), "{told} is not in {asked}..={}", monotonic_usec());
        manager.wait_for("READY=1");
        guest.wait_for_storage(&[&a, &b], SOON);

        // A reload that fails is over as well.
        guest.write(STAFD_CONF, "?");
        stas.reload();
        manager.wait_for("RELOADING=1");
        manager.wait_for("READY=1");

        let ended = stas.terminate();
        assert!(ended.status.success() && ended.elapsed < AT_ONCE, "{ended:?}");
        manager.wait_for("STOPPING=1");
    });
}

#[test]
fn each_daemon_tells() {
    scenario(|guest| {
        let manager = Manager::listen();
        let mut bus = None;
        // With a bus and without: ready is ready.
        for round in 0..2 {
            for program in ["stafd", "stacd"] {
                let daemon = guest.spawn_command(program, Command::new(program).env("NOTIFY_SOCKET", SOCKET));
                manager.wait_for("READY=1");
                if round == 1 {
                    let names = ["--system", "--print-reply", "--dest=org.freedesktop.DBus", "/org/freedesktop/DBus"];
                    let names =
                        guest.run("dbus-send", &[&names[..], &["org.freedesktop.DBus.ListNames"]].concat()).ok();
                    assert!(names.contains(&format!("org.nvmexpress.{}", &program[..4])), "{program}: {names}");
                }
                daemon.terminate();
                manager.wait_for("STOPPING=1");
            }
            bus.get_or_insert_with(|| guest.start_bus());
        }
    });
}

/// A service manager, as far as it listens.
struct Manager(UnixDatagram);

impl Manager {
    fn listen() -> Self {
        let socket = UnixDatagram::bind(SOCKET).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Manager(socket)
    }

    /// The next message that begins so. Those before it may be about the status only.
    #[track_caller]
    fn wait_for(&self, start: &str) -> String {
        loop {
            let mut buffer = [0; 4096];
            let length = self.0.recv(&mut buffer).unwrap_or_else(|error| panic!("waited for {start}: {error}"));
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.starts_with(start) {
                return message;
            }
            assert!(message.starts_with("STATUS="), "waited for {start}, and was told {message}");
        }
    }
}

fn monotonic_usec() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1_000
}
