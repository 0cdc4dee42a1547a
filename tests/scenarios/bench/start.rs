//! From the start of a program to all its controllers.

use super::{PATIENCE, bench, disconnect_all, floor, nqns, report, settle};
use crate::guest::{DISCOVERY_NQN, Guest};
use crate::stas::{STACD_CONF, STAFD_CONF, controller};
use report::Samples;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PORT: u16 = 8009;

#[test]
#[ignore = "a benchmark: run tests/bench"]
fn start_64() {
    bench(|guest| start(guest, 64, 9));
}

#[test]
#[ignore = "a benchmark: run tests/bench"]
fn start_250() {
    bench(|guest| start(guest, 250, 3));
}

fn start(guest: &Guest, count: usize, rounds: usize) {
    let port = guest.target().tcp_port("127.0.0.1", PORT);
    let nqns = nqns(count);
    nqns.iter().for_each(|nqn| port.link(&guest.target().subsystem(nqn)));
    guest.write(STAFD_CONF, &controller("127.0.0.1", PORT));
    guest.write(STACD_CONF, super::SMALL);
    let strings: Vec<String> = [DISCOVERY_NQN]
        .into_iter()
        .chain(nqns.iter().map(String::as_str))
        .map(|nqn| floor::connect_string(nqn, "127.0.0.1", PORT))
        .collect();
    let debian = guest.debian();
    let connect_all = [
        "nvme",
        "connect-all",
        "--transport=tcp",
        "--traddr=127.0.0.1",
        "--trsvcid=8009",
        "--nr-io-queues=1",
        "--queue-size=16",
        "--quiet",
    ];

    let [mut ours, mut floor_took, mut cli] = [(); 3].map(|()| Samples::default());
    // What is read from a disk takes no instructions, but time.
    drop(debian.run(connect_all[0], &connect_all[1..]).ok());
    guest.wait_until("all are there", PATIENCE, || guest.live_io_controllers().len() == count);
    disconnect_all(guest);
    for _ in 0..rounds {
        floor_took.add(attach(guest, count, || floor::connect_all(&strings)));
        disconnect_all(guest);
        let mut stas = None;
        ours.add(attach(guest, count, || stas = Some(run_quietly())));
        let mut stas = stas.unwrap();
        guest.run("kill", &[&stas.id().to_string()]).ok();
        stas.wait().unwrap();
        disconnect_all(guest);
        cli.add(attach(guest, count, || drop(debian.run(connect_all[0], &connect_all[1..]).ok())));
        disconnect_all(guest);
    }
    let figure = format!("start: until {count} subsystems are live");
    report::ratio(
        guest,
        &figure,
        &ours,
        ("the same connect strings, written one after the other", &floor_took),
        Some(1.1),
    );
    report::ratio(guest, &figure, &ours, ("nvme connect-all", &cli), Some(1.0));
}

/// The program, with nobody to read what it says.
fn run_quietly() -> Child {
    Command::new("stas").arg("run").stderr(Stdio::null()).spawn().unwrap()
}

/// Does what connects so many I/O controllers, and one discovery controller; gives the time that it takes.
fn attach(guest: &Guest, count: usize, connect: impl FnOnce() + Send) -> Duration {
    settle(guest);
    let uevents = guest.uevents();
    let took = std::thread::scope(|scope| {
        let begin = Instant::now();
        scope.spawn(connect);
        (0..=count).for_each(|_| drop(uevents.wait_for("NVME_EVENT=connected")));
        begin.elapsed()
    });
    assert_eq!(guest.live_io_controllers().len(), count);
    took
}
