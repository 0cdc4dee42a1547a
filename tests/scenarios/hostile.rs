//! What comes from outside is wrong: one clear message, nothing lost, and the next good word counts.

use crate::guest::{Guest, Port, Subsystem};
use crate::sim::{Accept, Behaviour, Beyond, Entry, Kind, Simulator, Status, Times, log::RECORD};
use crate::stas::{Form, KERNEL_WAITS, SOON, STACD_CONF, STAFD_CONF, Stas, controller, io_controller, nqn};
use crate::vm::{Kernel, Scenario, scenario};

#[test]
fn a_page_that_claims_too_much() {
    scenario(|guest| refused(guest, |b| b.numrec = Some(u64::MAX), "claims 18446744073709551615 entries"));
}

/// A claim that could be true, but is not: the data ends early.
#[test]
fn a_page_that_ends_early() {
    let spoil = |b: &mut Behaviour| {
        b.numrec = Some(16_000);
        b.beyond = Beyond::Nothing;
    };
    scenario(|guest| refused(guest, spoil, "less than"));
}

#[test]
fn a_page_without_a_header() {
    let spoil = |b: &mut Behaviour| {
        b.page_length = Some(100);
        b.beyond = Beyond::Nothing;
    };
    scenario(|guest| refused(guest, spoil, "less than"));
}

#[test]
fn a_page_that_is_cut_and_filled_with_zeros() {
    scenario(|guest| refused(guest, |b| b.page_length = Some(RECORD), "is blank"));
}

#[test]
fn a_page_of_garbage() {
    let spoil = |b: &mut Behaviour| {
        b.page_length = Some(0);
        b.beyond = Beyond::Garbage;
    };
    scenario(|guest| refused(guest, spoil, "record format"));
}

#[test]
fn a_page_that_never_stays_the_same() {
    scenario(|guest| refused(guest, |b| b.restless_generation = Times::Always, "changed during each of"));
}

#[test]
fn a_page_that_is_refused() {
    let spoil = |b: &mut Behaviour| b.fail(Kind::DiscoveryLogPage, Times::Always, Status::INTERNAL_ERROR);
    scenario(|guest| refused(guest, spoil, "NVMe status 0x6"));
}

/// A page that cannot be used costs one message; the last good one stays in force until the next good one.
fn refused(guest: &Guest, spoil: impl FnOnce(&mut Behaviour), message: &str) {
    let dc = Simulator::start("127.0.0.1:8009").unwrap();
    let storage = Storage::offer(guest, 2);
    dc.behave(|b| b.identity.mdts = LOW_MDTS);
    dc.set_entries(storage.long_page(..1));
    guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
    let mut stas = Stas::start(guest, Form::TwoDaemons);
    guest.wait_for_storage(&storage.nqns(..1), SOON);
    let before = guest.controllers();

    dc.behave(spoil);
    dc.change_entries(|_| ());
    stas.finder().wait_log(message, SOON);
    // It is read again and again, and nothing is said of that.
    let so_far = dc.recording().count(Kind::DiscoveryLogPage);
    assert!(dc.wait(SOON, |seen| seen.count(Kind::DiscoveryLogPage) >= so_far + 2), "it is not read again");
    let told = stas.logs().lines().filter(|line| line.contains("log page could not be read")).count();
    assert_eq!((told, stas.finder().count_log(message)), (1, 1), "{}", stas.logs());
    guest.assert_untouched(&before);

    dc.behave(|b| *b = Behaviour::default());
    dc.set_entries(storage.long_page(..2));
    guest.wait_for_storage(&storage.nqns(..2), SOON);
    guest.assert_untouched(&before);
    stas.assert_running();
}

/// Each of these stands in a page beside good ones.
fn odd_entries() -> Vec<(&'static str, Entry)> {
    let entry = || Entry::io(&nqn("odd"), "127.0.0.1", "4420");
    vec![
        ("unknown transport type", Entry { trtype: 99, ..entry() }),
        ("unknown subtype 77", Entry { subtype: 77, ..entry() }),
        ("is not text", entry().patch(0, &[0xff; RECORD])),
        ("is not an NQN", Entry { subnqn: format!("nqn.{}", "x".repeat(252)), ..entry() }),
        ("\"99999999999999999999999999999999\" is not a port", Entry { trsvcid: "9".repeat(32), ..entry() }),
        ("address \"999999", Entry { traddr: "9".repeat(256), ..entry() }),
        ("address \"0.0.0.0\"", Entry { traddr: "0.0.0.0".into(), ..entry() }),
        ("address \"::\"", Entry { traddr: "::".into(), ..entry() }),
        ("address \"\"", Entry { traddr: String::new(), ..entry() }),
        ("address \"127.0.0.1,hostnqn=x\"", Entry { traddr: "127.0.0.1,hostnqn=x".into(), ..entry() }),
    ]
}

