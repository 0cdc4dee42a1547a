//! Many subsystems behind one discovery controller.

use std::time::Duration;

use crate::guest::{Guest, Subsystem};
use crate::stas::{Form, STACD_CONF, STAFD_CONF, Stas, controller, nqn};
use crate::vm::Scenario;

const COUNT: usize = 250;
const PATIENCE: Duration = Duration::from_secs(90);

/// All are attached; half of them go in one burst, and come back.
#[test]
fn many_subsystems_come_and_go() {
    Scenario::new().memory(2048).limit(Duration::from_secs(300)).run(|guest| {
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        let subsystems: Vec<Subsystem> =
            (0..COUNT).map(|number| guest.target().subsystem(&nqn(&format!("{number:03}")))).collect();
        subsystems.iter().for_each(|subsystem| port.link(subsystem));
        let (leaving, staying) = subsystems.split_at(COUNT / 2);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        guest.write(STACD_CONF, "nr-io-queues = 1\nqueue-size = 16\nreconnect-delay = 60\n");
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        let count = |what: &str, wanted: usize| {
            // Counting what the kernel has costs more than connecting it: not all the time.
            let attached = || {
                std::thread::sleep(Duration::from_millis(200));
                guest.live_io_controllers().len() == wanted
            };
            let took = guest.wait_until(what, PATIENCE, attached);
            guest.tell(&format!("{what}: {took:?}; processor time so far: {}", processor_time()));
        };
        count("all are attached", COUNT);
        let before = attached(guest, staying);

        leaving.iter().for_each(|subsystem| port.unlink(subsystem));
        count("half of them are gone", staying.len());
        guest.wait_until("so are their controllers", PATIENCE, || guest.controllers().len() == 1 + staying.len());
        assert_eq!(attached(guest, staying), before);
        guest.assert_untouched(&guest.live_io_controllers());

        leaving.iter().for_each(|subsystem| port.link(subsystem));
        count("all are attached again", COUNT);
        assert_eq!(attached(guest, staying), before);
        assert_eq!(guest.controllers().len(), 1 + COUNT, "no duplicates");
        guest.wait_until("all disks are there", PATIENCE, || guest.block_devices().len() == COUNT);
        stas.assert_running();
        let log = stas.logs();
        assert!(!log.contains("uevents were lost"), "{log}");
        assert_eq!(stas.connector().count_log("no longer wanted, disconnecting"), leaving.len());
    });
}

/// The names and inodes of the controllers of these subsystems.
fn attached(guest: &Guest, subsystems: &[Subsystem]) -> Vec<(String, u64)> {
    let live = guest.live_io_controllers().into_iter();
    let theirs = live.filter(|found| subsystems.iter().any(|subsystem| subsystem.nqn == found.subsysnqn));
    theirs.map(|found| (found.name, found.inode)).collect()
}

/// Of the program under test, in ticks of 10 ms: each process with what it used itself, and its ended children.
fn processor_time() -> String {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
    let ours = stats.filter(|stat| stat.contains("(sta"));
    let ticks = |stat: String| {
        let words: Vec<&str> = stat.split(' ').collect();
        format!("{} {} user {} system, children {}+{}", words[1], words[13], words[14], words[15], words[16])
    };
    ours.map(ticks).collect::<Vec<_>>().join("; ")
}
