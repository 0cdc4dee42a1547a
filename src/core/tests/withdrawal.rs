//! What is taken down, when, and above all when not.

use super::*;
use crate::core::Report;
use crate::core::finder::Origin;

fn list(world: &mut World, device: &str, entries: &[&str]) {
    world.aen(device);
    world.page(entries);
}

fn report(source: &str, testimony: Testimony) -> Report {
    Report {
        source: dc(source).tid,
        testimony,
        referrals: BTreeSet::new(),
        origin: Origin::Configured,
        connected: true,
    }
}

/// What an earlier run left: [`PATH`], listed by the discovery controller, both connected and ours.
fn legacy() -> (Vec<Legacy>, Vec<Device>) {
    let path = Legacy { ours: true, sources: vec![dc(DC).tid], ..Legacy::new(io(PATH)) };
    let legacy = vec![path, Legacy { ours: true, ..Legacy::new(dc(DC)) }];
    (legacy, vec![serving(&dc(DC), "nvme0"), serving(&io(PATH), "nvme1")])
}

#[test]
fn entries_come_and_go() {
    let mut world = World::with_path();
    list(&mut world, "nvme0", &[PATH, "nqn.b@192.0.2.10", PATH]);
    world.connect("192.0.2.10", "nvme2");
    list(&mut world, "nvme0", &["nqn.b@192.0.2.10"]);
    assert_eq!(world.disconnecting(), ["nvme1"]);
    world.disconnect_ok();
    assert_eq!(world.device_of(&io("nqn.b@192.0.2.10")), Some("nvme2"));
    world.assert_nothing_to_do();
}

#[test]
fn what_another_still_lists_stays() {
    let mut world = World::with_discovery();
    world.settings.discovery.push(entry("192.0.2.2", ""));
    world.configure();
    world.page(&[PATH]);
    world.connect("192.0.2.2", "nvme5");
    world.page(&[PATH]);
    world.connect("192.0.2.9", "nvme1");
    list(&mut world, "nvme0", &[]);
    assert_eq!(world.disconnecting(), [""; 0]);
    world.pass_secs(60);
    world.removed("nvme5");
    world.fail_probe("192.0.2.2");
    assert_eq!(world.disconnecting(), [""; 0], "silence is no evidence");
    world.settings.discovery.pop();
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme1"], "but the administrator's word is");
}

#[test]
fn a_connect_in_flight_is_disconnected_after_it_completes_never_before() {
    let mut world = World::with_discovery();
    world.page(&[PATH]);
    world.answer_probe("192.0.2.9");
    list(&mut world, "nvme0", &[]);
    assert_eq!(world.disconnecting(), [""; 0]);
    world.connect_ok("nvme1");
    assert_eq!(world.disconnecting(), ["nvme1"]);
    world.disconnect_ok();
    assert!(!world.machine.links().is_wanted(&io(PATH)));
}

#[test]
fn a_connect_in_flight_that_fails_when_unwanted_is_forgotten() {
    let mut world = World::with_discovery();
    world.page(&[PATH]);
    world.answer_probe("192.0.2.9");
    list(&mut world, "nvme0", &[]);
    world.connect_fails(Errno::ETIMEDOUT);
    world.pass_secs(600);
    world.assert_nothing_to_do();
}

#[test]
fn listed_again_while_its_connect_is_in_flight() {
    let mut world = World::with_discovery();
    world.page(&[PATH]);
    world.answer_probe("192.0.2.9");
    list(&mut world, "nvme0", &[]);
    list(&mut world, "nvme0", &[PATH]);
    world.connect_ok("nvme1");
    world.assert_nothing_to_do();
}

#[test]
fn listed_again_while_disconnecting() {
    let mut world = World::with_path();
    list(&mut world, "nvme0", &[]);
    list(&mut world, "nvme0", &[PATH]);
    assert_eq!(world.disconnecting(), ["nvme1"]);
    assert_eq!(world.probing(), [""; 0]);
    world.disconnect_ok();
    world.connect("192.0.2.9", "nvme1");
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
}

