//! The target goes away and comes back.

use crate::guest::{Guest, Port, Subsystem};
use crate::sim::{Behaviour, Entry, Kind, Simulator, Times};
use crate::stas::{Form, SOON, STACD_CONF, STAFD_CONF, Stas, controller, nqn};
use crate::vm::{Kernel, Scenario, scenario};
use std::time::Duration;

/// Retries are up to 1, 2, 4 s apart at first; an outage here is over after a few of them.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_short_outage() {
    scenario(|guest| short_outage(guest, Form::TwoDaemons));
}

#[test]
fn a_short_outage_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(|guest| short_outage(guest, Form::TwoDaemons));
}

/// So short that the kernel keeps its controllers and connects them again by itself.
fn short_outage(guest: &Guest, form: Form) {
    let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
    let port = offer(guest, &[&a]);
    guest.write(STAFD_CONF, &format!("reconnect-delay = 1\n{}", controller("127.0.0.1", 8009)));
    guest.write(STACD_CONF, "reconnect-delay = 1\n");
    let mut stas = Stas::start(guest, form);
    guest.wait_for_storage(&[&a.nqn], SOON);
    let devices = || guest.controllers().into_iter().map(|found| (found.name, found.inode)).collect::<Vec<_>>();
    let before = devices();

    port.remove();
    guest.wait_until("all connections are lost", SOON, || guest.controllers().iter().all(|lost| !lost.is_live()));
    let port = offer(guest, &[&a]);
    guest.wait_for_storage(&[&a.nqn], SOON);
    assert_eq!(devices(), before, "the kernel's controllers, not new ones");

    // The discovery controller is heard again: what it says next counts.
    port.link(&b);
    guest.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
    stas.assert_running();
}

#[test]
fn the_kernel_gives_up() {
    scenario(|guest| controllers_removed(guest, Form::TwoDaemons));
}

#[test]
fn the_kernel_gives_up_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(|guest| controllers_removed(guest, Form::TwoDaemons));
}

#[test]
fn the_kernel_gives_up_in_one_process() {
    scenario(|guest| controllers_removed(guest, Form::OneProcess));
}

/// So long that the kernel removes its controllers.
fn controllers_removed(guest: &Guest, form: Form) {
    let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
    let port = offer(guest, &[&a, &b]);
    let options = "reconnect-delay = 1\nctrl-loss-tmo = 2\n";
    guest.write(STAFD_CONF, &format!("{options}{}", controller("127.0.0.1", 8009)));
    guest.write(STACD_CONF, options);
    let mut stas = Stas::start(guest, form);
    guest.wait_for_storage(&[&a.nqn, &b.nqn], SOON);

    port.remove();
    guest.wait_until("the kernel has removed all controllers", SOON, || guest.controllers().is_empty());
    for daemon in [stas.finder(), stas.connector()] {
        daemon.wait_log("127.0.0.1:8009: nothing listens", SOON);
    }

    offer(guest, &[&a, &b]);
    let took = guest.wait_until("the discovery controller is back", PATIENCE, || {
        guest.controllers().iter().any(|controller| controller.is_discovery() && controller.is_live())
    });
    guest.tell(&format!("the discovery controller was back after {took:?}"));
    guest.wait_for_storage(&[&a.nqn, &b.nqn], PATIENCE);
    guest.wait_until("no controller is left over", SOON, || guest.controllers().len() == 3);
    stas.assert_running();
    // One line for each change of state, none for each retry.
    for daemon in [stas.finder(), stas.connector()] {
        assert_eq!(daemon.count_log("127.0.0.1:8009: nothing listens"), 1, "{}", daemon.log());
    }
}

#[test]
fn the_discovery_controller_goes_away() {
    scenario(|guest| discovery_controller_lost(guest, Form::TwoDaemons));
}

#[test]
fn the_discovery_controller_goes_away_in_one_process() {
    scenario(|guest| discovery_controller_lost(guest, Form::OneProcess));
}

/// The storage itself is well: that nobody lists it any more is no reason to touch it.
fn discovery_controller_lost(guest: &Guest, form: Form) {
    let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
    let port = guest.target().tcp_port("127.0.0.1", 4420);
    [&a, &b].iter().for_each(|subsystem| port.link(subsystem));
    let [first, second] = [&a, &b].map(|subsystem| Entry::io(&subsystem.nqn, "127.0.0.1", "4420"));
    let mut dc = Simulator::start("127.0.0.1:8009").unwrap();
    dc.set_entries([first]);
    let options = "reconnect-delay = 1\nctrl-loss-tmo = 2\n";
    guest.write(STAFD_CONF, &format!("{options}{}", controller("127.0.0.1", 8009)));
    let mut stas = Stas::start(guest, form);
    guest.wait_for_storage(&[&a.nqn], SOON);
    let storage = guest.live_io_controllers();

    // First its page cannot be read, then it is lost, then the kernel gives it up, and it cannot be connected again.
    dc.behave(|b| b.disconnect_on(Kind::DiscoveryLogPage, Times::ONCE));
    dc.change_entries(|_| ());
    stas.finder().wait_log("log page could not be read", SOON);
    dc.stop_listening();
    stas.finder().wait_log("the kernel removed", SOON);
    stas.finder().wait_log("127.0.0.1:8009: nothing listens", SOON);
    guest.assert_untouched(&storage);

    // It lists something else when it comes back. That counts.
    dc.behave(|b| *b = Behaviour::default());
    dc.set_entries([second]);
    dc.listen().unwrap();
    guest.wait_for_storage(&[&b.nqn], PATIENCE);
    stas.assert_running();
}

/// Somebody else's command takes an I/O controller and the discovery controller away; both are still wanted.
#[test]
fn somebody_disconnects() {
    scenario(|guest| {
        let disk = guest.target().subsystem(&nqn("a"));
        let port = offer(guest, &[&disk]);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let stas = Stas::start(guest, Form::TwoDaemons);
        let attached = guest.wait_for_storage(&[&disk.nqn], SOON);
        guest.disconnect(&attached[0].name);
        guest.wait_for_storage(&[&disk.nqn], SOON);
        let discovery = guest.controllers().into_iter().find(|found| found.is_discovery()).expect("one");
        guest.disconnect(&discovery.name);
        guest.wait_until("the discovery controller is back", SOON, || guest.controllers().len() == 2);
        let other = guest.target().subsystem(&nqn("b"));
        port.link(&other);
        guest.wait_for_storage(&[&disk.nqn, &other.nqn], SOON);
        assert_eq!(stas.finder().count_log("the kernel removed"), 1);
        assert_eq!(stas.connector().count_log("the kernel removed"), 1);
    });
}

fn offer(guest: &Guest, subsystems: &[&Subsystem]) -> Port {
    let port = guest.target().tcp_port("127.0.0.1", 8009);
    subsystems.iter().for_each(|subsystem| port.link(subsystem));
    port
}
