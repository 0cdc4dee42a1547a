//! nvme-stas as Debian ships it, and Debian's D-Bus tools, with our daemons; our daemons and tools with those of nvme-stas.

use crate::guest::{Daemon, Debian, Guest, Port, Subsystem};
use crate::vm::Scenario;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// Python in an emulated machine takes its time to start.
const PATIENCE: Duration = Duration::from_secs(40);

const NQNS: [&str; 2] = ["nqn.2026-01.example:a", "nqn.2026-01.example:b"];

const CONTROLLER: &str = "controller = transport=tcp;traddr=127.0.0.1;trsvcid=8009";

const HOST_KEY: &str = "DHHC-1:00:aGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGicgrbe:";
const SECRET: &str = "DHHC-1:00:Y2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2O1g8Y8:";
const CTRL_SECRET: &str = "DHHC-1:00:a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s/3PpT:";

/// The two disks and the port on which they may appear.
struct Storage {
    port: Port,
    disks: [Subsystem; 2],
}

/// The target with the first disk linked, the configuration in the dialect of nvme-stas, and the bus.
fn prepare(guest: &Guest) -> (Storage, Daemon) {
    let disks = NQNS.map(|nqn| guest.target().subsystem(nqn));
    let port = guest.target().tcp_port("127.0.0.1", 8009);
    port.link(&disks[0]);
    guest.write("/etc/stas/stafd.conf", &format!("[Controllers]\n{CONTROLLER}\n"));
    guest.write("/etc/stas/stacd.conf", "[Controllers]\n");
    guest.write("/etc/stas/sys.conf", "[Host]\n");
    (Storage { port, disks }, guest.start_bus())
}

/// What nvme-stas has its events from.
fn start_udev(debian: &Debian) -> Daemon {
    let udev = debian.spawn("/usr/lib/systemd/systemd-udevd", &[]);
    udev.wait_log("Using default interface naming scheme", PATIENCE);
    udev
}

fn wait_disks(guest: &Guest, nqns: &[&str]) {
    let disks = || guest.block_devices().into_iter().map(|device| device.subsysnqn).collect::<Vec<_>>();
    guest.wait_until(&format!("these are disks: {nqns:?}"), PATIENCE, || {
        let mut found = disks();
        found.sort();
        found == nqns
    });
}

#[test]
fn tools_of_nvme_stas_ask_our_daemons_and_see_no_secret() {
    Scenario::new().with_debian().run(|guest| {
        let debian = guest.debian();
        let (_storage, _bus) = prepare(guest);
        write_secretly(guest, "/etc/nvme/hostkey", HOST_KEY);
        let with_secrets = format!("{CONTROLLER};dhchap-secret={SECRET};dhchap-ctrl-secret={CTRL_SECRET}");
        write_secretly(guest, "/etc/stas/stafd.conf", &format!("[Controllers]\n{with_secrets}\n"));
        let io = format!("[Controllers]\n{with_secrets};nqn={}\n", NQNS[0]);
        write_secretly(guest, "/etc/stas/stacd.conf", &io);
        let stafd = guest.spawn("stafd", &["--tron"]);
        let stacd = guest.spawn("stacd", &["--tron"]);
        wait_disks(guest, &NQNS[..1]);
        stafd.wait_log("lists 2 entries", PATIENCE);

        let mut said = String::new();
        let mut ask = |program: &str, arguments: &[&str], expected: &[&str]| {
            let text = debian.run(program, arguments).ok();
            for word in expected {
                assert!(text.contains(word), "{program} {arguments:?} does not show {word}:\n{text}");
            }
            said += &text;
        };
        let entry =
            ["'subtype': 'nvme'", "'treq': 'disable sqflow'", "'asqsz': '32'", "'subnqn': 'nqn.2026-01.example:a'"];
        ask("stafctl", &["ls"], &["'device': 'nvme", "'traddr': '127.0.0.1'", "'trsvcid': '8009'"]);
        ask("stafctl", &["ls", "-d"], &["'origin': 'configured'", "'connected': 'True'"]);
        ask("stafctl", &["adlp"], &entry);
        ask("stafctl", &["adlp", "-d"], &["'origin': 'configured'", entry[0]]);
        ask("stafctl", &["dlp", "-t", "tcp", "-a", "127.0.0.1", "-s", "8009"], &entry);
        ask("stafctl", &["status"], &["'hostnqn': 'nqn.2014-08", "'log_pages'", "'avahi'"]);
        ask("stacctl", &["ls"], &["'device': 'nvme", "'subsysnqn': 'nqn.2026-01.example:a'"]);
        ask("stacctl", &["ls", "-d"], &["'cntrltype': 'io'", "'dlpe.eflags.ncc': 'False'"]);
        ask("stacctl", &["status"], &["'controllers'", "'model': 'Linux'"]);
        for tool in ["stafctl", "stacctl"] {
            said += &guest.run(tool, &["ls", "-d"]).ok();
            said += &guest.run(tool, &["status"]).ok();
        }
        said += &guest.run("stas", &["tree", "-o", "json"]).ok();
        said += &guest.run("stasadm", &["check"]).stdout;
        said += &stafd.terminate().log;
        said += &stacd.terminate().log;
        let run = guest.run("grep", &["-rlE", "DHHC-1|aGhoaGho|Y2NjY2Nj|a2tra2tr", "/run/stafd", "/run/stacd"]);
        assert_eq!(run.code, Some(1), "a secret is in {}", run.stdout);
        for secret in ["DHHC-1", &HOST_KEY[10..40], &SECRET[10..40], &CTRL_SECRET[10..40]] {
            let line = said.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "a secret was told");
        }
    });
}

