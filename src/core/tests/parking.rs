//! Discovery controllers that do not tell when something changes, and those that support no lasting connection.

use super::*;

use crate::core::finder::PageState;

const SILENT: Capabilities = Capabilities { notices: false, pleo: None, piece: 0 };

fn world() -> World {
    let mut world = World::new();
    world.can = SILENT;
    world.settings.discovery = vec![entry(DC, "")];
    world.configure();
    world.connect(DC, "nvme0");
    world
}

/// Read and left, with [`PATH`] listed and connected as nvme1.
fn parked() -> World {
    let mut world = world();
    world.declining_page(&[PATH]);
    world.disconnect_ok();
    world.connect("192.0.2.9", "nvme1");
    world
}

fn page_state(world: &World) -> PageState {
    world.machine.finder().unwrap().page_state(&dc(DC).tid)
}

fn is_parked(world: &World) -> bool {
    let finder = world.machine.finder().unwrap();
    finder.controllers().any(|tid| finder.parked_until(tid).is_some())
}

/// Until it is to be connected again.
fn pass_to_poll(world: &mut World) {
    while is_parked(world) {
        world.pass_to_deadline();
    }
}

fn pages_published(world: &World) -> usize {
    world.published.iter().filter(|change| matches!(change, Change::LogPage { .. })).count()
}

#[test]
fn who_is_named_anew_while_it_is_left_is_connected_again() {
    let mut world = world();
    world.declining_page(&[PATH]);
    let named = std::mem::take(&mut world.settings.discovery);
    world.configure();
    world.settings.discovery = named;
    world.configure();
    world.disconnect_ok();
    world.let_through(DC);
    assert!(world.connecting().contains(&DC), "{:?}", world.connecting());
}

#[test]
fn who_supports_no_lasting_connection_is_read_left_and_read_again() {
    let mut world = parked();
    assert!(is_parked(&world));
    assert_eq!(page_state(&world), PageState::Fresh);
    world.assert_nothing_to_do();
    let (notes, published) = (world.notes.len(), pages_published(&world));
    for round in 0..3 {
        pass_to_poll(&mut world);
        world.connect(DC, &format!("nvme{}", 10 + round));
        world.declining_page(&[PATH]);
        assert_eq!(page_state(&world), PageState::Fresh);
        world.disconnect_ok();
        assert!(is_parked(&world));
    }
    assert_eq!((world.notes.len(), pages_published(&world)), (notes, published), "{:?}", world.notes);
    assert_eq!(world.notes.iter().filter(|note| note.contains("supports no lasting connection")).count(), 1);
    assert_eq!(world.disconnecting(), [""; 0]);
}

#[test]
fn what_a_poll_no_longer_finds_is_taken_down() {
    let mut world = parked();
    pass_to_poll(&mut world);
    world.connect(DC, "nvme2");
    world.declining_page(&[]);
    let mut disconnecting = world.disconnecting();
    disconnecting.sort();
    assert_eq!(disconnecting, ["nvme1", "nvme2"]);
}

/// Left is not lost, but what cannot be read when it is due is.
#[test]
fn who_does_not_come_back_is_lost() {
    let mut world = parked();
    pass_to_poll(&mut world);
    world.fail_probe(DC);
    assert_eq!(page_state(&world), PageState::Fresh, "there is time yet");
    for _ in 0..10 {
        world.pass_secs(60);
        if !world.probes.is_empty() {
            world.fail_probe(DC);
        }
    }
    assert_eq!(page_state(&world), PageState::Stale);
    assert_eq!(world.disconnecting(), [""; 0]);
    world.pass_secs(120);
    world.connect(DC, "nvme2");
    assert!(world.notes.last().unwrap().contains("connected as nvme2"), "{:?}", world.notes);
    world.declining_page(&[PATH]);
    assert_eq!(page_state(&world), PageState::Fresh);
    world.disconnect_ok();
    assert!(is_parked(&world));
}

#[test]
fn a_connection_lost_before_the_page_was_read_is_a_loss() {
    let mut world = parked();
    pass_to_poll(&mut world);
    world.connect(DC, "nvme2");
    world.removed("nvme2");
    assert_eq!(page_state(&world), PageState::Stale);
    assert_eq!(world.disconnecting(), [""; 0]);
}

#[test]
fn a_reload_reads_it_at_once() {
    let mut world = parked();
    world.configure();
    world.connect(DC, "nvme2");
    world.declining_page(&[PATH]);
    // And while it is being left.
    world.configure();
    assert_eq!(world.connecting(), [""; 0]);
    world.disconnect_ok();
    world.connect(DC, "nvme3");
    world.declining_page(&[PATH]);
    world.disconnect_ok();
    assert!(is_parked(&world));
}

#[test]
fn an_announcement_reads_it_at_once() {
    let mut world = World::new();
    world.can = SILENT;
    world.configure();
    world.announce(&[DC]);
    world.let_through(DC);
    world.connect_ok("nvme0");
    world.declining_page(&[PATH]);
    world.disconnect_ok();
    world.announce(&[DC]);
    world.pass_secs(10);
    assert_eq!(world.connecting(), [""; 0], "nothing new");
    world.announce(&[]);
    assert!(
        !world.notes.iter().any(|note| note.contains("neither announced nor connected")),
        "it is known where it is"
    );
    world.announce(&[DC]);
    world.let_through(DC);
    assert_eq!(world.connecting(), [DC]);
}

