//! What waits for its time is tried ahead of it when something says that it may work by now.

use super::*;
use crate::core::network::NetworkChange;

const SILENT: &str = "192.0.2.9";

/// An I/O controller at [`SILENT`], whose next probe is a minute away.
fn world_after_a_long_silence(controller: ControllerEntry) -> World {
    let mut world = World::with_roles(CONNECTOR);
    world.settings.io = vec![controller];
    world.configure();
    for _ in 0..10 {
        world.fail_probe(SILENT);
        world.pass_to_deadline();
    }
    world.fail_probe(SILENT);
    assert!(world.wait() > Duration::from_secs(40));
    world
}

impl World {
    fn wait(&self) -> Duration {
        self.machine.poll_deadline().unwrap().saturating_duration_since(self.now)
    }

    fn link_up(&mut self, interface: &str) {
        self.event(Event::NetworkChanged(NetworkChange::Link(interface.into())));
    }

    fn address_up(&mut self, interface: &str, ip: &str) {
        let change = NetworkChange::Address { interface: interface.into(), ip: ip.parse().unwrap() };
        self.event(Event::NetworkChanged(change));
    }
}

#[test]
fn a_link_that_comes_up_ends_the_wait() {
    let mut world = world_after_a_long_silence(entry(SILENT, "nqn.a"));
    assert!(world.machine.waits_for_network());
    world.link_up("eth0");
    world.fail_probe(SILENT);
    assert!(world.wait() <= Duration::from_secs(2), "the waits start over");
    world.pass_to_deadline();
    world.answer_probe(SILENT);
    world.connect_ok("nvme0");
    assert!(!world.machine.waits_for_network());
}

#[test]
fn a_probe_that_was_under_way_counts_for_little() {
    let mut world = world_after_a_long_silence(entry(SILENT, "nqn.a"));
    world.pass_to_deadline();
    world.link_up("eth0");
    assert_eq!(world.probing(), [SILENT]);
    world.fail_probe(SILENT);
    assert!(world.wait() <= Duration::from_secs(2));
}

#[test]
fn another_network_does_not_matter() {
    let pinned = ControllerEntry { host_traddr: "192.0.2.100".into(), ..via("eth0", entry(SILENT, "nqn.a")) };
    let mut world = world_after_a_long_silence(pinned);
    world.link_up("eth1");
    world.address_up("eth0", "192.0.2.101");
    world.address_up("eth1", "192.0.2.100");
    world.assert_nothing_to_do();
    world.address_up("eth0", "192.0.2.100");
    assert_eq!(world.probing(), [SILENT]);
}

#[test]
fn links_that_come_and_go_all_the_time_do_not_defeat_the_waits() {
    let mut world = world_after_a_long_silence(entry(SILENT, "nqn.a"));
    let mut probes = 0;
    for number in 0..600 {
        world.link_up(&format!("veth{number}"));
        if !world.probes.is_empty() {
            probes += 1;
            world.fail_probe(SILENT);
        }
        world.pass_secs(1);
    }
    assert!((100..400).contains(&probes), "{probes} probes in ten minutes");
}

#[test]
fn what_cannot_be_probed_is_connected_at_once() {
    let mut world = World::with_roles(CONNECTOR);
    world.settings.io = vec![ControllerEntry { transport: Transport::Rdma, ..entry(SILENT, "nqn.a") }];
    world.configure();
    for _ in 0..10 {
        world.connect_fails(Errno::EHOSTUNREACH);
        world.pass_to_deadline();
    }
    world.connect_fails(Errno::EHOSTUNREACH);
    world.address_up("eth0", "192.0.2.100");
    assert_eq!(world.connecting(), [SILENT]);
}

#[test]
fn what_held_up_the_host_waits_all_the_same() {
    let mut world = World::with_roles(CONNECTOR);
    world.settings.io = vec![entry(SILENT, "nqn.a"), entry(SILENT, "nqn.b")];
    world.configure();
    world.answer_probe(SILENT);
    world.now += Duration::from_secs(60);
    world.connect_fails(Errno::EIO);
    world.now += Duration::from_secs(60);
    world.connect_fails(Errno::EIO);
    world.link_up("eth0");
    world.assert_nothing_to_do();
}

#[test]
fn an_announcement_ends_the_wait_of_what_was_connected_and_lost() {
    let mut world = World::new();
    world.configure();
    world.announce(&[DC]);
    world.connect(DC, "nvme0");
    world.page(&[]);
    world.pass_secs(60);
    world.removed("nvme0");
    world.announce(&[]);
    for _ in 0..10 {
        world.fail_probe(DC);
        world.pass_to_deadline();
    }
    world.fail_probe(DC);
    world.assert_nothing_to_do();
    world.announce(&[DC]);
    assert_eq!(world.probing(), [DC]);
    world.answer_probe(DC);
    world.connect_fails(Errno::ENOKEY);
    world.pass_secs(1);
    world.connect_fails(Errno::ENOKEY);
    world.announce(&[]);
    world.assert_nothing_to_do();
    world.announce(&[DC]);
    world.let_through(DC);
    assert_eq!(world.connecting(), [DC], "its portal answered, it did not");
}

#[test]
fn an_announcement_helps_a_configured_controller_at_that_address() {
    let mut world = World::new();
    world.settings.discovery = vec![entry(DC, "")];
    world.configure();
    for _ in 0..10 {
        world.fail_probe(DC);
        world.pass_to_deadline();
    }
    world.fail_probe(DC);
    world.announce(&[DC]);
    assert!(world.probes.iter().any(|portal| portal.host_iface.is_empty()), "{:?}", world.probes);
}
