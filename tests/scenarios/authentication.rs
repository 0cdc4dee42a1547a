//! DH-HMAC-CHAP with a target that demands it, and where the keys do not get to.

use crate::guest::{Daemon, Guest, HOSTNQN, Host, Port, Subsystem};
use crate::stas::{Form, Part, SOON, STACD_CONF, STAFD_CONF, Stas, controller, io_controller, nqn};
use crate::vm::scenario;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

const KEY: &str = "DHHC-1:00:MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTGxWMnb:";
const NEW_KEY: &str = "DHHC-1:00:MjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjISBoVW:";
const WRONG_KEY: &str = "DHHC-1:00:d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3dkEyDV:";
const CTRL_KEY: &str = "DHHC-1:00:Y2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2O1g8Y8:";

const HOST_KEY_FILE: &str = "/etc/nvme/hostkey";

/// Subsystems that demand authentication of this host, behind one port.
struct Storage {
    host: Host,
    _port: Port,
    _disks: Vec<Subsystem>,
}

fn storage(guest: &Guest, nqns: &[&str]) -> Storage {
    let target = guest.target();
    let host = target.host(HOSTNQN);
    host.set("dhchap_key", KEY);
    host.set("dhchap_hash", "hmac(sha256)");
    host.set("dhchap_dhgroup", "ffdhe2048");
    let port = target.tcp_port("127.0.0.1", 4420);
    let disks = nqns.iter().map(|nqn| target.subsystem(nqn)).collect::<Vec<_>>();
    for disk in &disks {
        disk.allow(&host);
        port.link(disk);
    }
    Storage { host, _port: port, _disks: disks }
}

/// The target cuts the connection as soon as a key is refused, by either side, which may overtake the refusal: then the kernel
/// waits for so many seconds, and says EIO instead of EKEYREJECTED.
fn let_refusals_be_lost(guest: &Guest) {
    guest.write("/sys/module/nvme_core/parameters/admin_timeout", "3");
}

/// For root alone.
#[track_caller]
fn write_secretly(guest: &Guest, path: &str, text: &str) {
    guest.write(path, text);
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// The administrator puts the host's key in order, step by step.
#[test]
fn the_hosts_key_is_missing_wrong_right_and_changed() {
    scenario(|guest| {
        let a = nqn("a");
        let storage = storage(guest, &[&a]);
        let_refusals_be_lost(guest);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 4420));
        guest.write(STACD_CONF, "reconnect-delay = 1\n");
        let stas = Stas::start(guest, Form::OneProcess);
        let says = |text: &str| stas.connector().wait_log(text, SOON);
        says(
            "nqn.2026-01.example:a: not connected: the controller demands authentication, and no key is configured \
             (dhchap-secret, or key in sys.conf) (ENOKEY)",
        );

        write_secretly(guest, HOST_KEY_FILE, WRONG_KEY);
        stas.connector().reload();
        let refusals = || stas.connector().count_log("example:a: not connected: ");
        guest.wait_until("the key is refused", SOON, || refusals() == 2);

        write_secretly(guest, HOST_KEY_FILE, KEY);
        stas.connector().reload();
        let before = guest.wait_for_storage(&[&a], SOON);

        // The file is read for each connect; the kernel gives up at once when it is refused.
        storage.host.set("dhchap_key", NEW_KEY);
        let _ = fs::write(format!("/sys/class/nvme/{}/reset_controller", before[0].name), "1");
        says("the kernel removed");
        guest.wait_until("the key is refused again", SOON, || refusals() == 3);
        guest.run("chmod", &["644", HOST_KEY_FILE]).ok();
        says("the key in /etc/nvme/hostkey is refused because other users can read it; `chmod 600 /etc/nvme/hostkey`");
        write_secretly(guest, HOST_KEY_FILE, NEW_KEY);
        stas.connector().reload();
        guest.wait_for_storage(&[&a], SOON);
    });
}