#[track_caller]
fn write_secretly(guest: &Guest, path: &str, text: &str) {
    guest.write(path, text);
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn stacd_of_nvme_stas_follows_our_stafd() {
    Scenario::new().with_debian().run(|guest| {
        let debian = guest.debian();
        let (storage, _bus) = prepare(guest);
        let _udev = start_udev(&debian);
        let _stafd = guest.spawn("stafd", &[]);
        let stacd = debian.spawn("/usr/sbin/stacd", &[]);
        wait_disks(guest, &NQNS[..1]);
        storage.port.link(&storage.disks[1]);
        wait_disks(guest, &NQNS);
        storage.port.unlink(&storage.disks[0]);
        wait_disks(guest, &NQNS[1..]);
        let log = stacd.terminate().log;
        assert!(!log.contains("Traceback"), "{log}");
    });
}

#[test]
fn our_stacd_and_tools_follow_stafd_of_nvme_stas() {
    Scenario::new().with_debian().run(|guest| {
        let debian = guest.debian();
        let (storage, _bus) = prepare(guest);
        let _udev = start_udev(&debian);
        let _stacd = guest.spawn("stacd", &[]);
        let _stafd = debian.spawn("/usr/sbin/stafd", &[]);
        wait_disks(guest, &NQNS[..1]);
        storage.port.link(&storage.disks[1]);
        wait_disks(guest, &NQNS);

        assert!(guest.run("stafctl", &["ls"]).ok().contains("nvme0   tcp     127.0.0.1  8009"));
        assert!(guest.run("stafctl", &["ls", "-d"]).ok().contains("origin"));
        assert!(guest.run("stafctl", &["dlp", "-a", "127.0.0.1"]).ok().contains(NQNS[1]));
        assert!(guest.run("stafctl", &["adlp"]).ok().contains(NQNS[1]));
        assert!(guest.run("stafctl", &["status"]).ok().contains("avahi"));
        let tree = guest.run("stas", &["tree"]).ok();
        assert!(
            tree.contains("|- nvme0 tcp 127.0.0.1:8009  live, configured, 3 entries\n")
                || tree.contains("`- nvme0 tcp 127.0.0.1:8009  live, configured, 3 entries\n"),
            "{tree}"
        );
        assert_eq!(tree.matches("127.0.0.1:8009  live\n").count(), 2, "{tree}");

        storage.port.unlink(&storage.disks[0]);
        wait_disks(guest, &NQNS[1..]);
    });
}

#[test]
fn detailed_replies_have_every_key_of_nvme_stas() {
    Scenario::new().with_debian().run(|guest| {
        let debian = guest.debian();
        let (_storage, _bus) = prepare(guest);
        let _udev = start_udev(&debian);
        let theirs = [debian.spawn("/usr/sbin/stafd", &[]), debian.spawn("/usr/sbin/stacd", &[])];
        wait_disks(guest, &NQNS[..1]);
        let expected = keys(guest);
        theirs.into_iter().for_each(|daemon| drop(daemon.terminate()));
        let _ours = [guest.spawn("stafd", &[]), guest.spawn("stacd", &[])];
        let answers = || guest.run("stacctl", &["-o", "json", "ls"]).stdout.contains(NQNS[0]);
        guest.wait_until("our daemons answer", PATIENCE, answers);
        let actual = keys(guest);
        let missing: Vec<_> = expected.difference(&actual).collect();
        assert!(missing.is_empty(), "missing: {missing:?}");
        assert!(expected.len() > 60, "too few keys to mean anything: {expected:?}");
    });
}

/// Every key that is in a reply of the daemons, after the name of what it is a key of.
fn keys(guest: &Guest) -> BTreeSet<String> {
    let ask = |tool: &str, command: &[&str]| -> Value {
        let json = guest.run(tool, &[&["-o", "json"], command].concat()).ok();
        serde_json::from_str(&json).unwrap()
    };
    let mut keys = BTreeSet::new();
    let mut add = |what: &str, object: &Value| {
        keys.extend(object.as_object().unwrap().keys().map(|key| format!("{what}: {key}")));
    };
    add("discovery controller", &ask("stafctl", &["ls", "-d"])[0]);
    let page = &ask("stafctl", &["adlp", "-d"])[0];
    add("discovery controller of a page", &page["discovery-controller"]);
    add("entry", &page["log-pages"][0]);
    add("stafd", &ask("stafctl", &["status"]));
    add("avahi", &ask("stafctl", &["status"])["avahi"]);
    add("I/O controller", &ask("stacctl", &["ls", "-d"])[0]);
    add("stacd", &ask("stacctl", &["status"]));
    keys
}

#[test]
fn busctl_and_gdbus_get_along() {
    Scenario::new().with_debian().run(|guest| {
        let debian = guest.debian();
        let (storage, _bus) = prepare(guest);
        let _stafd = guest.spawn("stafd", &[]);
        let _stacd = guest.spawn("stacd", &[]);
        wait_disks(guest, &NQNS[..1]);
        let gdbus = |arguments: &str| debian.run("gdbus", &arguments.split(' ').collect::<Vec<_>>());
        let busctl = |arguments: &str| debian.run("busctl", &arguments.split(' ').collect::<Vec<_>>());

        for (name, methods) in [("staf", 3), ("stac", 1)] {
            let object = format!("org.nvmexpress.{name} /org/nvmexpress/{name}");
            let text = busctl(&format!("introspect {object}")).ok();
            let of_main = text.split("org.nvmexpress.").nth(1).unwrap();
            assert_eq!(of_main.matches(" method ").count(), methods, "{text}");
            assert!(text.contains("writable"), "{text}");
            let tree = busctl(&format!("tree --list org.nvmexpress.{name}")).ok();
            assert_eq!(tree, format!("/\n/org\n/org/nvmexpress\n/org/nvmexpress/{name}\n"));
            let xml = gdbus(&format!("introspect --system -d org.nvmexpress.{name} -o /org/nvmexpress/{name}")).ok();
            assert!(xml.contains("out aa{ss} controller_list"), "{xml}");
            let call = format!("call {object} org.nvmexpress.{name} list_controllers b true");
            assert!(busctl(&call).ok().starts_with("aa{ss} 1 "));
        }
        let to_stafd = "call --system -d org.nvmexpress.staf -o /org/nvmexpress/staf -m";
        assert!(gdbus(&format!("{to_stafd} org.nvmexpress.staf.get_all_log_pages false")).ok().contains(NQNS[0]));
        assert!(gdbus(&format!("{to_stafd} org.nvmexpress.staf.debug.process_info")).ok().contains("hostnqn"));
        assert!(gdbus(&format!("{to_stafd} org.freedesktop.DBus.Peer.Ping")).ok().contains("()"));
        let refused = gdbus(&format!("{to_stafd} org.nvmexpress.staf.nonsense"));
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.contains("UnknownMethod"), "{}", refused.stderr);

        let monitor = debian.spawn("gdbus", &["monitor", "--system", "-d", "org.nvmexpress.staf"]);
        monitor.wait_log("The name org.nvmexpress.staf is owned", PATIENCE);
        storage.port.link(&storage.disks[1]);
        monitor.wait_log("org.nvmexpress.staf.log_pages_changed ('tcp', '127.0.0.1', '8009', ", PATIENCE);
        let tron = "org.nvmexpress.staf /org/nvmexpress/staf org.nvmexpress.staf.debug tron";
        assert_eq!(busctl(&format!("get-property {tron}")).ok(), "b false\n");
        busctl(&format!("set-property {tron} b true")).ok();
        assert_eq!(busctl(&format!("get-property {tron}")).ok(), "b true\n");
        monitor.wait_log("PropertiesChanged ('org.nvmexpress.staf.debug', {'tron': <true>}, ['log_level'])", PATIENCE);
    });
}
