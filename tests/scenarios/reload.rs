//! The administrator changes the configuration and sends SIGHUP.

use crate::guest::Guest;
use crate::stas::{Form, KERNEL_WAITS, SOON, STACD_CONF, STAFD_CONF, Stas, controller, io_controller, nqn};
use crate::vm::scenario;

#[test]
fn discovery_controllers_come_and_go() {
    scenario(|guest| {
        let [a, b] = ["a", "b"].map(nqn);
        let target = guest.target();
        target.tcp_port("127.0.0.1", 8009).link(&target.subsystem(&a));
        target.tcp_port("127.0.0.1", 8010).link(&target.subsystem(&b));
        let [first, second] = [8009, 8010].map(|port| controller("127.0.0.1", port));
        guest.write(STAFD_CONF, &first);
        let stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&[&a], SOON);
        let before = guest.controllers();

        guest.write(STAFD_CONF, &(first + &second));
        stas.finder().reload();
        guest.wait_for_storage(&[&a, &b], SOON);
        guest.assert_untouched(&before);
        let with_both = guest.controllers();

        guest.write(STAFD_CONF, &second);
        stas.finder().reload();
        guest.wait_for_storage(&[&b], SOON);
        guest.wait_until("its discovery controller is gone as well", SOON, || guest.controllers().len() == 2);
        let stays: Vec<_> = with_both.into_iter().filter(|controller| !before.contains(controller)).collect();
        assert_eq!(guest.controllers(), stays);
    });
}

#[test]
fn io_controllers_come_and_go() {
    scenario(|guest| {
        let [a, b] = ["a", "b"].map(nqn);
        let port = guest.target().tcp_port("127.0.0.1", 4420);
        [&a, &b].iter().for_each(|nqn| port.link(&guest.target().subsystem(nqn)));
        let [first, second] = [&a, &b].map(|nqn| io_controller("127.0.0.1", 4420, nqn));
        guest.write(STACD_CONF, &first);
        let stas = Stas::start(guest, Form::OneProcess);
        guest.wait_for_storage(&[&a], SOON);
        let before = guest.controllers();

        // An option of new connections leaves those that stand alone.
        guest.write(STACD_CONF, &format!("kato = 17\n{first}{second}"));
        stas.connector().reload();
        let both = guest.wait_for_storage(&[&a, &b], SOON);
        guest.assert_untouched(&before);
        let kato = |at: usize| std::fs::read_to_string(format!("/sys/class/nvme/{}/kato", both[at].name)).unwrap();
        assert_eq!((kato(0).trim(), kato(1).trim()), ("5", "17"));

        guest.write(STACD_CONF, &second);
        stas.connector().reload();
        guest.wait_for_storage(&[&b], SOON);
        guest.assert_untouched(&both[1..]);
    });
}

#[test]
fn an_exclusion_disconnects() {
    scenario(|guest| {
        let [a, b] = ["a", "b"].map(nqn);
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        [&a, &b].iter().for_each(|nqn| port.link(&guest.target().subsystem(nqn)));
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let stas = Stas::start(guest, Form::TwoDaemons);
        let both = guest.wait_for_storage(&[&a, &b], SOON);

        guest.write(STACD_CONF, &format!("[[exclude]]\nnqn = \"{b}\"\n"));
        stas.connector().reload();
        guest.wait_for_storage(&[&a], SOON);
        guest.assert_untouched(&both[..1]);

        guest.write(STACD_CONF, "");
        stas.connector().reload();
        guest.wait_for_storage(&[&a, &b], SOON);
        guest.assert_untouched(&both[..1]);
    });
}

/// The running configuration stays in force until there is a usable one again, however often that is tried.
#[test]
fn a_broken_file_changes_nothing() {
    scenario(|guest| {
        let [a, b, c] = ["a", "b", "c"].map(nqn);
        let target = guest.target();
        let port = target.tcp_port("127.0.0.1", 8009);
        port.link(&target.subsystem(&a));
        target.tcp_port("127.0.0.1", 4420).link(&target.subsystem(&b));
        let finds = controller("127.0.0.1", 8009);
        let connects = io_controller("127.0.0.1", 4420, &b);
        guest.write(STAFD_CONF, &finds);
        guest.write(STACD_CONF, &connects);
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&[&a, &b], SOON);
        let before = guest.controllers();

        guest.write(STAFD_CONF, "[[controller]]\ntransport = \"tcp\"\ntraddr = \"127.0.0.1\n");
        stas.finder().reload();
        stas.finder().wait_log("/etc/stas/stafd.conf:3", SOON);
        guest.write(STACD_CONF, "kato = 10\ncontrollers = 7\n");
        for _ in 0..2 {
            stas.connector().reload();
        }
        stas.connector().wait_log("/etc/stas/stacd.conf:2", SOON);

        port.link(&target.subsystem(&c));
        guest.wait_for_storage(&[&a, &b, &c], SOON);
        guest.assert_untouched(&before);
        stas.assert_running();

        repaired(guest, &stas, &finds, &connects);
        guest.wait_for_storage(&[&a, &c], SOON);
    });
}

/// Excludes what stacd.conf itself names, so that it can be seen when the file counts again.
fn repaired(guest: &Guest, stas: &Stas<'_>, finds: &str, connects: &str) {
    guest.write(STAFD_CONF, finds);
    stas.finder().reload();
    guest.write(STACD_CONF, &format!("{KERNEL_WAITS}{connects}\n[[exclude]]\ntrsvcid = 4420\n"));
    stas.connector().reload();
}
