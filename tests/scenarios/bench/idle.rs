//! With eight I/O controllers connected and nothing to do: memory and wake-ups. And how soon a change is a disk, where that is not
//! compared to the limit but to nvme-stas.

use super::processes::Processes;
use super::report::{self, Samples};
use super::{PATIENCE, bench, disconnect_all, nqns, settle};
use crate::guest::{Guest, Port};
use crate::stas::{STAFD_CONF, nqn};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const COUNT: usize = 8;
const ROUNDS: usize = 9;

#[test]
#[ignore = "a benchmark: run tests/bench"]
fn eight() {
    bench(|guest| {
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        nqns(COUNT).iter().for_each(|nqn| port.link(&guest.target().subsystem(nqn)));
        // Both programs understand it.
        guest.write(STAFD_CONF, "[Controllers]\ncontroller = transport=tcp;traddr=127.0.0.1;trsvcid=8009\n");
        guest.write("/etc/stas/stacd.conf", "[Controllers]\n");
        guest.write("/etc/stas/sys.conf", "[Host]\n");
        let _bus = guest.start_bus();

        let (mut named, mut version) = (Samples::default(), Samples::default());
        for _ in 0..ROUNDS {
            settle(guest);
            let begin = Instant::now();
            guest.run("stas", &["--version"]).ok();
            version.add(begin.elapsed());
            settle(guest);
            let begin = Instant::now();
            let stas = guest.spawn("stas", &["run"]);
            stas.wait_log("serving as org.nvmexpress.stac", PATIENCE);
            named.add(begin.elapsed());
            settle(guest);
            stas.terminate();
        }
        let version = ("`stas --version`", &version);
        report::ratio(guest, "start: until both names are on the bus", &named, version, None);

        let mut stas = Command::new("stas").arg("run").stderr(Stdio::null()).spawn().unwrap();
        attached(guest, COUNT);
        let ours = Processes::called("stas run");
        let (wakeups, memory) = (ours.idle_minute(guest), ours.memory());
        let added = appear(guest, &port, "ours");
        guest.run("kill", &[&stas.id().to_string()]).ok();
        stas.wait().unwrap();
        disconnect_all(guest);

        let debian = guest.debian();
        let _udev = debian.spawn("/usr/lib/systemd/systemd-udevd", &[]);
        std::thread::sleep(Duration::from_secs(10));
        let _theirs = [debian.spawn("/usr/sbin/stafd", &[]), debian.spawn("/usr/sbin/stacd", &[])];
        attached(guest, COUNT + ROUNDS);
        let theirs = Processes::called("/usr/sbin/sta");
        let (their_wakeups, their_memory) = (theirs.idle_minute(guest), theirs.memory());
        let their_added = appear(guest, &port, "theirs");

        let other = format!("nvme-stas, {their_wakeups}");
        let figure = "idle minute, 8 controllers: wake-ups of all processes";
        report::plain(guest, figure, &wakeups.to_string(), &other, "0", Some(wakeups == 0));
        let other = format!("nvme-stas (17 controllers), {}", megabytes(their_memory));
        let figure = "memory (PSS of all processes), locked, 8 controllers";
        report::plain(guest, figure, &megabytes(memory), &other, "report", None);
        report::ratio(guest, "a subsystem is added: until it is a disk", &added, ("nvme-stas", &their_added), None);
    });
}

pub fn megabytes(kilobytes: f64) -> String {
    format!("{:.2} MB", kilobytes / 1024.0)
}

fn attached(guest: &Guest, count: usize) {
    guest.wait_until("all are attached", PATIENCE, || guest.live_io_controllers().len() == count);
    settle(guest);
}

/// Adds one subsystem after the other, and gives the times until they are disks.
fn appear(guest: &Guest, port: &Port, who: &str) -> Samples {
    let mut took = Samples::default();
    for number in 0..ROUNDS {
        let subsystem = guest.target().subsystem(&nqn(&format!("{who}-{number}")));
        settle(guest);
        std::thread::sleep(Duration::from_secs(6));
        let uevents = guest.uevents();
        let begin = Instant::now();
        port.link(&subsystem);
        // The disk itself: neither its paths nor what else comes with it are called so.
        uevents.wait_for("DEVTYPE=disk DISKSEQ");
        took.add(begin.elapsed());
    }
    took
}
