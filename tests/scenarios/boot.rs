//! `stas boot`: a host attaches what its firmware booted it from, and the daemon takes over.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::guest::{Finished, Guest, Namespace, Subsystem};
use crate::nbft::build::{self, Discovery, Hfi, Host, Ssns, Table, ip};
use crate::stas::{SOON, STACD_CONF, STAFD_CONF, controller, nqn};
use crate::vm::Scenario;

const KEY: &str = "DHHC-1:00:MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTGxWMnb:";

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

fn boot(guest: &Guest, arguments: &[&str]) -> Finished {
    guest.run("stas", &[&["boot"], arguments].concat())
}

#[track_caller]
fn assert_boots(guest: &Guest, arguments: &[&str]) {
    assert_eq!(boot(guest, arguments).code, Some(0), "{arguments:?}");
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
fn a_boot_goes_on_by_one_path_and_the_daemon_adds_the_dead_one() {
    Scenario::new().acpi_table(two_paths("root").bytes()).run(|guest| {
        let [one, two] = [1, 2].map(|number| cable(guest, number));
        let root = guest.target().subsystem(&nqn("root"));
        // The target of the first path is not there.
        one.run("ip", &["address", "flush", "dev", "uplink"]).ok();
        serve(guest, &two, 2, &root);
        let mut stas = guest.spawn("stas", &["boot"]);
        stas.wait_log("HFI 1 (52:54:00:00:00:01) of the boot table waits for san1 to be switched on", SOON);
        // Somebody else sets the network up.
        set_up(guest, 1);
        set_up(guest, 2);
        guest.wait_for_storage(&[&root.nqn], SOON);
        guest.wait_until("the boot goes on", SOON, || !stas.is_running());
        assert_eq!(owners(guest), [("10.98.2.1".to_owned(), "nbft".to_owned())]);
        let booted = guest.live_io_controllers();
        assert_eq!(booted[0].hostnqn, HOSTNQN);

        // After the switch to the real root the daemon knows the table, too; its host has another name of its own.
        let daemon = guest.spawn("stas", &["run"]);
        daemon.wait_log("already connected as", SOON);
        one.run("ip", &["address", "add", "10.98.1.2/24", "dev", "uplink"]).ok();
        serve(guest, &one, 1, &root);
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

/// HFI 1: VLAN 100 with a lease, 10.98.1.1, and a path to 10.99.0.1 behind the gateway 10.98.1.2. HFI 2: IPv6, fd00:98::1.
fn network_table() -> Table {
    let vlan = Hfi {
        vlan: 100,
        mac: mac(1),
        address: ip("10.98.1.1"),
        gateway: ip("10.98.1.2"),
        flags: 1 | 4,
        dns: [ip("10.98.1.53"), build::NO_ADDRESS],
        ..Hfi::default()
    };
    let v6 = Hfi { index: 2, mac: mac(2), address: ip("fd00:98::1"), prefix: 64, ..Hfi::default() };
    let ssns = |index: u8, traddr: &str| Ssns {
        index: index.into(),
        hfi: index,
        traddr: ip(traddr),
        nqn: nqn("root"),
        ..Ssns::default()
    };
    let host = Host { nqn: HOSTNQN.to_owned(), ..Host::default() };
    Table { host, hfis: vec![vlan, v6], ssns: vec![ssns(1, "10.99.0.1"), ssns(2, "fd00:98::2")], ..Table::default() }
}

#[test]
fn a_boot_sets_up_the_network_of_the_table_and_waits_for_what_it_is_told() {
    Scenario::new().acpi_table(network_table().bytes()).run(|guest| {
        let [one, two] = [1, 2].map(|number| cable(guest, number));
        one.run("ip", &["link", "add", "link", "uplink", "name", "tagged", "type", "vlan", "id", "100"]).ok();
        one.run("ip", &["address", "flush", "dev", "uplink"]).ok();
        one.run("ip", &["address", "add", "10.98.1.2/24", "dev", "tagged"]).ok();
        one.run("ip", &["address", "add", "10.99.0.1/32", "dev", "lo"]).ok();
        one.run("ip", &["link", "set", "tagged", "up"]).ok();
        two.run("ip", &["address", "add", "fd00:98::2/64", "dev", "uplink", "nodad"]).ok();
        let root = guest.target().subsystem(&nqn("root"));
        guest.target().tcp_port("10.99.0.1", 4420).link_in(&one, &root);
        guest.target().tcp_port("fd00:98::2", 4420).link_in(&two, &root);

        assert_boots(guest, &["--network"]);
        // The other path may not be there yet. Who waits for more gets it, too.
        let expected = [("10.98.1.1", "nbft"), ("fd00:98::1", "nbft")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        let patient = guest.spawn("stas", &["boot", "--network", "--until", &nqn("absent"), "--deadline", "0"]);
        guest.wait_until("both paths are attached", SOON, || owners(guest) == expected);
        let stopped = patient.terminate();
        assert!(stopped.status.code() == Some(1) && stopped.log.contains("stopped before"), "{}", stopped.log);
        let late = boot(guest, &["--until", &nqn("absent"), "--deadline", "1"]);
        assert_eq!(late.code, Some(4));
        for reason in [
            "of waiting for a disk of nqn.2026-01.example:absent",
            "tcp 10.99.0.1:4420 via san1.100 nqn.2026-01.example:root: connected as nvme",
            "tcp [fd00:98::2]:4420 from fd00:98::1 nqn.2026-01.example:root: connected as nvme",
            "/dev/nvme0n1 is there, a disk of nqn.2026-01.example:root: ",
        ] {
            assert!(late.stderr.contains(reason), "{reason}\n{}", late.stderr);
        }
        let route = guest.run("ip", &["route", "show", "10.99.0.1"]).ok();
        assert!(route.contains("via 10.98.1.2 dev san1.100") && route.contains("metric 20000"), "{route}");
        assert_eq!(guest.run("ip", &["route", "show", "default"]).ok(), "", "the firmware had none there");
        assert_eq!(fs::read_to_string("/etc/resolv.conf").unwrap(), "nameserver 10.98.1.53\n");

        // What is there already ends the wait at once, by whatever name.
        let uuid = fs::read_to_string("/sys/block/nvme0n1/uuid").unwrap();
        for until in ["/dev/nvme0n1", &root.nqn, uuid.trim()] {
            assert_boots(guest, &["--until", until]);
        }
        assert_eq!(boot(guest, &["--until", "/dev/disk/by-label/root", "--deadline", "1"]).code, Some(4));
        assert_eq!(boot(guest, &["--until", "root"]).code, Some(2));
        guest.write(STACD_CONF, "kato = \"long\"\n");
        assert_eq!(boot(guest, &[]).code, Some(1));
        fs::remove_file(STACD_CONF).unwrap();

        // What a gateway leads to is bound to an interface by its name. That it has another is no reason to connect it again.
        // The daemon listens to what becomes of interfaces as long as it lacks something.
        let attached = guest.controllers();
        guest.write(STAFD_CONF, &controller("10.98.1.77", 8009));
        let daemon = guest.spawn("stas", &["run"]);
        daemon.wait_log("via san1.100 nqn.2026-01.example:root: already connected as", SOON);
        guest.run("ip", &["link", "set", "san1.100", "name", "storage"]).ok();
        daemon.wait_log("via storage nqn.2026-01.example:root: already connected as", SOON);
        let log = daemon.terminate().log;
        assert!(!log.contains(": connected as"), "{log}");
        guest.assert_untouched(&attached);
    });
}

#[test]
fn a_boot_without_a_table_has_nothing_to_do_and_one_without_a_key_is_refused() {
    Scenario::new().run(|guest| {
        let none = boot(guest, &[]);
        assert!(none.code == Some(3) && none.stderr.contains("names anything to connect"), "{}", none.stderr);

        let san = cable(guest, 1);
        set_up(guest, 1);
        let host = guest.target().host(HOSTNQN);
        host.set("dhchap_key", KEY);
        let root = guest.target().subsystem(&nqn("root"));
        root.allow(&host);
        serve(guest, &san, 1, &root);
        let mut table = two_paths("root");
        table.ssns.truncate(1);
        table.ssns[0].security = 1;
        table.security = vec![build::Security { flags: 1 | 4, ..build::Security::default() }];
        fs::write("/secured", table.bytes()).unwrap();
        let refused = boot(guest, &["--nbft", "/secured", "--deadline", "2"]);
        let why = "10.98.1.2 port 4420 nqn.2026-01.example:root is not connected: the firmware's table requires";
        assert!(refused.code == Some(4) && refused.stderr.contains(why), "{}", refused.stderr);
        assert!(guest.controllers().is_empty());

        // Where the table requires TLS and there is no key for it, nothing is connected, rather than something without TLS.
        table.security[0].flags = 1 | 0x40;
        fs::write("/tls", table.bytes()).unwrap();
        let mut stas = guest.spawn("stas", &["boot", "--nbft", "/tls", "--deadline", "0"]);
        stas.wait_log("the keyring has no pre-shared key for this host and this controller", SOON);
        assert!(stas.is_running() && guest.controllers().is_empty());
        stas.terminate();

        guest.write("/etc/nvme/hostkey", KEY);
        fs::set_permissions("/etc/nvme/hostkey", Permissions::from_mode(0o600)).unwrap();
        assert_boots(guest, &["--nbft", "/secured"]);
        assert_eq!(guest.block_devices().len(), 1);

        // A table may know no more than who knows the rest. This host's own files are not needed for it.
        let other = guest.target().subsystem(&nqn("other"));
        guest.target().tcp_port("10.98.1.2", 8009).link_in(&san, &other);
        table.ssns.clear();
        table.security.clear();
        let uri = "nvme+tcp://10.98.1.2:8009/".to_owned();
        table.discovery = vec![Discovery { uri, ..Discovery::default() }];
        fs::write("/discovery", table.bytes()).unwrap();
        fs::remove_dir_all("/etc/nvme").unwrap();
        assert_boots(guest, &["--nbft", "/discovery", "--kmsg"]);
        assert_eq!(owners(guest), vec![("10.98.1.1".to_owned(), "nbft".to_owned()); 2]);
        assert!(guest.run("dmesg", &[]).ok().contains("stas boot: /dev/nvme2n1 is there"));

        // A path may be there long before its disk.
        let late = guest.target().empty_subsystem(&nqn("late"));
        guest.target().tcp_port("10.98.1.2", 4421).link_in(&san, &late);
        let mut table = two_paths("late");
        table.ssns.truncate(1);
        table.ssns[0].trsvcid = "4421".to_owned();
        fs::write("/late", table.bytes()).unwrap();
        let mut waiting = guest.spawn("stas", &["boot", "--nbft", "/late", "--deadline", "0"]);
        waiting.wait_log("example:late: connected as", SOON);
        // Whatever a connection brings with it is over by then.
        std::thread::sleep(Duration::from_secs(2));
        assert!(waiting.is_running(), "{}", waiting.log());
        late.add_namespace(1, 1 << 20);
        guest.wait_until("the boot goes on", SOON, || !waiting.is_running());
        assert_eq!(waiting.log().matches("is there after").count(), 1);
    });
}
