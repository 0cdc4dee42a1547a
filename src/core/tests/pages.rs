//! When log pages are read, and what becomes of those that cannot be.

use super::*;

use crate::core::finder::PageState;

fn page_state(world: &World) -> PageState {
    world.machine.finder().unwrap().page_state(&dc(DC).tid)
}

#[test]
fn events_during_a_read_make_exactly_one_more() {
    let mut world = World::with_discovery();
    for _ in 0..5 {
        world.aen("nvme0");
    }
    assert_eq!(world.page_reads.len(), 1);
    world.page(&[]);
    assert_eq!(world.page_reads.len(), 1);
    world.page(&[]);
    assert_eq!(world.page_reads.len(), 0);
    world.aen("nvme0");
    assert_eq!(world.page_reads.len(), 1);
}

#[test]
fn connected_again_means_read_again() {
    let mut world = World::with_path();
    world.up(&serving(&dc(DC), "nvme0"));
    world.up(&serving(&dc(DC), "nvme0"));
    assert_eq!(world.page_reads.len(), 1, "both at a time");
    world.page(&[PATH]);
    world.page(&[PATH]);
    world.up(&serving(&io(PATH), "nvme1"));
    world.aen("nvme1");
    world.aen("nvme99");
    world.assert_nothing_to_do();
}

#[test]
fn a_page_that_cannot_be_read_keeps_the_last_one_and_every_path() {
    let mut numrec = page(&[]);
    numrec[8..16].fill(0xff);
    let mut short = page(&[PATH]);
    short.truncate(1500);
    let bad: [Result<Vec<u8>, String>; 5] =
        [Err("it changed during 8 reads".into()), Ok(vec![]), Ok(vec![0; 1000]), Ok(short), Ok(numrec)];
    let mut world = World::with_path();
    for outcome in bad {
        world.aen("nvme0");
        world.page_read(outcome.map(Into::into));
        assert_eq!(page_state(&world), PageState::Stale);
        assert_eq!(world.machine.finder().unwrap().page(&dc(DC).tid).unwrap().entries().len(), 1);
        assert_eq!(world.disconnecting(), [""; 0]);
        assert_eq!(world.page_reads.len(), 0, "not before the back-off");
        world.pass_secs(60);
        world.page(&[PATH]);
        assert_eq!(page_state(&world), PageState::Fresh);
    }
}

#[test]
fn a_retry_that_something_else_makes_needless_does_not_happen() {
    let mut world = World::with_path();
    world.aen("nvme0");
    world.page_read(Err("no".into()));
    world.aen("nvme0");
    world.pass_secs(60);
    assert_eq!(world.page_reads.len(), 1);
    world.page(&[PATH]);
    world.assert_nothing_to_do();
}

#[test]
fn entries_that_make_no_sense_are_named_once_and_the_rest_counts() {
    let mut world = World::with_discovery();
    let entries = ["nqn.a@0.0.0.0", "nqn.b@fe80::1%eth0,hostnqn=x", "nonsense@192.0.2.9", "nqn.c@", PATH];
    world.page(&entries);
    assert_eq!(world.probing(), ["192.0.2.9"]);
    let ignored = |world: &World| world.notes.iter().filter(|note| note.contains("ignored")).count();
    assert_eq!(ignored(&world), 4, "{:?}", world.notes);
    world.aen("nvme0");
    world.page(&entries);
    assert_eq!(ignored(&world), 4);
    assert!(world.notes.iter().any(|note| note.ends_with("nqn.a: tcp address \"0.0.0.0\" cannot be used")));
    world.aen("nvme0");
    world.page(&["nqn.first@192.0.2.9", entries[0], entries[1], entries[2], entries[3], PATH]);
    assert_eq!(ignored(&world), 4, "an entry that is inserted makes no news of the others");
}

#[test]
fn a_page_of_nonsense_does_not_flood_the_log() {
    let mut world = World::with_discovery();
    let mut bytes = page(&vec![PATH; 16384]);
    bytes[1024..].fill(0xff);
    world.page_read(Ok(bytes.into()));
    assert!(world.notes.len() < 10, "{:?}", world.notes);
    assert_eq!(world.probing(), [""; 0]);
}

#[test]
fn paths_inherit_how_their_discovery_controller_is_reached() {
    let mut world = World::new();
    world.settings.discovery = vec![via("eth3", entry(DC, ""))];
    world.configure();
    world.connect(DC, "nvme0");
    world.page(&[PATH]);
    world.connect("192.0.2.9", "nvme1");
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.9%eth3")), Some("nvme1"));
}

#[test]
fn a_reply_for_a_lost_controller_counts_for_nothing() {
    let mut world = World::with_path();
    world.aen("nvme0");
    let (ticket, _) = world.page_reads.remove(0);
    world.removed("nvme0");
    world.event(Event::PageRead { ticket, outcome: Ok(page(&[]).into()) });
    assert_eq!(page_state(&world), PageState::Stale);
    assert_eq!(world.disconnecting(), [""; 0]);
}
