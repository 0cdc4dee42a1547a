//! What a log page entry says beyond an address, and what others connected.

use std::time::Duration;

use crate::guest::Guest;
use crate::sim::log::EFLAGS_NCC;
use crate::sim::{Entry, Simulator};
use crate::stas::{Form, SOON, STACD_CONF, STAFD_CONF, Stas, controller, nqn};
use crate::vm::scenario;

fn discovery_controller(guest: &Guest, stacd_conf: &str) -> Simulator {
    guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
    guest.write(STACD_CONF, stacd_conf);
    Simulator::start("127.0.0.1:8009").unwrap()
}

#[test]
fn what_the_discovery_controller_does_not_reach_is_tried_so_often() {
    scenario(|guest| unreached(guest, Form::TwoDaemons));
}

#[test]
fn what_the_discovery_controller_does_not_reach_is_tried_so_often_in_one_process() {
    scenario(|guest| unreached(guest, Form::OneProcess));
}

fn unreached(guest: &Guest, form: Form) {
    let disk = guest.target().subsystem(&nqn("disk"));
    let dc = discovery_controller(guest, "connect-attempts-on-ncc = 2\n");
    let reached = Entry::io(&disk.nqn, "127.0.0.1", "4420");
    dc.set_entries([Entry { eflags: EFLAGS_NCC, ..reached.clone() }]);
    let stas = Stas::start(guest, form);
    stas.connector().wait_log("not connected after 2 attempts", SOON);
    let shown = guest.run("stacctl", &["ls", "-d"]).ok();
    assert!(shown.lines().any(|line| line.split_whitespace().eq(["dlpe.eflags.ncc", "True"])), "{shown}");

    // Nothing is awaited here: the claim is that nothing happens, although it could be connected by now.
    guest.target().tcp_port("127.0.0.1", 4420).link(&disk);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(guest.live_io_controllers().len(), 0);
    let took = guest.wait_until("it is connected", SOON, {
        dc.set_entries([reached]);
        || guest.live_io_controllers().len() == 1
    });
    guest.tell(&format!("connected {took:?} after the bit cleared"));
}

/// The target is a simulator too: it would see any connection.
#[test]
fn an_entry_that_demands_tls_is_not_connected_without() {
    scenario(|guest| {
        let dc = discovery_controller(guest, "tls = false\n");
        let target = Simulator::start("127.0.0.1:4420").unwrap();
        dc.set_entries([Entry { treq: 1, tsas: vec![2], ..Entry::io(&nqn("disk"), "127.0.0.1", "4420") }]);
        let stas = Stas::start(guest, Form::TwoDaemons);
        stas.connector().wait_log("its log page entry demands TLS, and the configuration says tls = false", SOON);
        assert_eq!(target.recording().accepted, 0);

        // Left to the entry, it is tried with TLS: without the service and the key for it, that fails, and nothing else is done.
        guest.write(STACD_CONF, "");
        stas.connector().reload();
        stas.connector().wait_log("nqn.2026-01.example:disk: not connected: ", SOON);
        assert_eq!(target.recording().commands.len(), 0, "{:?}", target.recording().commands);
    });
}

/// Somebody connects a subsystem that is listed, and one that is not.
#[test]
fn an_audit_takes_down_what_nobody_wants() {
    scenario(|guest| {
        let [listed, stray, used] = ["listed", "stray", "used"].map(|name| guest.target().subsystem(&nqn(name)));
        let port = guest.target().tcp_port("127.0.0.1", 4420);
        [&listed, &stray, &used].iter().for_each(|subsystem| port.link(subsystem));
        for subsystem in [&listed, &stray, &used] {
            guest.connect(&format!("nqn={},transport=tcp,traddr=127.0.0.1,trsvcid=4420", subsystem.nqn)).unwrap();
        }
        let before = guest.wait_for_storage(&[&listed.nqn, &stray.nqn, &used.nqn], SOON);
        let device = guest.block_devices().into_iter().find(|disk| disk.subsysnqn == used.nqn).unwrap();
        let device = format!("/dev/{}", device.name);
        guest.run("mkswap", &[&device]).ok();
        guest.run("swapon", &[&device]).ok();

        let scope = "disconnect-scope = \"all-connections-matching-disconnect-trtypes\"\n";
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        guest.write(STACD_CONF, scope);
        let stas = Stas::start(guest, Form::TwoDaemons);
        stas.finder().wait_log("127.0.0.1:8009: nothing listens", SOON);
        // As long as nobody knows what is listed, nothing is touched.
        std::thread::sleep(Duration::from_secs(12));
        guest.assert_untouched(&before);

        let dc = Simulator::start("127.0.0.1:8009").unwrap();
        dc.set_entries([Entry::io(&listed.nqn, "127.0.0.1", "4420")]);
        guest.wait_until("the stray is gone", 3 * SOON, || guest.live_io_controllers().len() == 2);
        stas.connector().wait_log(&format!("kept: {device} is swap space"), SOON);
        guest.assert_untouched(&[before[0].clone(), before[2].clone()]);

        // Another one comes while it runs.
        guest.connect(&format!("nqn={},transport=tcp,traddr=127.0.0.1,trsvcid=4420", stray.nqn)).unwrap();
        guest.wait_until("it is gone", 2 * SOON, || guest.live_io_controllers().len() == 2);
        guest.run("swapoff", &[&device]).ok();
        guest.wait_until("so is the other", SOON, || guest.live_io_controllers().len() == 1);
        guest.assert_untouched(&before[..1]);
    });
}
