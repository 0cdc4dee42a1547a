//! Storage that the configuration calls by a host name.

use std::net::UdpSocket;

use crate::guest::{Controller, Guest};
use crate::stas::{Form, SOON, STACD_CONF, STAFD_CONF, Stas, controller, io_controller, nqn};
use crate::vm::scenario;

fn hosts(guest: &Guest, lines: &str) {
    guest.write("/etc/hosts", &format!("127.0.0.1 localhost\n{lines}"));
}

/// The live discovery controllers' devices and addresses.
fn discovery(guest: &Guest) -> Vec<(String, String)> {
    let live = guest.controllers().into_iter().filter(|controller| controller.is_discovery() && controller.is_live());
    live.map(|it| (it.name.clone(), it.address_field("traddr").unwrap_or_default().to_owned())).collect()
}

#[test]
fn the_second_address_connects_where_the_first_is_dead() {
    scenario(|guest| dead_then_alive(guest, Form::OneProcess));
}

#[test]
fn the_second_address_connects_where_the_first_is_dead_two_daemons() {
    scenario(|guest| dead_then_alive(guest, Form::TwoDaemons));
}

fn dead_then_alive(guest: &Guest, form: Form) {
    guest.silent_network("10.99.0.1/24");
    let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
    for address in ["127.0.0.1", "127.0.0.2"] {
        guest.target().tcp_port(address, 8009).link(&a);
        guest.target().tcp_port(address, 4420).link(&b);
    }
    hosts(guest, "10.99.0.7 array.example.org\n127.0.0.1 array.example.org\n");
    guest.write(STAFD_CONF, &controller("array.example.org", 8009));
    guest.write(STACD_CONF, &io_controller("Array.example.org", 4420, &b.nqn));
    let mut stas = Stas::start(guest, form);
    let table = stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
    assert!(!table.contains("array.example.org"), "{table}");
    assert_eq!(stas.logs().matches("10.99.0.7:8009: nothing answers at that address").count(), 1, "{}", stas.logs());
    assert!(guest.run("stafctl", &["ls"]).ok().contains("127.0.0.1"));

    // What is connected stays although the name means another address by now…
    let before = discovery(guest);
    assert_eq!(before[0].1, "127.0.0.1");
    hosts(guest, "127.0.0.2 array.example.org\n");
    stas.finder().reload();
    stas.connector().reload();
    stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
    assert_eq!(discovery(guest), before);
    // …until it is lost.
    let io = guest.live_io_controllers().into_iter().find(|controller| controller.subsysnqn == b.nqn).unwrap();
    guest.disconnect(&io.name);
    guest.disconnect(&before[0].0);
    guest.wait_until("all is connected at the new address, and nothing else", SOON, || {
        let controllers = guest.controllers();
        let is_new = |controller: &Controller| controller.address_field("traddr") == Some("127.0.0.2");
        controllers.len() == 3 && controllers.iter().all(|controller| controller.is_live() && is_new(controller))
    });
    stas.assert_running();
}

#[test]
fn a_name_that_nobody_knows_becomes_known() {
    scenario(|guest| {
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        let port = guest.target().tcp_port("127.0.0.1", 4420);
        port.link(&a);
        port.link(&b);
        guest.write("/etc/resolv.conf", "nameserver 127.0.0.1\nsearch example.org\noptions timeout:1\n");
        guest.write(STAFD_CONF, "");
        guest.write(STACD_CONF, &(io_controller("by-hosts", 4420, &a.nqn) + &io_controller("by-dns", 4420, &b.nqn)));
        guest.run("stasadm", &["check"]).ok();
        let stas = guest.spawn("stas", &["run"]);
        stas.wait_log("by-hosts: not resolved: the name server 127.0.0.1: Connection refused", SOON);
        stas.wait_log("by-dns: not resolved: ", SOON);
        assert!(guest.run("stacctl", &["ls"]).ok().contains("by-dns"));

        hosts(guest, "127.0.0.1 by-hosts\n");
        stas.reload();
        guest.wait_for_storage(&[&a.nqn], SOON);

        // Found by itself, when its time has come.
        let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
        std::thread::spawn(move || serve(&socket));
        guest.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
        assert_eq!(stas.count_log("by-dns: not resolved: "), 1);
    });
}

/// A name server that knows one address.
fn serve(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        let mut message = buffer[..length].to_vec();
        let is_known = message[12..].starts_with(b"\x06by-dns\x07example\x03org\0");
        let wants_ipv4 = message[length - 3] == 1;
        message[2..4].copy_from_slice(&[0x81, if is_known { 0x80 } else { 0x83 }]);
        if is_known && wants_ipv4 {
            message[7] = 1;
            message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        socket.send_to(&message, peer).unwrap();
    }
}