/// The helper's reply may overtake the kernel's event.
#[test]
fn a_disconnect_answered_before_the_kernel_says_removed() {
    let mut world = World::with_path();
    list(&mut world, "nvme0", &[]);
    list(&mut world, "nvme0", &[PATH]);
    let (ticket, _) = world.disconnects.remove(0);
    world.event(Event::Disconnected { ticket, outcome: Ok(()) });
    assert_eq!(world.device_of(&io(PATH)), None, "what is gone is not adopted");
    world.removed("nvme1");
    world.connect("192.0.2.9", "nvme1");
}

#[test]
fn a_disconnect_answered_after_its_name_was_recycled() {
    let mut world = World::with_path();
    list(&mut world, "nvme0", &[]);
    let (ticket, _) = world.disconnects.remove(0);
    world.removed("nvme1");
    world.up(&serving(&io("nqn.other@192.0.2.77"), "nvme1"));
    world.event(Event::Disconnected { ticket, outcome: Err(Failure::NotThatController) });
    assert!(world.machine.links().device("nvme1").is_some());
    assert!(!world.notes.iter().any(|note| note.contains("could not be disconnected")), "{:?}", world.notes);
}

#[test]
fn what_cannot_be_disconnected_stays_ours() {
    let mut world = World::with_path();
    list(&mut world, "nvme0", &[]);
    let (ticket, _) = world.disconnects.remove(0);
    world.event(Event::Disconnected { ticket, outcome: Err(Failure::from(Errno::EBUSY)) });
    assert!(world.notes.last().unwrap().contains("could not be disconnected"));
    list(&mut world, "nvme0", &[PATH]);
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
    list(&mut world, "nvme0", &[]);
    assert_eq!(world.disconnecting(), ["nvme1"]);
}

fn disconnect_fails(world: &mut World) {
    world.disconnect_fails(Failure::from(Errno::EBUSY));
}

#[test]
fn a_failed_disconnect_is_tried_again_until_it_works() {
    let mut world = World::with_path();
    list(&mut world, "nvme0", &[]);
    for _ in 0..10 {
        disconnect_fails(&mut world);
        assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
        assert!(world.machine.legacy(world.now).iter().any(|legacy| legacy.id == io(PATH) && legacy.ours));
        assert!(world.machine.may_stop(), "a stop does not wait for the next try");
        assert_eq!(world.disconnecting(), [""; 0]);
        world.pass_to_deadline();
        assert_eq!(world.disconnecting(), ["nvme1"]);
    }
    assert_eq!(world.notes.iter().filter(|note| note.contains("could not be disconnected")).count(), 1);
    assert_eq!(world.notes.iter().filter(|note| note.contains("no longer wanted")).count(), 1);
    list(&mut world, "nvme0", &[]);
    world.disconnect_ok();
    assert_eq!(world.machine.legacy(world.now).len(), 1);
    assert_eq!(world.machine.poll_deadline(), None);
}

#[test]
fn a_failed_disconnect_is_not_tried_again_on_whoever_has_the_name_by_then() {
    let mut world = World::with_path();
    list(&mut world, "nvme0", &[]);
    disconnect_fails(&mut world);
    world.removed("nvme1");
    world.up(&serving(&io(PATH), "nvme1"));
    world.pass_secs(600);
    world.assert_nothing_to_do();
}

#[test]
fn what_could_not_be_disconnected_may_serve_another_wish() {
    let mut world = World::with_path();
    list(&mut world, "nvme0", &[]);
    disconnect_fails(&mut world);
    world.settings.io = vec![via("eth0", entry("192.0.2.9", "nqn.a"))];
    world.configure();
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.9%eth0")), Some("nvme1"));
    world.pass_secs(600);
    world.assert_nothing_to_do();
    world.settings.io.clear();
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme1"]);
}

#[test]
fn what_is_being_disconnected_is_not_adopted() {
    let mut world = World::with_path();
    list(&mut world, "nvme0", &[]);
    world.settings.io = vec![via("eth0", entry("192.0.2.9", "nqn.a"))];
    world.configure();
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.9%eth0")), None);
    world.answer_probe("192.0.2.9");
    // A disconnect may take half a minute: nobody waits for it.
    world.connect_ok("nvme2");
    world.disconnect_ok();
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.9%eth0")), Some("nvme2"));
}

