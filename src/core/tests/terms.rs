//! What a log page entry says beyond the address: not reached (NCC), TLS, submission queue flow control.

use super::*;

const NCC: u8 = 0b100;

/// [`PATH`] is listed with this TREQ and these EFLAGS.
fn list(world: &mut World, treq: u8, eflags: u8) {
    if world.page_reads.is_empty() {
        world.aen("nvme0");
    }
    world.page_read(Ok(page_on_terms(&[(PATH, treq, eflags)]).into()));
}

fn world_with(options: ConnectOptions, attempts_on_ncc: Option<u32>) -> World {
    let mut world = World::new();
    world.settings.discovery = vec![entry(DC, "")];
    world.settings.options = options;
    world.settings.attempts_on_ncc = attempts_on_ncc;
    world.configure();
    world.connect(DC, "nvme0");
    world
}

fn plain() -> ConnectOptions {
    ConnectOptions::default()
}

/// Fails as often as it is tried within ten minutes; how often that is.
fn attempts(world: &mut World) -> usize {
    let end = world.now + Duration::from_secs(600);
    let mut attempts = 0;
    while world.now < end {
        if !world.connects.is_empty() {
            attempts += 1;
            world.connect_fails(Errno::EIO);
        } else if world.probing().contains(&"192.0.2.9") {
            world.answer_probe("192.0.2.9");
        } else {
            world.pass_secs(1);
        }
    }
    attempts
}

#[test]
fn who_is_not_reached_by_its_discovery_controller_is_tried_so_often() {
    let mut world = world_with(plain(), Some(3));
    list(&mut world, 0, NCC);
    assert_eq!(attempts(&mut world), 3);
    assert!(world.notes.iter().any(|note| note.contains("not connected after 3 attempts")), "{:?}", world.notes);
    assert_eq!(world.machine.poll_deadline(), None, "it waits for better news");
    let why = world.machine.last_failure(world.machine.links().wanted(ControllerKind::Io).next().unwrap());
    assert!(why.is_some_and(|why| why.starts_with("the discovery controller does not reach it either")));
    list(&mut world, 0, NCC);
    world.assert_nothing_to_do();
    list(&mut world, 0, 0);
    world.connect("192.0.2.9", "nvme1");
}

#[test]
fn without_a_limit_or_the_bit_it_is_tried_for_ever() {
    for (limit, eflags) in [(None, NCC), (Some(2), 0)] {
        let mut world = world_with(plain(), limit);
        list(&mut world, 0, eflags);
        assert!(attempts(&mut world) > 10);
    }
}

#[test]
fn when_the_bit_clears_it_is_tried_at_once() {
    let mut world = world_with(plain(), Some(20));
    list(&mut world, 0, NCC);
    world.answer_probe("192.0.2.9");
    for _ in 0..7 {
        world.connect_fails(Errno::ENOKEY);
        world.pass_to_deadline();
        world.let_through("192.0.2.9");
    }
    world.connect_fails(Errno::ENOKEY);
    world.assert_nothing_to_do();
    list(&mut world, 0, 0);
    world.let_through("192.0.2.9");
    assert_eq!(world.connecting(), ["192.0.2.9"]);
}

#[test]
fn the_bit_set_later_ends_the_tries() {
    let mut world = world_with(plain(), Some(2));
    list(&mut world, 0, 0);
    world.answer_probe("192.0.2.9");
    world.connect_fails(Errno::ENOKEY);
    world.pass_secs(1);
    world.let_through("192.0.2.9");
    world.connect_fails(Errno::ENOKEY);
    list(&mut world, 0, NCC);
    world.pass_secs(600);
    world.assert_nothing_to_do();
}

