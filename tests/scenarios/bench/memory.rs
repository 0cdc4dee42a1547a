//! Memory of all processes, by where the program lies: on a disk of the host's own, as on most hosts, it has what it uses; on what it
//! may have attached itself it locks all that there is of it (`src/kernel/memory.rs`), as the other benchmarks see it, from RAM.

use super::idle::megabytes;
use super::processes::Processes;
use super::{PATIENCE, SMALL, bench, disconnect_all, floor, nqns, report, settle};
use crate::guest::DISCOVERY_NQN;
use crate::stas::{STACD_CONF, STAFD_CONF, controller};
use std::process::{Command, Stdio};

const DISK: &str = "/mnt/disk";
/// How many controllers, and the goal in kB.
const GOALS: [(usize, f64); 2] = [(8, 1536.0), (250, 3072.0)];

#[test]
#[ignore = "a benchmark: run tests/bench"]
fn memory() {
    bench(|guest| {
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        guest.write(STACD_CONF, SMALL);
        guest.run("modprobe", &["brd", "rd_nr=1", "rd_size=16384"]).ok();
        guest.run("mke2fs", &["-q", "-b", "4096", "/dev/ram0"]).ok();
        std::fs::create_dir_all(DISK).unwrap();
        guest.run("mount", &["/dev/ram0", DISK]).ok();
        let program = guest.run("which", &["stas"]).ok();
        guest.run("cp", &[program.trim(), DISK]).ok();

        let mut linked = 0;
        for (count, goal) in GOALS {
            nqns(count).iter().skip(linked).for_each(|nqn| port.link(&guest.target().subsystem(nqn)));
            linked = count;
            let [away, locked] = [&format!("{DISK}/stas"), program.trim()].map(|program| {
                if !program.starts_with(DISK) {
                    // With nothing connected there is nothing yet that it could lie on.
                    floor::connect(&floor::connect_string(DISCOVERY_NQN, "127.0.0.1", 8009));
                }
                let mut stas = Command::new(program).arg("run").stderr(Stdio::null()).spawn().unwrap();
                guest.wait_until("all are attached", PATIENCE, || guest.live_io_controllers().len() == count);
                settle(guest);
                let memory = Processes::called("stas run").memory();
                guest.run("kill", &[&stas.id().to_string()]).ok();
                stas.wait().unwrap();
                disconnect_all(guest);
                memory
            });
            let figure = format!("memory (PSS of all processes), {count} controllers");
            let (other, goal_text) =
                (format!("where it is locked, {}", megabytes(locked)), format!("≤ {}", megabytes(goal)));
            report::plain(guest, &figure, &megabytes(away), &other, &goal_text, Some(away <= goal));
        }
    });
}
