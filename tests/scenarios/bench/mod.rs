//! `tests/bench`: figures of the program, each measured side by side with what it is compared to, in one machine and by turns, so
//! that whatever else this computer does hits both alike. Emulated time means nothing by itself: the ratios do.
//!
//! Each is a scenario like any other, but not one of the tests. Its results are lines of a Markdown table
//! ([`report`]), and the samples that they were made of.

mod boot;
mod floor;
mod idle;
mod latency;
mod memory;
mod processes;
mod report;
mod silence;
mod start;

use crate::guest::Guest;
use crate::stas::{SMALL, nqn};
use crate::vm::Scenario;
use nix::libc;
use std::time::{Duration, Instant};

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(180);

/// A machine that says nothing while it is measured: its console is slower than all that it would tell of.
fn bench(body: impl FnOnce(&Guest)) {
    let machine =
        Scenario::new().memory(3072).with_debian().count_instructions().narrated().limit(Duration::from_secs(1800));
    machine.run(|guest| {
        guest.write("/proc/sys/kernel/printk", "1");
        // Whatever stands on this line so far is not of the table.
        guest.tell("");
        come_first();
        body(guest);
    });
}

/// Whoever measures is not to wait for those who are measured.
fn come_first() {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter outlives the call. It is for this thread, and not for those that it starts.
    let done =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const priority) };
    assert_eq!(done, 0, "real time priority: {}", std::io::Error::last_os_error());
}

fn nqns(count: usize) -> Vec<String> {
    (0..count).map(|number| nqn(&format!("{number:03}"))).collect()
}

/// Returns when the machine has nothing to do (any more).
fn settle(guest: &Guest) {
    const WINDOW: Duration = Duration::from_millis(200);
    guest.wait_until("the machine is idle", PATIENCE, || {
        let before = idle_time();
        let begin = Instant::now();
        std::thread::sleep(WINDOW);
        (idle_time() - before).as_secs_f64() > 0.9 * begin.elapsed().as_secs_f64()
    });
}

/// How long the only processor had nothing to do so far.
fn idle_time() -> Duration {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    Duration::from_secs_f64(uptime.split_whitespace().nth(1).unwrap().parse().unwrap())
}

/// Takes down all that is connected, many at a time, and what has been noted of it.
fn disconnect_all(guest: &Guest) {
    let controllers = guest.controllers();
    std::thread::scope(|scope| {
        for some in controllers.chunks(controllers.len().div_ceil(16).max(1)) {
            scope.spawn(|| {
                some.iter().for_each(|controller| {
                    // The kernel may be taking it down already.
                    let _ = std::fs::write(format!("/sys/class/nvme/{}/delete_controller", controller.name), "1");
                });
            });
        }
    });
    guest.wait_until("nothing is connected", PATIENCE, || guest.controllers().is_empty());
    for notes in ["/run/stas", "/run/nvme"] {
        let _ = std::fs::remove_dir_all(notes);
    }
}
