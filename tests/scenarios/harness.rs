//! The harness itself: what the other scenarios rely on really is so. Nothing here runs the program under test.

use crate::guest::{DISCOVERY_NQN, Guest};
use crate::vm::{Kernel, Scenario, scenario};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);
const NQNS: [&str; 3] = ["nqn.2026-01.example:a", "nqn.2026-01.example:b", "nqn.2026-01.example:c"];

#[test]
fn subsystems_become_block_devices() {
    scenario(connects_three_subsystems);
}

#[test]
fn subsystems_become_block_devices_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(connects_three_subsystems);
}

fn connects_three_subsystems(guest: &Guest) {
    let port = guest.target().tcp_port("127.0.0.1", 8009);
    for nqn in NQNS {
        port.link(&guest.target().subsystem(nqn));
    }
    for nqn in [DISCOVERY_NQN].iter().chain(&NQNS) {
        guest.connect(&tcp(nqn, "127.0.0.1")).unwrap();
    }
    guest.wait_until("three block devices are there", SOON, || guest.block_devices().len() == 3);

    let controllers = guest.controllers();
    assert_eq!(controllers.len(), 4);
    assert!(controllers.iter().all(|controller| controller.is_live() && controller.transport == "tcp"));
    assert!(controllers[0].is_discovery());
    assert_eq!(controllers[0].address_field("trsvcid"), Some("8009"));
    let io = guest.live_io_controllers();
    assert_eq!(io.iter().map(|controller| controller.subsysnqn.as_str()).collect::<Vec<_>>(), NQNS);
    assert_eq!(guest.block_devices()[2].subsysnqn, NQNS[2]);

    guest.disconnect(&io[0].name);
    assert_eq!(guest.live_io_controllers(), io[1..]);
}

#[test]
fn target_changes_while_connected() {
    scenario(|guest| {
        let target = guest.target();
        let [first, second] = [NQNS[0], NQNS[1]].map(|nqn| target.subsystem(nqn));
        let port = target.tcp_port("127.0.0.1", 8009);
        port.link(&first);
        port.link(&second);
        let device = guest.connect(&(tcp(NQNS[0], "127.0.0.1") + ",reconnect_delay=1")).unwrap();
        let state =
            || guest.controllers().into_iter().find(|controller| controller.name == device).map(|found| found.state);

        port.unlink(&second);
        assert_eq!(state().as_deref(), Some("live"));
        port.remove();
        guest.wait_until("the connection is lost", SOON, || state().as_deref() != Some("live"));
        target.tcp_port("127.0.0.1", 8009).link(&first);
        guest.wait_until("it is live again", SOON, || state().as_deref() == Some("live"));
    });
}

#[test]
fn loop_transport() {
    scenario(|guest| {
        guest.target().loop_port().link(&guest.target().subsystem(NQNS[0]));
        guest.connect(&format!("nqn={},transport=loop", NQNS[0])).unwrap();
        guest.wait_until("the block device is there", SOON, || guest.block_devices().len() == 1);
    });
}

#[test]
fn silent_network_is_silent() {
    scenario(|guest| {
        guest.silent_network("10.99.0.1/24");
        let probe = TcpStream::connect_timeout(&"10.99.0.7:8009".parse().unwrap(), Duration::from_secs(2));
        assert_eq!(probe.unwrap_err().kind(), ErrorKind::TimedOut);
        let started = Instant::now();
        let connect = guest.connect(&tcp(DISCOVERY_NQN, "10.99.0.8"));
        assert_eq!(connect.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(started.elapsed() > Duration::from_secs(2), "the kernel gave up after {:?}", started.elapsed());
        // Elsewhere it is not silent.
        let refused = guest.connect(&tcp(DISCOVERY_NQN, "127.0.0.1"));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn target_behind_a_cable() {
    scenario(|guest| {
        let far = guest.namespace("far", "10.98.0.1/24", "10.98.0.2/24");
        let port = guest.target().tcp_port("10.98.0.2", 8009);
        port.link_in(&far, &guest.target().subsystem(NQNS[0]));
        guest.connect(&(tcp(NQNS[0], "10.98.0.2") + ",keep_alive_tmo=2,reconnect_delay=1")).unwrap();
        assert_eq!(guest.live_io_controllers().len(), 1);
        far.plug(false);
        guest.wait_until("the loss is noticed", SOON * 2, || guest.live_io_controllers().is_empty());
        far.plug(true);
        guest.wait_until("the controller is live again", SOON, || guest.live_io_controllers().len() == 1);
        assert!(guest.kernel_log().contains("Successfully reconnected"));
    });
}

#[test]
fn bus_starts_stops_and_starts_again() {
    scenario(|guest| {
        let names = || {
            let bus = ["--system", "--print-reply", "--dest=org.freedesktop.DBus", "/org/freedesktop/DBus"];
            guest.run("dbus-send", &[&bus[..], &["org.freedesktop.DBus.ListNames"]].concat())
        };
        for _ in 0..2 {
            let bus = guest.start_bus();
            assert!(names().ok().contains("org.freedesktop.DBus"));
            assert!(bus.terminate().elapsed < SOON);
            assert_ne!(names().code, Some(0));
        }
    });
}

#[test]
fn daemons_are_followed() {
    scenario(|guest| {
        let script = "trap 'echo again' HUP; trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done";
        let mut daemon = guest.spawn("sh", &["-c", script]);
        daemon.wait_log("up", SOON);
        daemon.reload();
        daemon.wait_log("again", SOON);
        assert!(daemon.is_running() && Path::new(&format!("/proc/{}", daemon.pid())).exists());
        let ended = daemon.terminate();
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!(ended.log, "up\nagain\nbye\n");

        let killed = guest.spawn("sleep", &["1000"]);
        assert_eq!(killed.log(), "");
        assert_eq!(killed.kill().status.code(), None);
    });
}

#[test]
#[should_panic(expected = "waited 100ms in vain until pigs fly\nno controllers, no block devices")]
fn failure_is_told() {
    scenario(|guest| {
        guest.wait_until("pigs fly", Duration::from_millis(100), || false);
    });
}

#[test]
#[should_panic(expected = "the scenario did not end within 10s")]
fn hanging_guest_is_stopped() {
    Scenario::new().limit(SOON).run(|_| std::thread::sleep(Duration::from_secs(3600)));
}

#[test]
#[should_panic(expected = "the guest ended without a result")]
fn dead_kernel_is_a_failure() {
    scenario(|guest| guest.write("/proc/sysrq-trigger", "c"));
}

#[test]
#[should_panic(expected = "the guest's kernel complained")]
fn kernel_warning_is_a_failure() {
    // 512: a warning was printed.
    scenario(|guest| guest.write("/proc/sys/kernel/tainted", "512"));
}

fn tcp(nqn: &str, traddr: &str) -> String {
    format!("nqn={nqn},transport=tcp,traddr={traddr},trsvcid=8009")
}