#[test]
fn odd_entries_cost_only_themselves() {
    scenario(|guest| {
        let dc = Simulator::start("127.0.0.1:8009").unwrap();
        let odd = odd_entries();
        let storage = Storage::offer(guest, odd.len());
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        for (count, (complaint, entry)) in (1..).zip(odd) {
            dc.set_entries([vec![entry], storage.entries(..count)].concat());
            guest.wait_for_storage(&storage.nqns(..count), SOON);
            assert_eq!(stas.finder().count_log(complaint), 1, "`{complaint}` in\n{}", stas.finder().log());
        }
        stas.assert_running();
    });
}

#[test]
fn a_flood_of_odd_entries_does_not_flood_the_log() {
    scenario(|guest| {
        let dc = Simulator::start("127.0.0.1:8009").unwrap();
        let storage = Storage::offer(guest, 2);
        let flood = (0..200).map(|number| Entry::io(&nqn(&number.to_string()), "0.0.0.0", "4420"));
        dc.set_entries(flood.chain(storage.entries(..1)));
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&storage.nqns(..1), SOON);
        dc.change_entries(|entries| entries.extend(storage.entries(1..2)));
        guest.wait_for_storage(&storage.nqns(..2), SOON);
        assert!(stas.logs().contains("more log page entries ignored"), "{}", stas.logs());
        assert!(stas.logs().lines().count() < 40, "{}", stas.logs());
        stas.assert_running();
    });
}

#[test]
fn listeners_that_are_no_controllers() {
    scenario(|guest| {
        let ways = [Accept::Close, Accept::Silent, Accept::Garbage(b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec())];
        let strange: Vec<Simulator> = ways
            .map(|accept| {
                let listener = Simulator::start("127.0.0.1:0").unwrap();
                listener.behave(|b| b.accept = accept);
                listener
            })
            .into();
        let storage = Storage::offer(guest, 1);
        let good = Simulator::start("127.0.0.1:8009").unwrap();
        good.set_entries(storage.entries(..1));
        let ports = strange.iter().map(|listener| listener.address().port()).chain([8009]);
        let controllers: String = ports.map(|port| controller("127.0.0.1", port)).collect();
        guest.write(STAFD_CONF, &controllers);
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&storage.nqns(..1), SOON);
        for listener in &strange {
            let place = format!("127.0.0.1:{}: ", listener.address().port());
            stas.finder().wait_log(&place, SOON);
            assert!(listener.wait(SOON, |seen| seen.accepted >= 3), "{place} was given up");
            assert_eq!(stas.finder().count_log(&place), 1, "{}", stas.finder().log());
        }
        assert_eq!(guest.controllers().len(), 2);
        stas.assert_running();
    });
}

/// In the dialect of nvme-stas a controller that makes no sense is left out, and the rest of the file counts.
#[test]
fn an_unknown_transport_in_the_configuration() {
    scenario(|guest| {
        let storage = Storage::offer(guest, 1);
        let line = |transport: &str| {
            format!("controller=transport={transport};traddr=127.0.0.1;trsvcid=4420;nqn={}\n", storage.nqns(..1)[0])
        };
        guest.write(STACD_CONF, &format!("[Controllers]\n{}{}", line("carrier-pigeon"), line("tcp")));
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&storage.nqns(..1), SOON);
        let log = stas.connector().log();
        let told = log.lines().find(|line| line.contains("\"carrier-pigeon\" is not a transport"));
        assert!(told.is_some_and(|line| line.contains("/etc/stas/stacd.conf:2")), "{log}");
        stas.assert_running();
    });
}

