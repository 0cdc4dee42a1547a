//! The machine runs short of something, or stands still, or its clock jumps: nothing is lost, all that was missed is made up
//! for without anybody's help, and it is said once.

use crate::guest::{Guest, Port, Subsystem};
use crate::sim::{Entry, Simulator};
use crate::stas::{Form, KERNEL_WAITS, SOON, STACD_CONF, STAFD_CONF, Stas, controller, io_controller, nqn};
use crate::vm::{Scenario, scenario};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const SOCKET: &str = "/run/stas/control";
const STATE: &str = "/run/stas/last-known.json";

/// A port with so many subsystems behind its discovery controller, which is configured; the first `linked` are offered.
struct Storage {
    port: Port,
    subsystems: Vec<Subsystem>,
}

impl Storage {
    fn offer(guest: &Guest, count: usize, linked: usize) -> Storage {
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        let subsystems: Vec<_> =
            (0..count).map(|number| guest.target().subsystem(&nqn(&format!("{number:03}")))).collect();
        subsystems[..linked].iter().for_each(|subsystem| port.link(subsystem));
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        guest.write(STACD_CONF, &format!("nr-io-queues = 1\nqueue-size = 16\n{KERNEL_WAITS}"));
        Storage { port, subsystems }
    }

    fn link(&self, which: usize) {
        self.port.link(&self.subsystems[which]);
    }

    fn unlink(&self, which: usize) {
        self.port.unlink(&self.subsystems[which]);
    }

    fn nqns(&self, which: impl IntoIterator<Item = usize>) -> Vec<&str> {
        which.into_iter().map(|at| self.subsystems[at].nqn.as_str()).collect()
    }
}

/// With room for a handful of events: what is missed while a hundred controllers come at once, and while the program does not
/// run, is looked up.
#[test]
fn uevents_are_lost_while_a_hundred_connect() {
    Scenario::new().memory(2048).run(|guest| {
        const COUNT: usize = 100;
        const TAKEN: usize = 20;
        let storage = Storage::offer(guest, COUNT + 1, COUNT);
        // Without the capability, this limit holds.
        guest.write("/proc/sys/net/core/rmem_max", "4096");
        let mut stas = guest.without_net_admin(|| guest.spawn("stas", &["run"]));
        let all_live = |count| {
            std::thread::sleep(Duration::from_millis(100));
            guest.live_io_controllers().len() == count
        };
        guest.wait_until("all are attached", 2 * SOON, || all_live(COUNT));
        stas.wait_log("connected as", SOON);
        let kept: Vec<_> = guest.controllers().into_iter().skip(TAKEN + 1).collect();

        stas.signal(Signal::SIGSTOP);
        // One discovery event, then so many others that it is certain to be among those lost or to push others out.
        storage.link(COUNT);
        guest.controllers()[1..=TAKEN].iter().for_each(|controller| guest.disconnect(&controller.name));
        (0..100).for_each(|_| guest.write("/sys/class/mem/null/uevent", "change"));
        stas.signal(Signal::SIGCONT);
        guest.wait_until("all are attached again, and the new one", 2 * SOON, || all_live(COUNT + 1));
        guest.assert_untouched(&kept);
        guest.wait_until("each has its disk", SOON, || guest.block_devices().len() == COUNT + 1);
        assert_eq!(guest.controllers().len(), COUNT + 2, "no duplicates");
        assert_eq!(stas.count_log("uevents were lost"), 1, "{}", stas.log());
        assert_eq!(stas.count_log("no longer wanted"), 0, "{}", stas.log());
        assert!(stas.is_running());
    });
}

/// In 32 MiB, helper and all, with more to know than it is going to connect; then without one process more.
#[test]
fn little_memory_and_no_processes() {
    Scenario::new().memory(2048).run(|guest| {
        const COUNT: usize = 40;
        let storage = Storage::offer(guest, COUNT + 2, COUNT);
        guest.silent_network("10.99.0.1/24");
        let large = Simulator::start("127.0.0.1:8010").unwrap();
        let entry = |number| Entry::io(&nqn(&format!("silent{number}")), "10.99.0.7", "4420");
        large.set_entries((0..2000).map(entry));
        guest.write(STAFD_CONF, &(controller("127.0.0.1", 8009) + &controller("127.0.0.1", 8010)));
        let group = guest.cgroup("stas");
        group.set("memory.max", "32M");
        group.set("memory.swap.max", "0");
        let mut stas = guest.spawn_after(&group.enter(), "stas", &["run"]);
        stas.wait_log("lists 2000 entries", SOON);
        let live = || guest.live_io_controllers().len();
        guest.wait_until("all are attached", 2 * SOON, || live() == COUNT);
        for _ in 0..5 {
            assert!(guest.run("stafctl", &["ls", "-d"]).ok().contains("8010"));
        }
        guest.tell(&format!("at the most {} bytes, {}", group.get("memory.peak"), group.get("memory.events")));
        assert!(group.get("memory.events").contains("oom_kill 0"));
        let before = guest.controllers();

        // The helper's children that have stayed are enough for that.
        group.set("pids.max", "1");
        storage.link(COUNT);
        guest.wait_until("a new one is attached", SOON, || live() == COUNT + 1);
        // They go with the helper, and there can be no others, nor another helper.
        signal(helper_of(stas.pid()), Signal::SIGKILL);
        stas.wait_log("cannot be started again", SOON);
        storage.link(COUNT + 1);
        stas.wait_log("could not be read from", SOON);
        // Long enough for retries.
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(live(), COUNT + 1);
        assert_eq!(stas.count_log("could not be read from"), 2, "once for each: {}", stas.log());
        assert_eq!(stas.count_log("the helper process"), 2, "{}", stas.log());
        guest.assert_untouched(&before);
        group.set("pids.max", "max");
        guest.wait_until("the new ones are attached", SOON, || live() == COUNT + 2);
        guest.assert_untouched(&before);
        assert!(stas.is_running());
    });
}

