//! Addresses that do not answer.

use super::processes::Processes;
use super::report::{self, Samples};
use super::{PATIENCE, SMALL, bench, disconnect_all, settle};
use crate::guest::{Daemon, Guest};
use crate::stas::{STACD_CONF, STAFD_CONF, controller, io_controller, nqn};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

const ROUNDS: usize = 9;
const REACHABLE: u16 = 8;
const SILENT: u16 = 16;

#[test]
#[ignore = "a benchmark: run tests/bench"]
fn silence() {
    bench(|guest| {
        guest.silent_network("10.99.0.254/24");
        let mut good = String::new();
        for port in 4420..4420 + REACHABLE {
            let nqn = nqn(&port.to_string());
            guest.target().tcp_port("127.0.0.1", port).link(&guest.target().subsystem(&nqn));
            good += &io_controller("127.0.0.1", port, &nqn);
        }
        let bad: String =
            (1..=SILENT).map(|host| io_controller(&format!("10.99.0.{host}"), 4420, &nqn("nobody"))).collect();
        let bad_discovery: String = (1..=SILENT).map(|host| controller(&format!("10.99.0.{host}"), 8009)).collect();
        let [alone, among] = [(good.clone(), String::new()), (bad + &good, bad_discovery)];

        let [mut alone_took, mut among_took, mut stopped] = [(); 3].map(|()| Samples::default());
        for _ in 0..ROUNDS {
            for ((io, discovery), took, is_among) in [(&alone, &mut alone_took, false), (&among, &mut among_took, true)]
            {
                guest.write(STACD_CONF, &format!("{SMALL}{io}"));
                guest.write(STAFD_CONF, discovery);
                let (stas, time) = attach(guest);
                took.add(time);
                let ended = stas.terminate();
                if is_among {
                    stopped.add(ended.elapsed);
                }
                disconnect_all(guest);
            }
        }
        let figure = "start: until 8 controllers are live, among 16 addresses that do not answer";
        report::ratio(guest, figure, &among_took, ("the 8 alone", &alone_took), Some(1.2));

        let theirs = stop_nvme_stas(guest);
        report::ratio(
            guest,
            "SIGTERM while 16 addresses do not answer: until it ends",
            &stopped,
            ("nvme-stas", &theirs),
            None,
        );
    });
}

/// From the start of the program until all are live.
fn attach(guest: &Guest) -> (Daemon, Duration) {
    settle(guest);
    let uevents = guest.uevents();
    let begin = Instant::now();
    let stas = guest.spawn("stas", &["run"]);
    (0..REACHABLE).for_each(|_| drop(uevents.wait_for("NVME_EVENT=connected")));
    (stas, begin.elapsed())
}

fn stop_nvme_stas(guest: &Guest) -> Samples {
    let ini = |key: &str| {
        let lines =
            (1..=SILENT).map(|host| format!("controller = transport=tcp;traddr=10.99.0.{host};trsvcid=4420{key}\n"));
        format!("[Controllers]\n{}", lines.collect::<String>())
    };
    guest.write(STAFD_CONF, &ini(""));
    guest.write(STACD_CONF, &ini(&format!(";nqn={}", nqn("nobody"))));
    guest.write("/etc/stas/sys.conf", "[Host]\n");
    let debian = guest.debian();
    let _bus = guest.start_bus();
    let _udev = debian.spawn("/usr/lib/systemd/systemd-udevd", &[]);
    std::thread::sleep(Duration::from_secs(10));
    let mut took = Samples::default();
    for _ in 0..3 {
        let mut daemons = ["/usr/sbin/stafd", "/usr/sbin/stacd"].map(|name| debian.spawn(name, &[]));
        // Long enough for Python to start.
        std::thread::sleep(Duration::from_secs(10));
        assert!(Processes::called("/usr/sbin/sta").memory() > 0.0);
        let begin = Instant::now();
        daemons.iter().for_each(|daemon| daemon.signal(Signal::SIGTERM));
        guest.wait_until("they have ended", PATIENCE, || daemons.iter_mut().all(|daemon| !daemon.is_running()));
        took.add(begin.elapsed());
    }
    took
}