#[test]
fn a_parked_controller_does_not_age() {
    let mut world = World::new();
    world.can = SILENT;
    world.settings.persistence = Persistence::For(Duration::from_secs(3600));
    world.configure();
    world.announce(&[DC]);
    world.let_through(DC);
    world.connect_ok("nvme0");
    world.declining_page(&[]);
    world.disconnect_ok();
    world.announce(&[]);
    for _ in 0..20 {
        pass_to_poll(&mut world);
        world.let_through(DC);
        world.connect_ok("nvme0");
        world.declining_page(&[]);
        world.disconnect_ok();
    }
    assert!(is_parked(&world));
}

#[test]
fn who_is_parked_can_be_dropped() {
    let mut world = parked();
    world.settings.discovery.clear();
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme1"]);
    world.disconnect_ok();
    assert!(world.machine.links().is_empty() && world.machine.finder().unwrap().is_empty());

    // And while it is being left.
    let mut world = self::world();
    world.declining_page(&[]);
    world.settings.discovery.clear();
    world.configure();
    world.disconnect_ok();
    assert!(world.machine.links().is_empty() && world.machine.finder().unwrap().is_empty());
}

/// Linux' own target does not claim to support lasting connections, but tells of changes: it is not left.
#[test]
fn who_tells_of_changes_is_not_left() {
    let mut world = World::with_discovery();
    world.declining_page(&[PATH]);
    world.connect("192.0.2.9", "nvme1");
    world.pass(POLLING * 2);
    world.assert_nothing_to_do();
    world.aen("nvme0");
    assert_eq!(world.page_reads.len(), 1);
}

#[test]
fn who_claims_to_support_it_or_says_nothing_is_read_by_time_but_not_left() {
    for describes_itself in [true, false] {
        let mut world = world();
        let mut bytes = page(if describes_itself { &[SELF_ENTRY] } else { &[] });
        if describes_itself {
            (bytes[1024 + 2], bytes[1024 + 10]) = (3, 2);
        }
        world.page_read(Ok(bytes.into()));
        world.assert_nothing_to_do();
        world.pass(POLLING);
        assert_eq!(world.page_reads.len(), 1);
        world.page_read(Err("no".into()));
        world.pass_secs(60);
        world.page(&[]);
        world.pass(POLLING);
        assert_eq!(world.page_reads.len(), 1);
        assert_eq!(world.disconnecting(), [""; 0]);
    }
}

#[test]
fn the_configuration_has_the_last_word() {
    let mut world = world();
    world.settings.persistent = Persistent::Force;
    world.configure();
    world.declining_page(&[]);
    world.declining_page(&[]);
    world.assert_nothing_to_do();
    world.pass(POLLING);
    assert_eq!(world.page_reads.len(), 1, "read by time all the same");

    let mut world = World::with_discovery();
    world.page(&[]);
    world.settings.persistent = Persistent::No;
    world.configure();
    world.page(&[]);
    world.disconnect_ok();
    assert!(is_parked(&world));
}

#[test]
fn somebody_elses_connection_is_not_ended() {
    let mut world = World::new();
    world.can = SILENT;
    world.event(Event::DevicesRead(vec![serving(&dc(DC), "nvme0")]));
    world.settings.discovery = vec![entry(DC, "")];
    world.configure();
    world.declining_page(&[PATH]);
    assert_eq!(world.disconnecting(), [""; 0]);
    assert!(!is_parked(&world));
    world.pass(POLLING);
    assert_eq!(world.page_reads.len(), 1, "read by time");
}

#[test]
fn a_change_while_it_is_read_is_read_before_it_is_left() {
    let mut world = world();
    world.aen("nvme0");
    world.declining_page(&[]);
    assert_eq!(world.disconnecting(), [""; 0]);
    world.declining_page(&[PATH]);
    assert_eq!(world.disconnecting(), ["nvme0"]);
}

#[test]
fn what_cannot_be_disconnected_is_read_by_time_too() {
    let mut world = world();
    for _ in 0..3 {
        world.declining_page(&[]);
        let (ticket, _) = world.disconnects.remove(0);
        world.event(Event::Disconnected { ticket, outcome: Err(Failure::from(Errno::EBUSY)) });
        assert!(is_parked(&world));
        world.up(&serving(&dc(DC), "nvme0"));
        world.assert_nothing_to_do();
        world.pass(POLLING);
        assert_eq!(world.page_reads.len(), 1);
    }
    assert!(world.notes.iter().any(|note| note.contains("could not be disconnected")));
    world.declining_page(&[]);
    world.disconnect_ok();
    assert!(is_parked(&world));
}

#[test]
fn two_names_of_one_controller_leave_it_together() {
    let mut world = World::new();
    world.can = SILENT;
    world.settings.discovery = vec![entry(DC, ""), via("eth0", entry(DC, ""))];
    world.configure();
    world.connect(DC, "nvme0");
    assert_eq!(world.page_reads.len(), 1);
    world.declining_page(&[]);
    assert_eq!(world.disconnecting(), ["nvme0"]);
    world.disconnect_ok();
    world.pass(POLLING);
    world.let_through(DC);
    assert_eq!(world.connecting(), [DC], "one connection for both");
}