#[test]
fn a_connection_that_serves_another_wish_stays() {
    let mut world = World::new();
    let plain = entry("192.0.2.9", "nqn.a");
    world.settings.io = vec![plain.clone(), via("eth0", plain.clone())];
    world.configure();
    world.answer_probe("192.0.2.9");
    world.connect_ok("nvme1");
    world.settings.io = vec![plain.clone()];
    world.configure();
    assert_eq!(world.disconnecting(), [""; 0]);
    // And changed from one to the other in one reload, in either direction.
    world.settings.io = vec![via("eth0", plain.clone())];
    world.configure();
    world.settings.io = vec![plain];
    world.configure();
    assert_eq!(world.disconnecting(), [""; 0]);
    world.settings.io.clear();
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme1"], "it still is ours");
}

#[test]
fn a_discovery_controller_under_its_other_name_stays_connected() {
    let mut world = World::new();
    world.settings.discovery = vec![entry(DC, "nqn.dc1")];
    world.configure();
    world.connect(DC, "nvme0");
    world.settings.discovery = vec![entry(DC, "")];
    world.configure();
    assert_eq!(world.disconnecting(), [""; 0]);
    assert_eq!(world.device_of(&dc(DC)), Some("nvme0"));
}

#[test]
fn no_disconnect_means_never() {
    let mut world = World::with_path();
    world.settings.scope = DisconnectScope::NoDisconnect;
    world.configure();
    list(&mut world, "nvme0", &[]);
    assert_eq!(world.disconnecting(), [""; 0]);
    // Listed and withdrawn again after the administrator thought better of it: it is still known as ours.
    world.settings.scope = DisconnectScope::OnlyStasConnections;
    world.configure();
    list(&mut world, "nvme0", &[PATH]);
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
    list(&mut world, "nvme0", &[]);
    assert_eq!(world.disconnecting(), ["nvme1"]);
}

#[test]
fn no_disconnect_ends_tries_too() {
    let mut world = World::with_path();
    list(&mut world, "nvme0", &[]);
    disconnect_fails(&mut world);
    world.settings.scope = DisconnectScope::NoDisconnect;
    world.configure();
    world.pass_secs(600);
    world.assert_nothing_to_do();
    assert_eq!(world.machine.links().kept(ControllerKind::Io).count(), 0);
}

/// The administrator thinks better of it while the kernel is still at the connect, or the disconnect.
#[test]
fn no_disconnect_counts_for_what_is_under_way() {
    let mut world = World::with_discovery();
    world.page(&[PATH]);
    world.answer_probe("192.0.2.9");
    list(&mut world, "nvme0", &[]);
    world.settings.scope = DisconnectScope::NoDisconnect;
    world.configure();
    world.connect_ok("nvme1");
    world.assert_nothing_to_do();

    let mut world = World::with_path();
    list(&mut world, "nvme0", &[]);
    world.settings.scope = DisconnectScope::NoDisconnect;
    world.configure();
    disconnect_fails(&mut world);
    world.pass_secs(600);
    world.assert_nothing_to_do();
}

#[test]
fn what_others_connected_is_used_but_never_taken_down() {
    let mut world = World::with_discovery();
    world.up(&serving(&io(PATH), "nvme1"));
    world.page(&[PATH]);
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
    list(&mut world, "nvme0", &[]);
    world.assert_nothing_to_do();
    assert_eq!(world.machine.legacy(world.now), [Legacy { ours: true, ..Legacy::new(dc(DC)) }]);
}

#[test]
fn after_a_restart_a_path_waits_for_its_own_source() {
    let (legacy, devices) = legacy();
    let mut world = World::new();
    world.inherit(legacy.clone(), devices);
    world.settings.discovery = vec![entry(DC, ""), entry("192.0.2.2", "")];
    world.configure();
    assert_eq!(world.machine.legacy(world.now), legacy, "restarted again, it still knows");
    world.answer_probe("192.0.2.2");
    world.connect_ok("nvme5");
    let (ticket, _) = world.page_reads.pop().unwrap();
    world.event(Event::PageRead { ticket, outcome: Ok(page(&[]).into()) });
    assert_eq!(world.disconnecting(), [""; 0], "the other one does not know");
    world.page_read(Err("no".into()));
    assert_eq!(world.disconnecting(), [""; 0], "a page that cannot be read says nothing");
    world.pass_secs(1);
    world.page(&[]);
    assert_eq!(world.disconnecting(), ["nvme1"]);
    world.disconnect_ok();
    assert_eq!(world.machine.legacy(world.now).len(), 2, "the two discovery controllers");
    assert!(world.saves > 0);
}