#[test]
fn a_silent_portal_uses_up_the_tries_too() {
    let mut world = world_with(plain(), Some(2));
    list(&mut world, 0, NCC);
    world.fail_probe("192.0.2.9");
    world.pass_secs(2);
    world.fail_probe("192.0.2.9");
    world.pass_secs(600);
    world.assert_nothing_to_do();
    world.configure();
    world.fail_probe("192.0.2.9");
    world.pass_secs(600);
    world.assert_nothing_to_do();
}

#[test]
fn who_is_barred_is_adopted_and_lost_like_any_other() {
    let mut world = world_with(plain(), Some(2));
    list(&mut world, 0, NCC);
    attempts(&mut world);
    world.up(&serving(&io(PATH), "nvme7"));
    assert_eq!(world.device_of(&io(PATH)), Some("nvme7"));
    world.pass_secs(60);
    world.removed("nvme7");
    assert_eq!(attempts(&mut world), 2, "it was reached meanwhile");
    world.aen("nvme0");
    world.page(&[]);
    assert!(!world.machine.links().is_wanted(&io(PATH)));
}

#[test]
fn another_discovery_controller_that_reaches_it_counts() {
    let mut world = world_with(plain(), Some(2));
    list(&mut world, 0, NCC);
    attempts(&mut world);
    world.settings.discovery.push(entry("192.0.2.2", ""));
    world.settings.attempts_on_ncc = Some(3);
    world.configure();
    attempts(&mut world);
    world.connect("192.0.2.2", "nvme5");
    world.page_read(Ok(page_on_terms(&[(PATH, 0, 0)]).into()));
    world.connect("192.0.2.9", "nvme1");
}

#[test]
fn an_entry_that_demands_tls_gets_it() {
    let tls = |tls| ConnectOptions { tls, ..plain() };
    for (configured, treq, expected) in [
        (None, 1, Some(true)),
        (Some(true), 1, Some(true)),
        (None, 2, None),
        (None, 0, None),
        (Some(true), 0, Some(true)),
    ] {
        let mut world = world_with(tls(configured), None);
        list(&mut world, treq, 0);
        assert_eq!(world.probes[0].tls, expected == Some(true));
        world.answer_probe("192.0.2.9");
        assert_eq!(world.options.tls, expected, "{configured:?} {treq}");
    }
}

#[test]
fn an_entry_that_demands_tls_is_never_connected_without() {
    let mut world = world_with(ConnectOptions { tls: Some(false), ..plain() }, None);
    list(&mut world, 1, 0);
    world.pass_secs(600);
    world.assert_nothing_to_do();
    assert!(world.notes.iter().any(|note| note.contains("demands TLS")), "{:?}", world.notes);
    assert!(world.machine.links().is_wanted(&io(PATH)));
    list(&mut world, 0, 0);
    world.connect("192.0.2.9", "nvme1");
}

/// Until its discovery controller is heard again, a path of an earlier run has the terms that it had.
#[test]
fn a_restart_forgets_no_demand() {
    let mut world = world_with(plain(), None);
    list(&mut world, 1, 0);
    world.connect("192.0.2.9", "nvme1");
    let legacy = world.machine.legacy(world.now);
    let mut next = World::new();
    next.inherit(legacy, vec![serving(&io(PATH), "nvme1")]);
    next.settings.discovery = vec![entry(DC, "")];
    next.configure();
    next.pass_secs(60);
    next.removed("nvme1");
    assert!(next.probes.iter().any(|portal| portal.traddr == "192.0.2.9" && portal.tls));
}

#[test]
fn flow_control_is_left_out_where_entry_and_configuration_allow() {
    for (configured, treq, expected) in
        [(None, 4, Some(true)), (Some(false), 4, Some(false)), (None, 0, None), (Some(true), 0, Some(true))]
    {
        let mut world = world_with(ConnectOptions { disable_sqflow: configured, ..plain() }, None);
        list(&mut world, treq, 0);
        world.answer_probe("192.0.2.9");
        assert_eq!(world.options.disable_sqflow, expected, "{configured:?} {treq}");
    }
}
