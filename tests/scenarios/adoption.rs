//! What the kernel has already: connections that somebody else made, and controllers that are spelled in two ways.

use crate::guest::{DISCOVERY_NQN, Daemon, Guest};
use crate::stas::{Form, KERNEL_WAITS, Part, SOON, STACD_CONF, STAFD_CONF, Stas, controller, io_controller, nqn};
use crate::vm::{Kernel, Scenario, scenario};

#[test]
fn others_connections_are_used_and_left_alone() {
    scenario(others_connections);
}

#[test]
fn others_connections_are_used_and_left_alone_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(others_connections);
}

fn others_connections(guest: &Guest) {
    let [a, b, c] = ["a", "b", "c"].map(|name| guest.target().subsystem(&nqn(name)));
    let port = guest.target().tcp_port("127.0.0.1", 8009);
    [&a, &b].iter().for_each(|subsystem| port.link(subsystem));
    let elsewhere = "transport=tcp,traddr=127.0.0.1,trsvcid=8009,keep_alive_tmo=30,reconnect_delay=60";
    for nqn in [DISCOVERY_NQN, &a.nqn] {
        guest.connect(&format!("nqn={nqn},{elsewhere}")).unwrap();
    }
    let theirs = guest.controllers();
    guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
    guest.write(STACD_CONF, KERNEL_WAITS);
    let stas = Stas::start(guest, Form::TwoDaemons);
    guest.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
    guest.assert_untouched(&theirs);
    assert_eq!(guest.controllers().len(), 3, "no duplicates");

    // Their discovery controller is listened to; their I/O controller is not ours to take down, unlike b's.
    port.link(&c);
    guest.wait_for_storage(&[&a.nqn, &b.nqn, &c.nqn], SOON);
    port.unlink(&a);
    port.unlink(&b);
    guest.wait_until("b is disconnected", SOON, || guest.controllers().iter().all(|left| left.subsysnqn != b.nqn));
    assert!(guest.controllers().iter().any(|left| left.inode == theirs[1].inode), "a was disconnected");

    guest.write(STAFD_CONF, "");
    stas.finder().reload();
    guest.wait_until("c is disconnected", SOON, || guest.controllers().iter().all(|left| left.subsysnqn != c.nqn));
    let left: Vec<u64> = guest.controllers().into_iter().map(|controller| controller.inode).collect();
    assert_eq!(left, [theirs[0].inode, theirs[1].inode]);
}

/// An I/O controller at a discovery controller's address is not that discovery controller, not even without namespaces.
#[test]
fn an_empty_subsystem_is_no_discovery_controller() {
    scenario(|guest| {
        let empty = guest.target().empty_subsystem(&nqn("empty"));
        let disk = guest.target().subsystem(&nqn("a"));
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        port.link(&empty);
        guest.connect(&format!("nqn={},transport=tcp,traddr=127.0.0.1,trsvcid=8009", empty.nqn)).unwrap();
        let theirs = guest.controllers();
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let _stas = Stas::start(guest, Form::TwoDaemons);
        port.link(&disk);
        guest.wait_until("the disk is there", SOON, || guest.block_devices().len() == 1);
        guest.assert_untouched(&theirs);
        let discovery = guest.controllers().into_iter().filter(|controller| controller.is_discovery());
        assert_eq!((discovery.count(), guest.controllers().len()), (1, 3));
    });
}

/// Somebody connects what we are about to connect, or have lost: it is taken as it is.
#[test]
fn others_come_first() {
    scenario(|guest| {
        let disk = guest.target().subsystem(&nqn("a"));
        guest.write(STACD_CONF, &io_controller("127.0.0.1", 4420, &disk.nqn));
        let stas = Stas::start(guest, Form::OneProcess);
        stas.connector().wait_log("nothing listens", SOON);
        guest.target().tcp_port("127.0.0.1", 4420).link(&disk);
        // Fails only if the program was quicker with its own next try.
        let _ = guest.connect(&format!("nqn={},transport=tcp,traddr=127.0.0.1,trsvcid=4420", disk.nqn));
        stas.connector().wait_log("connected as nvme", SOON);
        guest.wait_for_storage(&[&disk.nqn], SOON);
        assert_eq!(guest.controllers().len(), 1, "no duplicates");
    });
}

/// While nothing of ours runs somebody else makes a connection of ours anew: then it is theirs, though it is to the same address.
#[test]
fn what_is_made_anew_meanwhile_is_theirs() {
    scenario(|guest| {
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        let port = guest.target().tcp_port("127.0.0.1", 4420);
        let wanted = [&a, &b].map(|disk| {
            port.link(disk);
            io_controller("127.0.0.1", 4420, &disk.nqn)
        });
        guest.write(STACD_CONF, &wanted.concat());
        let mut stas = Stas::start(guest, Form::OneProcess);
        stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
        stas.end(Part::Both, Daemon::terminate);
        let ours = guest.controllers().into_iter().find(|controller| controller.subsysnqn == a.nqn).unwrap();
        guest.disconnect(&ours.name);
        guest.connect(&format!("nqn={},transport=tcp,traddr=127.0.0.1,trsvcid=4420", a.nqn)).unwrap();
        guest.write(STACD_CONF, "");
        stas.start_again();
        let left = || guest.controllers().into_iter().map(|controller| controller.subsysnqn).collect::<Vec<_>>();
        guest.wait_until("b is disconnected", SOON, || !left().contains(&b.nqn));
        assert_eq!(left(), [a.nqn.as_str()], "a is theirs");
    });
}

#[test]
fn two_spellings_are_one_controller() {
    scenario(|guest| {
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        guest.target().tcp_port("127.0.0.1", 8009).link(&a);
        guest.target().tcp_port("::1", 4420).link(&b);
        let finds = ["127.0.0.1", "::ffff:127.0.0.1"].map(|traddr| controller(traddr, 8009));
        guest.write(STAFD_CONF, &finds.concat());
        let connects = ["0:0:0:0:0:0:0:1", "::1", "::0001"].map(|traddr| io_controller(traddr, 4420, &b.nqn));
        guest.write(STACD_CONF, &connects.concat());
        // One of them exists, in a spelling of its own.
        guest.connect(&format!("nqn={},transport=tcp,traddr=::ffff:127.0.0.1,trsvcid=8009", a.nqn)).unwrap();
        let theirs = guest.controllers();

        let stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
        // One more change, so that whatever else it would do has been done.
        let c = guest.target().subsystem(&nqn("c"));
        guest.target().tcp_port("127.0.0.1", 8010).link(&c);
        guest.write(STAFD_CONF, &(finds.concat() + &controller("127.0.0.1", 8010)));
        stas.finder().reload();
        guest.wait_for_storage(&[&a.nqn, &b.nqn, &c.nqn], SOON);
        guest.assert_untouched(&theirs);
        assert_eq!(guest.controllers().len(), 5, "two discovery controllers and three I/O controllers");
    });
}
