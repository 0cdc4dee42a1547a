//! The same story on every transport: storage comes and goes with its discovery controller's word, and a restart finds its own.

use crate::guest::{Daemon, Guest, Port};
use crate::stas::{Form, KERNEL_WAITS, Part, SOON, STACD_CONF, STAFD_CONF, Stas, controller, nqn};
use crate::vm::{Kernel, Scenario, scenario};

#[test]
fn tcp_over_ipv6() {
    scenario(|guest| comes_and_goes(guest, &guest.target().tcp_port("::1", 8009), &controller("0:0::1", 8009)));
}

/// Nothing tells two controllers at a loop port apart but the NQN, and the kernel would connect each as often as it is told to.
#[test]
fn loop_() {
    scenario(|guest| {
        let conf = "[[controller]]\ntransport = \"loop\"\n";
        comes_and_goes(guest, &guest.target().loop_port(), &[conf, conf].concat());
    });
}

#[test]
fn fibre_channel() {
    scenario(|guest| {
        let fabric = guest.fibre_channel();
        let (traddr, host_traddr) = (&fabric.target, &fabric.host);
        let conf = format!(
            "[[controller]]\ntransport = \"fc\"\ntraddr = \"{traddr}\"\nhost-traddr = \"{}\"\n",
            host_traddr.to_uppercase().replace("0X", "0x").replace("NN", "nn").replace("PN", "pn")
        );
        comes_and_goes(guest, &fabric.port, &conf);
    });
}

#[test]
fn rdma() {
    Scenario::new().kernel(Kernel::V6_1).run(|guest| {
        guest.soft_rdma("rxe0", "10.97.0.1/24");
        let port = guest.target().ip_port("rdma", "10.97.0.1", 4420);
        comes_and_goes(guest, &port, "[[controller]]\ntransport = \"rdma\"\ntraddr = \"10.97.0.1\"\n");
    });
}

/// `conf` names the discovery controller of `port`, on which nothing is yet.
fn comes_and_goes(guest: &Guest, port: &Port, conf: &str) {
    let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
    port.link(&a);
    guest.write(STAFD_CONF, conf);
    guest.write(STACD_CONF, KERNEL_WAITS);
    let mut stas = Stas::start(guest, Form::TwoDaemons);
    stas.wait_for_storage(&[&a.nqn], SOON);

    port.link(&b);
    stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
    let before = guest.controllers();
    assert_eq!(before.len(), 3, "one discovery controller, two disks: {before:?}");

    stas.end(Part::Both, Daemon::kill);
    stas.start_again();
    stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
    stas.finder().wait_log("already connected as ", SOON);
    stas.finder().wait_log("lists 3 entries", SOON);
    guest.assert_untouched(&before);

    port.unlink(&a);
    stas.wait_for_storage(&[&b.nqn], SOON);
    port.link(&a);
    stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
    assert_eq!(guest.controllers().len(), 3, "{:?}", guest.controllers());
}