/// With the host's key nothing would be connected here.
#[test]
fn keys_of_controllers_win_and_work_both_ways_and_are_not_told() {
    scenario(|guest| {
        let [a, b, c] = ["a", "b", "c"].map(nqn);
        let storage = storage(guest, &[&a, &b, &c]);
        let_refusals_be_lost(guest);
        storage.host.set("dhchap_ctrl_key", CTRL_KEY);
        write_secretly(guest, HOST_KEY_FILE, WRONG_KEY);
        write_secretly(guest, "/etc/nvme/a.key", &format!("{KEY}\n"));
        write_secretly(guest, "/etc/nvme/ctrl.key", &format!("{CTRL_KEY}\n"));
        let of_a = "dhchap-secret = \"file:///etc/nvme/a.key\"\ndhchap-ctrl-secret = \"file:///etc/nvme/ctrl.key\"\n";
        let of_b = format!("dhchap-secret = \"{KEY}\"\n");
        let of_c = format!("dhchap-secret = \"{KEY}\"\ndhchap-ctrl-secret = \"{NEW_KEY}\"\n");
        let controllers = [(&a, of_a), (&b, &of_b), (&c, &of_c)];
        let conf: String = controllers.map(|(nqn, keys)| io_controller("127.0.0.1", 4420, nqn) + keys).concat();
        guest.write(STAFD_CONF, &("tron = true\n".to_owned() + &controller("127.0.0.1", 4420)));
        write_secretly(guest, STACD_CONF, &format!("tron = true\n{conf}"));
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        for text in ["a: connected as", "b: connected as", "c: not connected: "] {
            stas.connector().wait_log(&format!("example:{text}"), SOON);
        }

        let mut said = replies(guest);
        let daemons = [stas.finder(), stas.connector()];
        for pid in daemons.into_iter().flat_map(family) {
            for file in ["cmdline", "environ"] {
                said += &String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default());
            }
        }
        // The helper and its children have none at all; a daemon has those that stand in its configuration, nowhere else. A
        // child that is about to use one has it as long as it lives, which is not long.
        let may_have = |pid, key| pid == stas.connector().pid() && [KEY, NEW_KEY].contains(&key);
        let is_right = |pid, key| memory_has(pid, key).is_none_or(|has| has == may_have(pid, key));
        guest.wait_until("keys are where they may be", SOON, || {
            let keys = [KEY, NEW_KEY, CTRL_KEY, WRONG_KEY];
            daemons.into_iter().flat_map(family).all(|pid| keys.iter().all(|key| is_right(pid, key)))
        });
        stas.assert_running();
        for ended in stas.end(Part::Both, Daemon::terminate) {
            said += &ended.log;
        }
        assert!(said.contains("example:b"), "nothing was said:\n{said}");
        for key in [KEY, NEW_KEY, CTRL_KEY, WRONG_KEY] {
            let told = said.lines().find(|line| line.contains(&key[10..40]));
            assert_eq!(told, None, "a key was told");
            let found = guest.run("grep", &["-rlF", &key[10..40], "/run"]);
            assert_eq!(found.stdout, "", "{key} is in files");
        }
    });
}

/// What the program answers to whoever asks.
fn replies(guest: &Guest) -> String {
    let asked = [
        ("stafctl", "ls -d"),
        ("stafctl", "adlp -d"),
        ("stafctl", "status"),
        ("stacctl", "ls -d"),
        ("stacctl", "status"),
        ("stas", "tree"),
        ("stas", "tree -o json"),
        ("stasadm", "check"),
    ];
    asked.map(|(tool, words)| guest.run(tool, &words.split(' ').collect::<Vec<_>>()).stdout).concat()
}

/// A daemon, its helper, and the helper's children.
fn family(daemon: &Daemon) -> Vec<u32> {
    let mut family = vec![daemon.pid()];
    let mut next = 0;
    while let Some(pid) = family.get(next) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        family.extend(children.split_whitespace().map(|child| child.parse::<u32>().unwrap()));
        next += 1;
    }
    family
}

/// Whether a process has these bytes in any memory that it can write to. `None`: it has ended.
fn memory_has(pid: u32, key: &str) -> Option<bool> {
    let process = Path::new("/proc").join(pid.to_string());
    let memory = File::open(process.join("mem")).ok()?;
    let maps = fs::read_to_string(process.join("maps")).ok()?;
    Some(maps.lines().filter(|line| line.contains(" rw")).any(|line| {
        let (from, to) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut bytes = vec![0; (to - from) as usize];
        let _ = memory.read_exact_at(&mut bytes, from);
        let key = &key.as_bytes()[10..40];
        bytes.iter().enumerate().any(|(at, byte)| *byte == key[0] && bytes[at..].starts_with(key))
    }))
}