#[test]
fn after_a_restart_the_administrators_change_counts() {
    let (legacy, devices) = legacy();
    let mut world = World::new();
    world.inherit(legacy.clone(), devices.clone());
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme0", "nvme1"]);

    let mut world = World::new();
    world.inherit(legacy.clone(), devices.clone());
    world.settings.discovery = vec![entry(DC, "")];
    world.settings.exclusions = vec![Exclusion { subsysnqn: "nqn.a".into(), ..Exclusion::default() }];
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme1"]);

    let mut world = World::new();
    world.inherit(legacy, devices);
    world.settings.scope = DisconnectScope::NoDisconnect;
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme0"]);
    assert_eq!(world.machine.legacy(world.now).iter().filter(|legacy| legacy.id.kind == ControllerKind::Io).count(), 0);
}

/// What was ours and is gone when we start is not ours when somebody else connects it later.
#[test]
fn a_legacy_that_is_gone_confers_nothing() {
    let (legacy, _) = legacy();
    let mut world = World::new();
    world.inherit(legacy, vec![]);
    world.settings.discovery = vec![entry(DC, "")];
    world.configure();
    world.up(&serving(&dc(DC), "nvme0"));
    world.up(&serving(&io(PATH), "nvme1"));
    world.page(&[]);
    assert_eq!(world.disconnecting(), [""; 0]);
    world.settings.discovery.clear();
    world.configure();
    assert_eq!(world.disconnecting(), [""; 0]);
}

#[test]
fn reload_adds_removes_and_excludes() {
    let mut world = World::new();
    world.settings.io = vec![entry("192.0.2.9", "nqn.a"), entry("192.0.2.10", "nqn.b")];
    world.configure();
    world.connect("192.0.2.9", "nvme1");
    world.connect("192.0.2.10", "nvme2");
    world.configure();
    world.assert_nothing_to_do();
    world.settings.io = vec![entry("192.0.2.10", "nqn.b"), entry("192.0.2.11", "nqn.c")];
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme1"]);
    world.disconnect_ok();
    world.connect("192.0.2.11", "nvme3");
    world.settings.exclusions = vec![Exclusion { traddr: "192.0.2.10".into(), ..Exclusion::default() }];
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme2"]);
    world.settings.exclusions.clear();
    world.configure();
    world.disconnect_ok();
    world.connect("192.0.2.10", "nvme2");
}

#[test]
fn an_exclusion_applies_to_what_is_listed() {
    let mut world = World::with_path();
    let exclusion = Exclusion { transport: Some(Transport::Tcp), subsysnqn: "nqn.a".into(), ..Exclusion::default() };
    world.settings.exclusions = vec![exclusion];
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme1"]);
    world.disconnect_ok();
    list(&mut world, "nvme0", &[PATH, "nqn.b@192.0.2.9"]);
    world.connect("192.0.2.9", "nvme2");
    assert!(!world.machine.links().is_wanted(&io(PATH)));
    world.settings.exclusions.clear();
    world.configure();
    assert_eq!(world.connects.len(), 1);
}

#[test]
fn a_finder_in_another_process() {
    let report = |world: &mut World, reports: Vec<(&str, Testimony)>| {
        world.event(Event::FinderReports(reports.into_iter().map(|(source, said)| report(source, said)).collect()));
    };
    let mut world = World::with_roles(CONNECTOR);
    world.configure();
    report(&mut world, vec![(DC, fresh(&[PATH])), ("192.0.2.2", stale(&["nqn.b@192.0.2.10"]))]);
    world.connect("192.0.2.9", "nvme1");
    world.connect("192.0.2.10", "nvme2");
    report(&mut world, vec![(DC, stale(&[])), ("192.0.2.2", stale(&[]))]);
    world.assert_nothing_to_do();
    report(&mut world, vec![(DC, fresh(&[PATH])), ("192.0.2.2", fresh(&[]))]);
    assert_eq!(world.disconnecting(), ["nvme2"]);
    world.disconnect_ok();
    report(&mut world, vec![("192.0.2.2", fresh(&[]))]);
    assert_eq!(world.disconnecting(), ["nvme1"], "dropped by the finder's administrator");
    world.disconnect_ok();
    world.assert_nothing_to_do();
}

