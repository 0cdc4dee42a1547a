//! Debian's nvme-stas is replaced by our package, and comes back: what is connected stays, and so does the configuration.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::guest::{Guest, Port, Subsystem};
use crate::stas::{STACD_CONF, STAFD_CONF, nqn};
use crate::vm::{PACKAGES, installed};

/// Emulated, Python and perl take their time.
const LONG: Duration = Duration::from_secs(180);

const NVME_STAS: &str = "/var/cache/nvme-stas.deb";

/// What an administrator has written for nvme-stas.
const FINDER: &str = "[Service Discovery]\nzeroconf=disabled\n[Controllers]\n# the array\n\
                      controller=transport=tcp;traddr=127.0.0.1;trsvcid=8009\n";
const CONNECTOR: &str = "[Global]\nqueue-size=64\n[Controllers]\nexclude=nqn=nqn.2026-01.example:excluded\n";

#[test]
fn the_package_takes_the_place_of_nvme_stas_and_gives_it_back() {
    installed(|guest| {
        let [first, excluded, second, third] =
            ["first", "excluded", "second", "third"].map(|name| guest.target().subsystem(&nqn(name)));
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        port.link(&first);
        port.link(&excluded);
        // Compiling all of it would take a minute; it does not need that.
        fs::remove_file("/usr/bin/py3compile").unwrap();
        // As nvme-stas ships it, but for the comment signs.
        for conf in ["stafd.conf", "stacd.conf"] {
            let uncommented = format!("sed -E 's/^#([a-z-]+=)/\\1/' /etc/stas/{conf} >/root/{conf}");
            guest.run("sh", &["-c", &uncommented]).ok();
        }
        guest.write(STAFD_CONF, FINDER);
        guest.write(STACD_CONF, CONNECTOR);
        dpkg(guest, &["--force-confold", "--install", NVME_STAS]);
        wait_for(guest, &[&first]);
        let theirs = guest.controllers();

        // Nobody is there to be asked.
        dpkg(guest, &["--install", &format!("{PACKAGES}/stas_*.deb")]);
        is_active(guest, &["stas"], &["stafd", "stacd"]);
        guest.assert_untouched(&theirs);
        assert_configuration();
        appears(guest, &port, &second, &[&first, &second]);
        assert_eq!(queue_size(guest, &second), "64");
        let ours = guest.controllers();
        let convert = "cd /root && stasadm convert stafd.conf >stafd.toml && stasadm convert stacd.conf >stacd.toml && \
                       grep -q '^zeroconf-connections-persistence = \"72hours\"$' stafd.toml && grep -q '^kato = 120$' stacd.toml && \
                       stasadm check --stafd-conf stafd.toml --stacd-conf stacd.toml && \
                       stasadm check --stafd-conf stafd.conf --stacd-conf stacd.conf";
        assert_eq!(guest.run("sh", &["-c", convert]).ok(), "");

        // It has nothing left that could be taken away with it.
        dpkg(guest, &["--purge", "nvme-stas"]);
        assert_configuration();
        assert_eq!(guest.run("systemctl", &["is-enabled", "stas"]).ok().trim(), "enabled");

        dpkg(guest, &["--remove", "stas"]);
        is_active(guest, &[], &["stas"]);
        assert_ne!(guest.run("systemctl", &["cat", "stas"]).code, Some(0), "the unit is still there");
        guest.assert_untouched(&ours);
        assert_configuration();

        // And back. dpkg asks about the configuration of a package that asks.
        dpkg(guest, &["--force-confold", "--install", NVME_STAS]);
        dpkg(guest, &["--purge", "stas"]);
        is_active(guest, &["stafd", "stacd"], &["stas"]);
        assert_configuration();
        appears(guest, &port, &third, &[&first, &second, &third]);
        guest.assert_untouched(&ours);
    });
}

#[track_caller]
fn dpkg(guest: &Guest, arguments: &[&str]) {
    guest.run("sh", &["-c", &format!("dpkg {} </dev/null", arguments.join(" "))]).ok();
}

fn assert_configuration() {
    assert_eq!(fs::read_to_string(STAFD_CONF).unwrap(), FINDER);
    assert_eq!(fs::read_to_string(STACD_CONF).unwrap(), CONNECTOR);
    assert!(!Path::new(&format!("{STAFD_CONF}.dpkg-kept")).exists());
}

#[track_caller]
fn is_active(guest: &Guest, services: &[&str], but: &[&str]) {
    let all = [services, but].concat();
    let said = guest.run("systemctl", &[&["is-active"], all.as_slice()].concat()).stdout;
    let expected = [vec!["active"; services.len()], vec!["inactive"; but.len()]].concat();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{all:?}");
}

/// A new subsystem is found and connected.
fn appears(guest: &Guest, port: &Port, subsystem: &Subsystem, all: &[&Subsystem]) {
    port.link(subsystem);
    wait_for(guest, all);
}

#[track_caller]
fn wait_for(guest: &Guest, all: &[&Subsystem]) {
    let mut expected: Vec<&str> = all.iter().map(|subsystem| subsystem.nqn.as_str()).collect();
    expected.sort();
    guest.wait_until("just these disks are there", LONG, || {
        let disks = guest.block_devices();
        let mut found: Vec<&str> = disks.iter().map(|disk| disk.subsysnqn.as_str()).collect();
        found.sort();
        found == expected
    });
}

/// As the kernel has it: one entry of the queue is always free.
fn queue_size(guest: &Guest, subsystem: &Subsystem) -> String {
    let found = guest.live_io_controllers().into_iter().find(|controller| controller.subsysnqn == subsystem.nqn);
    let path = format!("/sys/class/nvme/{}/sqsize", found.expect("it is connected").name);
    let size: u32 = fs::read_to_string(path).unwrap().trim().parse().unwrap();
    (size + 1).to_string()
}