/// With 64 descriptors, fewer than there are silent controllers and clients; and later with none.
#[test]
fn few_descriptors_and_none() {
    scenario(|guest| {
        const SILENT: u16 = 30;
        let storage = Storage::offer(guest, 3, 1);
        guest.silent_network("10.99.0.254/24");
        let silent: String =
            (1..=SILENT).map(|host| io_controller(&format!("10.99.0.{host}"), 4420, &nqn("nobody"))).collect();
        guest.write(STACD_CONF, &(KERNEL_WAITS.to_owned() + &silent));
        let mut stas = guest.spawn_after("ulimit -n 64", "stas", &["run"]);
        guest.wait_until("it listens", SOON, || Path::new(SOCKET).exists());
        let clients: Vec<_> = (0..100).map(|_| guest.as_nobody(|| UnixStream::connect(SOCKET))).collect();
        let attached = |nqns: &[&str]| {
            guest.wait_until(&format!("{nqns:?} are attached"), SOON, || {
                let mut found: Vec<_> = guest.live_io_controllers().into_iter().map(|found| found.subsysnqn).collect();
                // Which comes first is the target's choice.
                found.sort();
                found == nqns
            });
        };
        attached(&storage.nqns([0]));
        assert!(guest.run("stacctl", &["ls"]).ok().contains(&storage.subsystems[0].nqn));
        let before = guest.controllers();
        assert!(!stas.log().contains("EMFILE") && !stas.log().contains("oo many open files"), "{}", stas.log());
        assert!(stas.count_log("client") <= 1, "{}", stas.log());
        drop(clients);

        guest.write(STACD_CONF, KERNEL_WAITS);
        stas.reload();
        guest.wait_until("the silent ones are forgotten", SOON, || {
            guest.run("stacctl", &["ls"]).stdout.lines().count() == 2
        });
        guest.limit_descriptors(&stas, 3);
        let so_far = stas.log().lines().count();
        storage.link(1);
        // A page cannot be received, nor a controller looked up, nor a client admitted; tried again every second or so.
        let _early = UnixStream::connect(SOCKET).unwrap();
        std::thread::sleep(Duration::from_secs(5));
        storage.link(2);
        std::thread::sleep(Duration::from_secs(1));
        guest.assert_untouched(&before);
        let told: Vec<_> = stas.log().lines().skip(so_far).map(str::to_owned).collect();
        assert!(!told.is_empty() && told.len() <= 5, "{told:#?}");
        guest.limit_descriptors(&stas, 64);
        attached(&storage.nqns(0..3));
        guest.assert_untouched(&before);
        guest.wait_until("clients are admitted again", SOON, || guest.run("stacctl", &["ls"]).code == Some(0));
        assert!(stas.is_running());
    });
}

/// What was connected is known to the next run as soon as there is room to write it down, and without any room all else works.
#[test]
fn no_room_in_the_runtime_directory() {
    scenario(|guest| {
        let storage = Storage::offer(guest, 6, 1);
        guest.small_file_system("/run/stas", 64);
        let stas = guest.spawn("stas", &["run"]);
        let saved = |nqn: &str| std::fs::read_to_string(STATE).is_ok_and(|state| state.contains(nqn));
        let attached = |count| drop(guest.wait_for_storage(&storage.nqns(0..count), SOON));
        attached(1);
        let before = guest.controllers();
        guest.wait_until("it is written down", SOON, || saved(&nqn("000")));

        let filler = "/run/stas/filler";
        guest.run("dd", &["if=/dev/zero", &format!("of={filler}"), "bs=1k"]);
        storage.link(1);
        stas.wait_log("cannot be written", SOON);
        storage.link(2);
        attached(3);
        assert_eq!(stas.count_log("cannot be written"), 1, "{}", stas.log());
        assert!(saved(&nqn("000")) && !saved(&nqn("002")), "the old file was damaged");
        std::fs::remove_file(filler).unwrap();
        guest.wait_until("it is written down, now that there is room", SOON, || saved(&nqn("002")));

        guest.make_writable("/run/stas", false);
        storage.link(3);
        attached(4);
        guest.wait_until("that is said", SOON, || stas.count_log("cannot be written") == 2);
        // It starts there as well.
        stas.kill();
        let mut stas = guest.spawn("stas", &["run"]);
        storage.link(4);
        attached(5);
        assert_eq!(stas.count_log("/run/stas: "), 1, "{}", stas.log());
        guest.make_writable("/run/stas", true);
        guest.wait_until("clients find it", SOON, || guest.run("stacctl", &["ls"]).code == Some(0));
        guest.wait_until("it is written down", SOON, || saved(&nqn("004")));
        storage.link(5);
        attached(6);
        guest.assert_untouched(&before);
        assert!(stas.is_running());
    });
}

