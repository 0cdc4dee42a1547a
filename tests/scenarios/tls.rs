//! NVMe/TCP over TLS with pre-shared keys: nvme-cli makes the keys, tlshd shakes hands for both sides, both Debian's.

use crate::guest::{DISCOVERY_NQN, Debian, HOSTNQN};
use crate::stas::{Form, KERNEL_WAITS, SOON, STACD_CONF, STAFD_CONF, Stas, controller, io_controller, nqn};
use crate::vm::Scenario;
use std::fs;

#[test]
fn keys_are_found_and_what_is_missing_is_said() {
    Scenario::new().with_debian().run(|guest| {
        let debian = guest.debian();
        guest.run("modprobe", &["tls"]).ok();
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        let secured = guest.target().tcp_port("127.0.0.1", 8009);
        secured.set("addr_tsas", "tls1.3");
        secured.set("addr_treq", "required");
        [&a, &b].iter().for_each(|disk| secured.link(disk));
        guest.target().tcp_port("127.0.0.1", 8010).link(&a);

        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        guest.write(STACD_CONF, KERNEL_WAITS);
        let stas = Stas::start(guest, Form::OneProcess);
        let says = |text: &str| stas.finder().wait_log(text, SOON);
        says("127.0.0.1:8009: something accepts connections there but closes them at once; it may demand TLS; 1 waiting, ");

        guest.write(STAFD_CONF, &format!("tls = true\n{}", controller("127.0.0.1", 8009)));
        stas.finder().reload();
        says("not connected: the keyring has no pre-shared key for this host and this controller; ");

        let key = make_key(&debian, &a.nqn);
        insert_key(&debian, &key, DISCOVERY_NQN);
        insert_key(&debian, &key, &b.nqn);
        stas.finder().reload();
        says("not connected: TLS needs the tlshd service, which does not run (ESRCH)");

        guest.write("/tmp/tlshd.conf", "[authenticate]\nkeyrings=.nvme\n");
        let tlshd = debian.spawn("/usr/sbin/tlshd", &["-s", "-c", "/tmp/tlshd.conf"]);
        tlshd.wait_log("Built from ktls-utils", SOON);
        // One I/O controller by the log page, another one with a key of its own, and one that does not speak TLS.
        let with_key = |name: &str| format!("tls-key = \"{name}\"\nkeyring = \".nvme\"\n");
        let of_b = |name| io_controller("127.0.0.1", 8009, &b.nqn) + &with_key(name);
        let plain = io_controller("127.0.0.1", 8010, &a.nqn);
        guest.write(STACD_CONF, &format!("tls = true\n{KERNEL_WAITS}{}{plain}", of_b("no such key")));
        stas.finder().reload();
        says("example:b: not connected: the kernel has no pre-shared key called \"no such key\"; next try");
        says("127.0.0.1:8010: no TLS handshake: what listens there does not speak TLS, or tlshd of this host hangs (ETIMEDOUT)");

        // Without TLS, where it is demanded by a target that can do it: the probe does no harm to the others.
        let refused = "127.0.0.1:8009: something accepts connections there but closes them at once; it may demand TLS";
        assert_eq!(stas.finder().count_log(refused), 1);
        let without = io_controller("127.0.0.1", 8009, &nqn("c")) + "tls = false\n";
        guest.write(STACD_CONF, &format!("tls = true\n{KERNEL_WAITS}{}{without}", of_b(&description(&b.nqn))));
        stas.finder().reload();
        guest.wait_until("it is refused", SOON, || stas.finder().count_log(refused) == 2);
        guest.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
        let controllers = guest.controllers();
        assert_eq!(controllers.len(), 3);
        let key_of = |name: &str| fs::read_to_string(format!("/sys/class/nvme/{name}/tls_key")).unwrap();
        assert!(controllers.iter().all(|one| key_of(&one.name).trim().len() == 8), "{controllers:?}");
        assert!(!stas.logs().contains(&key[20..50]), "the key was told");
    });
}

/// A new pre-shared key for this host, put into the keyring for one subsystem.
#[track_caller]
fn make_key(debian: &Debian<'_>, subsysnqn: &str) -> String {
    let said = debian.run("nvme", &["gen-tls-key", "-n", HOSTNQN, "-c", subsysnqn, "-i", "-I", "1"]).ok();
    let key = said.split_whitespace().find(|word| word.starts_with("NVMeTLSkey-1"));
    key.expect("a key").to_owned()
}

/// The same key for another one.
#[track_caller]
fn insert_key(debian: &Debian<'_>, key: &str, subsysnqn: &str) {
    debian.run("nvme", &["check-tls-key", "-n", HOSTNQN, "-c", subsysnqn, "-d", key, "-i", "-I", "1"]).ok();
}

/// What the key for a subsystem is called in the keyring.
#[track_caller]
fn description(subsysnqn: &str) -> String {
    let keys = fs::read_to_string("/proc/keys").unwrap();
    let line = keys.lines().find(|line| line.contains(subsysnqn)).expect("a key for it");
    let from = line.find("NVMe1").unwrap();
    line[from..].rsplit_once(": ").unwrap().0.to_owned()
}
