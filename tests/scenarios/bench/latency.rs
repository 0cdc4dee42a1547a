//! From the word of a discovery controller to the new I/O controller.

use super::{bench, floor, nqns, report, settle};
use crate::guest::{DISCOVERY_NQN, Guest, Port};
use crate::stas::{STACD_CONF, STAFD_CONF, controller, nqn};
use nix::sys::signal::Signal;
use report::Samples;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 11;

/// The discovery controllers: of the program, and of what it is compared to.
const OURS: u16 = 8009;
const FLOORS: u16 = 8010;

/// Longer than the answer of a portal is believed.
const PAUSE: Duration = Duration::from_secs(6);

#[test]
#[ignore = "a benchmark: run tests/bench"]
fn notice_to_live() {
    bench(|guest| {
        let [ours, floors] = [OURS, FLOORS].map(|number| guest.target().tcp_port("127.0.0.1", number));
        // A port without subsystems does not listen.
        ours.link(&guest.target().subsystem(&nqn("first")));
        floors.link(&guest.target().subsystem(&nqn("first-of-floor")));
        guest.write(STAFD_CONF, &controller("127.0.0.1", OURS));
        guest.write(STACD_CONF, super::SMALL);
        let _bus = guest.start_bus();
        let stas = guest.spawn("stas", &["run"]);
        guest.wait_until("it is at work", super::PATIENCE, || guest.live_io_controllers().len() == 1);
        let device = floor::connect(&floor::connect_string(DISCOVERY_NQN, "127.0.0.1", FLOORS));

        let (mut ours_took, mut floor_took) = (Samples::default(), Samples::default());
        let mut known = vec![nqn("first-of-floor")];
        for new in nqns(ROUNDS) {
            // What it hears meanwhile is no business of the floor's.
            stas.signal(Signal::SIGSTOP);
            let new_to_floor = format!("{new}-of-floor");
            let (told, heard) = mpsc::channel();
            std::thread::scope(|scope| {
                scope.spawn(|| floor::follow(guest, &device, &known, || told.send(()).unwrap()));
                heard.recv().unwrap();
                floor_took.add(appear(guest, &floors, &new_to_floor));
            });
            known.push(new_to_floor);
            stas.signal(Signal::SIGCONT);
            std::thread::sleep(PAUSE);
            ours_took.add(appear(guest, &ours, &new));
        }
        assert_eq!(guest.live_io_controllers().len(), 1 + 2 * ROUNDS);
        let floor = ("a bare program that reads the page and writes the connect string", &floor_took);
        report::ratio(guest, "a subsystem is added: until its controller is live", &ours_took, floor, Some(1.1));
    });
}

/// Adds a subsystem, and gives the time until its controller is live.
fn appear(guest: &Guest, port: &Port, nqn: &str) -> Duration {
    let subsystem = guest.target().subsystem(nqn);
    settle(guest);
    let uevents = guest.uevents();
    let begin = Instant::now();
    port.link(&subsystem);
    uevents.wait_for("NVME_EVENT=connected");
    begin.elapsed()
}