/// Only the kernel says what the kernel does.
#[test]
fn forged_uevents_are_ignored() {
    scenario(|guest| {
        let storage = Storage::offer(guest, 2);
        let dc = Simulator::start("127.0.0.1:8009").unwrap();
        dc.set_entries(storage.entries(..1));
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        guest.write(STACD_CONF, KERNEL_WAITS);
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&storage.nqns(..1), SOON);
        let before = guest.controllers();
        dc.clear_recording();

        let uevents = guest.uevents();
        for device in before.iter().map(|controller| controller.name.as_str()) {
            for (action, event) in
                [("remove", ""), ("change", "NVME_AEN=0x70f002"), ("change", "NVME_EVENT=rediscover")]
            {
                let path = format!("/devices/virtual/nvme-fabrics/ctl/{device}");
                let lines = [
                    &format!("{action}@{path}"),
                    &format!("ACTION={action}"),
                    &format!("DEVPATH={path}"),
                    "SUBSYSTEM=nvme",
                    &format!("DEVNAME={device}"),
                    event,
                    "SEQNUM=4000000000",
                ];
                for daemon in [stas.finder(), stas.connector()] {
                    let _sent = guest.forge_uevent(daemon.pid(), &lines);
                }
            }
        }
        uevents.wait_for("SEQNUM=4000000000");

        // What came before is handled when this is.
        let reads = |seen: &crate::sim::Recording| seen.count(Kind::DiscoveryLogPage);
        assert_eq!(reads(&dc.recording()), 0, "the log page was read for a forged event");
        dc.set_entries(storage.entries(..2));
        guest.wait_for_storage(&storage.nqns(..2), SOON);
        guest.assert_untouched(&before);
        assert!(!stas.logs().contains("the kernel removed"), "{}", stas.logs());
        stas.assert_running();
    });
}

/// A controller of the configuration that the kernel refuses: said once, and the others are connected.
#[test]
fn a_subsystem_that_does_not_exist() {
    scenario(|guest| {
        let storage = Storage::offer(guest, 1);
        let missing = io_controller("127.0.0.1", 4420, &nqn("missing"));
        let there = io_controller("127.0.0.1", 4420, storage.nqns(..1)[0]);
        guest.write(STACD_CONF, &(missing + &there));
        let mut stas = Stas::start(guest, Form::OneProcess);
        guest.wait_for_storage(&storage.nqns(..1), SOON);
        stas.connector().wait_log("example:missing: not connected", SOON);
        let refusals = || guest.kernel_log().matches("DNR").count();
        let tried = guest.kernel_log();
        guest.wait_until("it is tried again", SOON, || guest.kernel_log().len() > tried.len() || refusals() > 1);
        assert_eq!(stas.connector().count_log("not connected"), 1, "{}", stas.connector().log());
        stas.assert_running();
    });
}

/// TLS that the kernel cannot do is not left out.
#[test]
fn a_kernel_without_tls() {
    Scenario::new().kernel(Kernel::V6_1).run(|guest| {
        let storage = Storage::offer(guest, 2);
        let [secure, plain] = [0, 1].map(|at| io_controller("127.0.0.1", 4420, storage.nqns(..)[at]));
        guest.write(STACD_CONF, &format!("{secure}tls = true\n{plain}"));
        let mut stas = Stas::start(guest, Form::OneProcess);
        guest.wait_for_storage(&storage.nqns(1..), SOON);
        stas.connector().wait_log("has no option tls", SOON);
        assert!(
            stas.connector().log().lines().any(|line| line.contains("good0") && line.contains("has no option tls"))
        );
        stas.assert_running();
    });
}

/// Two pages of memory: a command may ask for seven entries and the header.
pub const LOW_MDTS: u8 = 1;

/// Subsystems to list.
pub struct Storage {
    subsystems: Vec<Subsystem>,
    _port: Port,
}

impl Storage {
    pub fn offer(guest: &Guest, count: usize) -> Self {
        let port = guest.target().tcp_port("127.0.0.1", 4420);
        let subsystems: Vec<_> =
            (0..count).map(|number| guest.target().subsystem(&nqn(&format!("good{number}")))).collect();
        subsystems.iter().for_each(|subsystem| port.link(subsystem));
        Storage { subsystems, _port: port }
    }

    pub fn nqns(&self, which: impl std::slice::SliceIndex<[Subsystem], Output = [Subsystem]>) -> Vec<&str> {
        self.subsystems[which].iter().map(|subsystem| subsystem.nqn.as_str()).collect()
    }

    pub fn entries(&self, which: impl std::slice::SliceIndex<[Subsystem], Output = [Subsystem]>) -> Vec<Entry> {
        self.nqns(which).into_iter().map(|nqn| Entry::io(nqn, "127.0.0.1", "4420")).collect()
    }

    /// The same in a page that takes several commands with [`LOW_MDTS`]: all but the last ones say the same.
    pub fn long_page(&self, which: impl std::slice::SliceIndex<[Subsystem], Output = [Subsystem]>) -> Vec<Entry> {
        let entries = self.entries(which);
        std::iter::repeat_n(entries[0].clone(), 8).chain(entries).collect()
    }
}
