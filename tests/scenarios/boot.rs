//! `stas boot`: a host attaches what its firmware booted it from, and the daemon takes over.

use std::fs;
use std::time::Duration;

use crate::guest::{Guest, Namespace, Subsystem};
use crate::nbft::build::{Hfi, Host, Ssns, Table, ip};
use crate::stas::{SOON, STACD_CONF, nqn};
use crate::vm::Scenario;

/// Who the firmware was; not who the files of the guest say.
const HOSTNQN: &str = "nqn.2026-01.example:booted";

fn mac(last: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, last]
}

/// Two interfaces, each with a path to the same subsystem: 10.98.1.2 from 10.98.1.1, 10.98.2.2 from 10.98.2.1.
fn two_paths(subsystem: &str) -> Table {
    let hfi = |index: u8| Hfi { index, mac: mac(index), address: ip(&format!("10.98.{index}.1")), ..Hfi::default() };
    let ssns = |index: u8| Ssns {
        index: index.into(),
        hfi: index,
        traddr: ip(&format!("10.98.{index}.2")),
        nqn: nqn(subsystem),
        ..Ssns::default()
    };
    let host = Host { nqn: HOSTNQN.to_owned(), ..Host::default() };
    Table { host, hfis: vec![hfi(1), hfi(2)], ssns: vec![ssns(1), ssns(2)], ..Table::default() }
}

/// Another machine at the end of the cable of HFI `number`; our side has the MAC address of the table, and no IP address.
fn cable(guest: &Guest, number: u8) -> Namespace {
    let name = format!("san{number}");
    let [here, there] = [1, 2].map(|end| format!("10.98.{number}.{end}/24"));
    let namespace = guest.namespace(&name, &here, &there);
    let mac = format!("52:54:00:00:00:0{number}");
    guest.run("ip", &["link", "set", &name, "down", "address", &mac]).ok();
    guest.run("ip", &["address", "flush", "dev", &name]).ok();
    namespace
}

fn set_up(guest: &Guest, number: u8) {
    let name = format!("san{number}");
    guest.run("ip", &["link", "set", &name, "up"]).ok();
    guest.run("ip", &["address", "add", &format!("10.98.{number}.1/24"), "dev", &name]).ok();
}

/// The subsystem at the other end of that cable.
fn serve(guest: &Guest, namespace: &Namespace, number: u8, subsystem: &Subsystem) {
    guest.target().tcp_port(&format!("10.98.{number}.2"), 4420).link_in(namespace, subsystem);
}

/// By source address, the owners of all controllers.
fn owners(guest: &Guest) -> Vec<(String, String)> {
    let owner = |device: &str| fs::read_to_string(format!("/run/nvme/registry/{device}/owner")).unwrap_or_default();
    let controllers = guest.live_io_controllers();
    let mut owners: Vec<_> = controllers
        .iter()
        .map(|one| (one.address_field("src_addr").unwrap_or_default().to_owned(), owner(&one.name).trim().to_owned()))
        .collect();
    owners.sort();
    owners
}

#[test]
fn a_boot_goes_on_by_its_first_path_and_the_daemon_adds_the_second() {
    Scenario::new().acpi_table(two_paths("root").bytes()).run(|guest| {
        let [one, two] = [1, 2].map(|number| cable(guest, number));
        let root = guest.target().subsystem(&nqn("root"));
        serve(guest, &one, 1, &root);
        let stas = guest.spawn("stas", &["boot"]);
        stas.wait_log("HFI 1 (52:54:00:00:00:01) of the boot table waits for san1 to be switched on", SOON);
        // Somebody else sets the network up; the second cable is not plugged in.
        set_up(guest, 1);
        two.plug(false);
        set_up(guest, 2);
        guest.wait_for_storage(&[&root.nqn], SOON);
        guest.wait_until("the boot goes on", SOON, || stas.log().contains("going on"));
        assert_eq!(owners(guest), [("10.98.1.1".to_owned(), "nbft".to_owned())]);
        let booted = guest.live_io_controllers();
        assert_eq!(booted[0].hostnqn, HOSTNQN);

        // After the switch to the real root the daemon knows the table, too; its host has another name of its own.
        let daemon = guest.spawn("stas", &["run"]);
        daemon.wait_log("already connected as", SOON);
        two.plug(true);
        serve(guest, &two, 2, &root);
        let nbft = |address: &str| (address.to_owned(), "nbft".to_owned());
        let both = [nbft("10.98.1.1"), nbft("10.98.2.1")];
        guest.wait_until("the second path is attached", Duration::from_secs(60), || owners(guest) == both);
        guest.assert_untouched(&booted);

        // What the firmware asked for is not taken down, not even when it is excluded: it is only not connected any more.
        let attached = guest.live_io_controllers();
        guest.write(STACD_CONF, &format!("[[exclude]]\nnqn = \"{}\"\n", root.nqn));
        daemon.reload();
        daemon.wait_log("excluded by the configuration", SOON);
        guest.wait_until("it is not wanted", SOON, || !guest.run("stacctl", &["ls"]).ok().contains(&root.nqn));
        let log = daemon.terminate().log;
        guest.assert_untouched(&attached);
        assert_eq!(owners(guest).len(), 2);
        assert!(!log.contains("disconnect"), "{log}");
    });
}