/// It may be there only later: nobody has made it, and nobody can.
#[test]
fn no_runtime_directory() {
    scenario(|guest| {
        let storage = Storage::offer(guest, 1, 1);
        guest.small_file_system("/run/elsewhere", 64);
        guest.make_writable("/run/elsewhere", false);
        let stas = guest.spawn_after("export RUNTIME_DIRECTORY=/run/elsewhere/stas", "stas", &["run"]);
        guest.wait_for_storage(&storage.nqns([0]), SOON);
        assert_eq!(stas.count_log("/run/elsewhere/stas: "), 1, "{}", stas.log());
        guest.make_writable("/run/elsewhere", true);
        guest.wait_until("clients find it", SOON, || UnixStream::connect("/run/elsewhere/stas/control").is_ok());
        let state = Path::new("/run/elsewhere/stas/last-known.json");
        guest.wait_until("it is written down", SOON, || state.exists());
    });
}

/// The clock that people read says nothing about how much time has passed.
#[test]
fn the_clock_jumps() {
    scenario(|guest| {
        let storage = Storage::offer(guest, 4, 1);
        let absent = guest.target().subsystem(&nqn("absent"));
        guest.write(STACD_CONF, &(KERNEL_WAITS.to_owned() + &io_controller("127.0.0.1", 4420, &absent.nqn)));
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&storage.nqns([0]), SOON);
        stas.connector().wait_log("127.0.0.1:4420: nothing listens", SOON);
        let before = guest.controllers();
        let so_far = stas.logs().lines().count();
        for (linked, date) in (1..).zip(["2037-12-31 23:59:59", "1970-01-02 00:00:00", "2026-01-01 00:00:00"]) {
            guest.set_clock(date);
            storage.link(linked);
            guest.wait_for_storage(&storage.nqns(0..=linked), SOON);
            guest.assert_untouched(&before);
        }
        // The next try is due when it was due, which the jumps have not changed.
        guest.target().tcp_port("127.0.0.1", 4420).link(&absent);
        guest.wait_until("the absent one is attached", SOON, || {
            guest.live_io_controllers().iter().any(|found| found.subsysnqn == absent.nqn)
        });
        // For each: what the page lists, and that it is connected.
        let told: Vec<_> = stas.logs().lines().skip(so_far).map(str::to_owned).collect();
        assert!(told.len() <= 3 * 4 + 2, "{told:#?}");
        stas.assert_running();
    });
}

/// The program stands still for a while, then its helper does.
#[test]
fn stopped_and_continued() {
    scenario(|guest| {
        let storage = Storage::offer(guest, 5, 3);
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        stas.wait_for_storage(&storage.nqns(0..3), SOON);
        let before = guest.controllers();
        let all = [stas.finder().pid(), stas.connector().pid()];
        let so_far = stas.logs().lines().count();

        all.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
        storage.link(3);
        storage.unlink(0);
        let second = before.iter().find(|found| found.subsysnqn == storage.subsystems[1].nqn).unwrap();
        guest.disconnect(&second.name);
        // Longer than a probe, a bus and a controller are waited for.
        std::thread::sleep(Duration::from_secs(20));
        all.iter().for_each(|pid| signal(*pid, Signal::SIGCONT));
        stas.wait_for_storage(&storage.nqns(1..4), SOON);
        let kept = |nqn: &str| nqn == storage.subsystems[2].nqn || nqn.ends_with("discovery");
        let kept: Vec<_> = before.into_iter().filter(|found| kept(&found.subsysnqn)).collect();
        assert_eq!(kept.len(), 2);
        guest.assert_untouched(&kept);

        let helpers = all.map(helper_of);
        helpers.iter().for_each(|helper| signal(*helper, Signal::SIGSTOP));
        storage.link(4);
        assert!(guest.run("stacctl", &["ls"]).ok().contains(&storage.subsystems[1].nqn));
        assert!(guest.run("stafctl", &["ls"]).ok().contains("nvme0"));
        helpers.iter().for_each(|helper| signal(*helper, Signal::SIGCONT));
        stas.wait_for_storage(&storage.nqns(1..5), SOON);
        guest.assert_untouched(&kept);
        let told: Vec<_> = stas.logs().lines().skip(so_far).map(str::to_owned).collect();
        assert!(told.len() <= 12 && !told.iter().any(|line| line.contains("going on without")), "{told:#?}");
        stas.assert_running();
    });
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

fn helper_of(daemon: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).unwrap();
    children.split_whitespace().next().expect("a helper").parse().unwrap()
}
