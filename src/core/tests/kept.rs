//! What is not wanted any more but in use on this host stays, and goes when that changes.

use super::*;

fn in_use() -> Failure {
    Failure::InUse("/dev/nvme1n1 is mounted on /data".into())
}

/// [`PATH`] is nvme1, withdrawn, and in use.
fn world_with_kept() -> World {
    let mut world = World::with_discovery();
    world.page(&[PATH]);
    world.connect("192.0.2.9", "nvme1");
    world.pass_secs(60);
    world.aen("nvme0");
    world.page(&[]);
    world.disconnect_fails(in_use());
    assert_eq!(world.machine.links().kept_because(&io(PATH)), Some("/dev/nvme1n1 is mounted on /data"));
    assert!(world.machine.links().keeps_what_is_used());
    world
}

#[test]
fn it_goes_when_it_is_not_used_any_more() {
    let mut world = world_with_kept();
    assert!(world.notes.last().unwrap().contains("kept: /dev/nvme1n1 is mounted on /data"), "{:?}", world.notes);
    let notes = world.notes.len();
    world.pass_secs(500);
    world.assert_nothing_to_do();
    for _ in 0..3 {
        world.event(Event::UsesChanged);
        world.event(Event::UsesChanged);
        world.assert_nothing_to_do();
        world.pass_secs(1);
        world.disconnect_fails(in_use());
    }
    assert_eq!(world.notes.len(), notes, "the same is said once");
    world.event(Event::UsesChanged);
    world.pass_secs(1);
    world.disconnect_ok();
    assert_eq!(world.machine.links().kept(ControllerKind::Io).count(), 0);
    assert_eq!(world.machine.poll_deadline(), None);
}

#[test]
fn not_every_change_is_told_so_it_is_looked_at_now_and_then() {
    let mut world = world_with_kept();
    world.pass_secs(600);
    assert_eq!(world.disconnecting(), ["nvme1"]);
}

#[test]
fn it_goes_when_another_path_to_its_subsystem_is_there() {
    let mut world = world_with_kept();
    world.up(&serving(&io("nqn.other@192.0.2.10"), "nvme2"));
    world.pass_secs(1);
    world.assert_nothing_to_do();
    world.up(&serving(&io("nqn.a@192.0.2.10"), "nvme3"));
    world.pass_secs(1);
    assert_eq!(world.disconnecting(), ["nvme1"]);
}

#[test]
fn listed_again_it_is_wanted_as_before() {
    let mut world = world_with_kept();
    world.aen("nvme0");
    world.page(&[PATH]);
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
    assert!(world.machine.links().is_wanted(&io(PATH)) && !world.machine.links().keeps_what_is_used());
    world.event(Event::UsesChanged);
    world.pass_secs(600);
    world.assert_nothing_to_do();
}

#[test]
fn it_is_still_ours_after_a_restart() {
    let world = world_with_kept();
    let legacy = world.machine.legacy(world.now);
    let mut next = World::new();
    next.inherit(legacy, vec![serving(&dc(DC), "nvme0"), serving(&io(PATH), "nvme1")]);
    next.settings.discovery = vec![entry(DC, "")];
    next.configure();
    assert_eq!(next.disconnecting(), ["nvme1"]);
    next.disconnect_fails(in_use());
    assert!(next.machine.links().keeps_what_is_used());
}

#[test]
fn a_reload_asks_again() {
    let mut world = world_with_kept();
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme1"]);
}

#[test]
fn it_does_not_keep_the_daemon_from_stopping() {
    let mut world = world_with_kept();
    world.event(Event::Stop);
    assert!(world.machine.may_stop());
}