#[test]
fn a_connector_alone_keeps_its_legacy_until_the_finder_speaks() {
    let (mut legacy, mut devices) = legacy();
    let mut world = World::with_roles(CONNECTOR);
    world.inherit(vec![legacy.remove(0)], vec![devices.remove(1)]);
    world.configure();
    world.pass_secs(600);
    world.assert_nothing_to_do();
    world.event(Event::FinderReports(vec![report(DC, fresh(&[]))]));
    assert_eq!(world.disconnecting(), ["nvme1"]);
}

#[test]
fn on_exit_connections_stay() {
    let mut world = World::with_path();
    world.event(Event::Stop);
    world.assert_nothing_to_do();
    assert!(world.machine.may_stop());
}

#[test]
fn on_exit_discovery_connections_go_if_configured_so() {
    let mut world = World::with_path();
    world.settings.discovery.push(entry("192.0.2.2", ""));
    world.settings.persistent_connections = false;
    world.configure();
    world.answer_probe("192.0.2.2");
    world.event(Event::Stop);
    assert_eq!(world.disconnecting(), ["nvme0"]);
    world.disconnect_ok();
    assert!(!world.machine.may_stop(), "one is still being connected");
    world.connect_ok("nvme5");
    world.disconnect_ok();
    assert!(world.machine.may_stop());
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
    world.assert_nothing_to_do();
}

#[test]
fn nothing_is_started_after_a_stop() {
    let mut world = World::with_discovery();
    world.page(&[PATH]);
    world.event(Event::Stop);
    world.answer_probe("192.0.2.9");
    world.pass_secs(600);
    assert_eq!(world.connecting(), [""; 0]);
}

#[test]
fn when_nothing_is_wanted_any_more_nothing_is_kept() {
    let mut world = World::with_discovery();
    let entries: Vec<String> = (0..50).map(|number| format!("nqn.{number}@192.0.2.{}", 10 + number % 5)).collect();
    world.page(&entries.iter().map(String::as_str).collect::<Vec<_>>());
    for host in 10..14 {
        world.answer_probe(&format!("192.0.2.{host}"));
    }
    world.fail_probe("192.0.2.14");
    for number in 0..30 {
        match number % 3 {
            0 => world.connect_fails(Errno::EIO),
            _ => world.connect_ok(&format!("nvme{}", 100 + number)),
        }
    }
    world.settings.discovery.clear();
    world.configure();
    while !world.connects.is_empty() {
        world.connect_ok(&format!("nvme{}", 200 + world.connects.len()));
    }
    while !world.disconnects.is_empty() {
        world.disconnect_ok();
    }
    assert!(world.machine.links().is_empty(), "{:#?}", world.machine.links());
    assert!(world.machine.finder().unwrap().is_empty());
    assert!(world.machine.connector().unwrap().is_empty());
    assert_eq!(world.machine.legacy(world.now), []);
    assert_eq!(world.machine.poll_deadline(), None);
}

#[test]
fn a_path_that_moves_to_another_page_stays() {
    const OTHER: &str = "192.0.2.2";
    let elsewhere = || link(ControllerKind::Discovery, OTHER, "8009", DISCOVERY_NQN, "eth0").tid;
    let moves: [&dyn Fn() -> Vec<Report>; 3] = [
        &|| vec![report(DC, fresh(&[])), report(OTHER, fresh(&[PATH]))],
        // Its administrator drops the one that listed it.
        &|| vec![report(OTHER, fresh(&[PATH]))],
        // The same through the interface that the connection has.
        &|| vec![Report { source: elsewhere(), ..report(OTHER, fresh(&[PATH])) }],
    ];
    for moved in moves {
        let mut world = World::with_roles(CONNECTOR);
        world.configure();
        world.event(Event::FinderReports(vec![report(DC, fresh(&[PATH])), report(OTHER, fresh(&[]))]));
        world.connect("192.0.2.9", "nvme1");
        world.event(Event::FinderReports(moved()));
        world.assert_nothing_to_do();
    }
}
