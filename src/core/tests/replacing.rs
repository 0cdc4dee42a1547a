//! An I/O controller is configured in another way: the old path goes when the new one is there, not before.

use super::*;

fn world_of(io: &[ControllerEntry]) -> World {
    let mut world = World::new();
    world.settings.io = io.to_vec();
    world.configure();
    world
}

/// nqn.a is connected at 192.0.2.9 as nvme1, then configured at 192.0.2.10 instead.
fn world_with_successor() -> World {
    let mut world = world_of(&[entry("192.0.2.9", "nqn.a")]);
    world.connect("192.0.2.9", "nvme1");
    world.pass_secs(60);
    world.settings.io = vec![entry("192.0.2.10", "nqn.a")];
    world.configure();
    assert_eq!(world.disconnecting(), [""; 0]);
    world
}

fn kept(world: &World) -> Vec<&str> {
    let links = world.machine.links();
    links.kept(ControllerKind::Io).map(|id| links.device_of(id).unwrap().name.as_str()).collect()
}

#[test]
fn another_address() {
    let mut world = world_with_successor();
    assert_eq!(kept(&world), ["nvme1"]);
    assert!(world.notes.last().unwrap().contains("stays until what replaces it is connected"), "{:?}", world.notes);
    for _ in 0..5 {
        world.fail_probe("192.0.2.10");
        world.pass_secs(60);
    }
    assert_eq!(world.disconnecting(), [""; 0]);
    world.connect("192.0.2.10", "nvme2");
    assert_eq!(world.disconnecting(), ["nvme1"]);
    world.disconnect_ok();
    world.assert_nothing_to_do();
    assert_eq!((kept(&world).len(), world.machine.links().wanted(ControllerKind::Io).count()), (0, 1));
}

#[test]
fn another_pinning() {
    let mut world = world_of(&[via("eth0", entry("192.0.2.9", "nqn.a"))]);
    world.connect("192.0.2.9", "nvme1");
    world.settings.io = vec![via("eth1", entry("192.0.2.9", "nqn.a"))];
    world.configure();
    assert_eq!(world.disconnecting(), [""; 0]);
    world.pass_secs(1);
    world.connect("192.0.2.9", "nvme2");
    assert_eq!(world.disconnecting(), ["nvme1"]);
}

#[test]
fn what_somebody_else_connected_already_replaces_at_once() {
    let mut world = world_of(&[entry("192.0.2.9", "nqn.a")]);
    world.connect("192.0.2.9", "nvme1");
    world.up(&serving(&io("nqn.a@192.0.2.10"), "nvme2"));
    world.settings.io = vec![entry("192.0.2.10", "nqn.a")];
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme1"]);
}

#[test]
fn what_is_listed_and_live_already_replaces_at_once() {
    let mut world = World::with_discovery();
    world.page(&["nqn.a@192.0.2.10"]);
    world.connect("192.0.2.10", "nvme2");
    world.settings.io = vec![entry("192.0.2.9", "nqn.a")];
    world.configure();
    world.connect("192.0.2.9", "nvme1");
    world.settings.io = vec![entry("192.0.2.10", "nqn.a")];
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme1"]);
}

#[test]
fn another_subsystem_is_no_replacement() {
    let mut world = world_of(&[entry("192.0.2.9", "nqn.a")]);
    world.connect("192.0.2.9", "nvme1");
    world.settings.io = vec![entry("192.0.2.9", "nqn.b")];
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme1"]);
}

#[test]
fn the_administrator_thinks_better_of_it() {
    let mut world = world_with_successor();
    world.settings.io = vec![entry("192.0.2.9", "nqn.a")];
    world.configure();
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.9")), Some("nvme1"));
    assert_eq!((kept(&world).len(), world.disconnecting().len()), (0, 0));

    let mut world = world_with_successor();
    world.settings.io.clear();
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme1"], "neither is wanted");

    let mut world = world_with_successor();
    world.settings.io = vec![entry("192.0.2.11", "nqn.a")];
    world.configure();
    assert_eq!(world.disconnecting(), [""; 0], "the first successor was a mistake");
    world.fail_probe("192.0.2.10");
    world.connect("192.0.2.11", "nvme3");
    assert_eq!(world.disconnecting(), ["nvme1"]);

    let mut world = world_with_successor();
    world.settings.scope = DisconnectScope::NoDisconnect;
    world.configure();
    world.connect("192.0.2.10", "nvme2");
    assert_eq!((kept(&world).len(), world.disconnecting().len()), (0, 0));
}

#[test]
fn what_waits_to_be_replaced_and_is_lost_is_not_connected_again() {
    let mut world = world_with_successor();
    world.removed("nvme1");
    assert_eq!(world.probing(), ["192.0.2.10"]);
    world.connect("192.0.2.10", "nvme2");
    world.pass_secs(600);
    world.assert_nothing_to_do();
}

#[test]
fn a_restart_in_between_keeps_the_old_path_too() {
    let old = world_with_successor();
    let legacy = old.machine.legacy(old.now);
    let ours: Vec<_> = legacy.iter().filter(|legacy| legacy.ours).map(|legacy| legacy.id.clone()).collect();
    assert_eq!(ours, [io("nqn.a@192.0.2.9")]);
    let mut world = World::new();
    world.inherit(legacy, vec![serving(&io("nqn.a@192.0.2.9"), "nvme1")]);
    world.settings.io = vec![entry("192.0.2.10", "nqn.a")];
    world.configure();
    assert_eq!(world.disconnecting(), [""; 0]);
    world.connect("192.0.2.10", "nvme2");
    assert_eq!(world.disconnecting(), ["nvme1"]);
}

#[test]
fn every_path_of_the_old_set_waits_for_all_of_the_new_one() {
    let mut world = world_of(&[entry("192.0.2.1", "nqn.a"), entry("192.0.2.2", "nqn.a"), entry("192.0.2.3", "nqn.a")]);
    for number in 1..4 {
        world.let_through(&format!("192.0.2.{number}"));
        world.connect_ok(&format!("nvme{number}"));
    }
    world.settings.io = vec![entry("192.0.2.3", "nqn.a"), entry("192.0.2.4", "nqn.a"), entry("192.0.2.5", "nqn.a")];
    world.configure();
    world.let_through("192.0.2.4");
    world.connect_ok("nvme4");
    assert_eq!(world.disconnecting(), [""; 0]);
    world.let_through("192.0.2.5");
    world.connect_ok("nvme5");
    assert_eq!(world.disconnecting(), ["nvme1", "nvme2"]);
}

/// Two wishes that one connection serves: it is let go once, and only when both are gone.
#[test]
fn a_connection_that_serves_two_wishes_waits_once() {
    let mut world = world_of(&[entry("192.0.2.9", "nqn.a"), via("eth0", entry("192.0.2.9", "nqn.a"))]);
    world.connect("192.0.2.9", "nvme1");
    world.settings.io = vec![entry("192.0.2.10", "nqn.a")];
    world.configure();
    assert_eq!((kept(&world), world.disconnecting().len()), (vec!["nvme1"], 0));
    world.connect("192.0.2.10", "nvme2");
    assert_eq!(world.disconnecting(), ["nvme1"]);
}
