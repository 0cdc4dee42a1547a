//! What is done with a discovery controller each time it is connected.

use super::*;

use crate::core::finder::PageState;

const CAN: Capabilities = Capabilities { notices: true, pleo: Some(true), piece: 0 };

/// A discovery controller of this type, connected as nvme0. What it is asked is answered by hand.
fn world(dctype: &str) -> World {
    let mut world = World::new();
    world.by_hand = true;
    world.settings.discovery = vec![entry(DC, "")];
    world.configure();
    world.answer_probe(DC);
    let (ticket, id) = world.connects.remove(0);
    world.ours.insert("nvme0".to_owned());
    world.event(Event::Connected { ticket, outcome: Ok(Some(device(&id, dctype))) });
    world
}

fn device(id: &LinkId, dctype: &str) -> Device {
    Device { dctype: dctype.into(), ..serving(id, "nvme0") }
}

/// Connected again, as the kernel tells it.
fn again(world: &mut World, dctype: &str) {
    world.up(&device(&dc(DC), dctype));
}

/// How many registrations, inquiries and page reads are under way.
fn asked(world: &World) -> (usize, usize, usize) {
    (world.registers.len(), world.inquiries.len(), world.page_reads.len())
}

fn noted(world: &World, part: &str) -> usize {
    world.notes.iter().filter(|note| note.contains(part)).count()
}

fn page_state(world: &World) -> PageState {
    world.machine.finder().unwrap().page_state(&dc(DC).tid)
}

#[test]
fn one_step_follows_the_other() {
    for dctype in ["cdc", "ddc", ""] {
        let mut world = world(dctype);
        assert_eq!(asked(&world), (1, 0, 0), "{dctype}");
        world.registered(Ok(true));
        assert_eq!(asked(&world), (0, 1, 0));
        world.inquired(Ok(CAN));
        assert_eq!(asked(&world), (0, 0, 1));
        assert!(world.port_local);
        world.page(&[PATH]);
        assert_eq!(page_state(&world), PageState::Fresh);
        assert_eq!(noted(&world, "is registered with nvme0"), 1);
        // Later it is only read again.
        world.aen("nvme0");
        assert_eq!(asked(&world), (0, 0, 1));
        assert!(world.port_local);
    }
}

#[test]
fn who_does_not_say_what_it_is_is_not_registered_with() {
    let mut world = world("none");
    assert_eq!(asked(&world), (0, 1, 0));
    world.inquired(Ok(Capabilities { notices: true, pleo: None, piece: 0 }));
    assert_eq!(asked(&world), (0, 0, 1));
    assert!(!world.port_local);
}

#[test]
fn pleo_is_not_used_where_it_is_disabled() {
    let mut world = World::new();
    world.settings.pleo = false;
    world.can = CAN;
    world.settings.discovery = vec![entry(DC, "")];
    world.configure();
    world.connect(DC, "nvme0");
    assert!(!world.port_local);
    world.page(&[]);
    world.settings.pleo = true;
    world.configure();
    assert!(world.port_local, "the new rule counts at once");
}

#[test]
fn connected_again_means_all_of_it_again_and_once() {
    let mut world = world("cdc");
    for _ in 0..3 {
        again(&mut world, "cdc");
        world.registered(Ok(true));
        again(&mut world, "cdc");
        assert_eq!(asked(&world), (0, 1, 0), "that is what it follows from");
        world.inquired(Ok(CAN));
        world.page(&[PATH]);
        assert_eq!(asked(&world), (0, 0, 0));
        again(&mut world, "cdc");
    }
    world.registered(Ok(true));
    world.inquired(Ok(CAN));
    again(&mut world, "cdc");
    world.page(&[PATH]);
    assert_eq!(asked(&world), (1, 0, 0), "it was another connection by then");
    assert_eq!(noted(&world, "is registered with nvme0"), 1);
}

#[test]
fn events_on_the_way_do_not_disturb_the_order() {
    let mut world = world("cdc");
    world.aen("nvme0");
    world.registered(Ok(true));
    world.aen("nvme0");
    world.inquired(Ok(CAN));
    world.page(&[PATH]);
    assert_eq!(asked(&world), (0, 0, 0));
    world.event(Event::DevicesRead(world.machine.links().devices().cloned().collect()));
    assert_eq!(asked(&world), (1, 0, 0), "a reconnection may have been missed");
}

#[test]
fn another_symbolic_name_is_registered_at_once() {
    let mut world = world("cdc");
    world.registered(Ok(true));
    world.inquired(Ok(CAN));
    world.page(&[PATH]);
    world.configure();
    assert_eq!(asked(&world), (0, 0, 0), "nothing changed");
    world.settings.symname = "rack1".into();
    world.configure();
    assert_eq!(asked(&world), (1, 0, 0));
    world.settings.symname = "rack2".into();
    world.configure();
    world.registered(Ok(true));
    assert_eq!(asked(&world), (1, 0, 0), "it changed on the way");
    world.registered(Ok(true));
    world.inquired(Ok(CAN));
    world.page(&[PATH]);
    world.configure();
    assert_eq!(asked(&world), (0, 0, 0));
}

#[test]
fn a_refusal_is_told_once_and_stops_nothing() {
    let mut world = world("cdc");
    for _ in 0..3 {
        world.registered(Err(Failure::NvmeStatus(0x4132)));
        world.inquired(Err(Failure::NvmeStatus(0x4002)));
        world.page(&[PATH]);
        assert_eq!(page_state(&world), PageState::Fresh);
        again(&mut world, "cdc");
    }
    assert_eq!(noted(&world, "could not be registered with nvme0"), 1);
    assert_eq!(noted(&world, "Insufficient Discovery Resources"), 1);
    world.registered(Ok(true));
    assert_eq!(noted(&world, "is registered with nvme0"), 1);
}

#[test]
fn a_reload_tries_again_what_was_refused() {
    let mut world = world("cdc");
    world.registered(Err(Failure::NvmeStatus(0x4132)));
    world.inquired(Ok(CAN));
    world.page(&[PATH]);
    world.configure();
    assert_eq!(asked(&world), (1, 0, 0));
}

/// Each attempt costs the connection. The page is read all the same.
#[test]
fn who_does_not_answer_a_registration_is_left_alone_with_it() {
    let mut world = world("cdc");
    world.registered(Err(Failure::Interrupted));
    assert_eq!(asked(&world), (0, 0, 0), "the kernel has to connect it again first");
    again(&mut world, "cdc");
    assert_eq!(asked(&world), (0, 1, 0));
    world.inquired(Ok(CAN));
    world.page(&[PATH]);
    assert_eq!(noted(&world, "did not answer the registration"), 1);
    assert_eq!(world.machine.finder().unwrap().registration(&dc(DC).tid), "not answered");

    // What is connected anew may have learned it.
    again(&mut world, "cdc");
    assert_eq!(asked(&world), (1, 0, 0));
    world.registered(Err(Failure::Interrupted));
    again(&mut world, "cdc");
    world.inquired(Ok(CAN));
    world.page(&[PATH]);
    world.configure();
    assert_eq!(asked(&world), (1, 0, 0), "the administrator asks");
    world.registered(Ok(true));
    world.inquired(Ok(CAN));
    world.page(&[PATH]);
    assert_eq!(page_state(&world), PageState::Fresh);
    assert_eq!(noted(&world, "did not answer the registration"), 1);
}

#[test]
fn without_an_event_the_page_is_read_after_a_while() {
    let mut world = world("cdc");
    world.registered(Err(Failure::Interrupted));
    world.pass_secs(60);
    assert_eq!(asked(&world), (0, 1, 0));
}

/// Both cost the connection: one after the other is left out, until the page can be read.
#[test]
fn no_two_steps_can_keep_the_page_from_being_read() {
    let mut world = world("ddc");
    world.registered(Err(Failure::Interrupted));
    again(&mut world, "ddc");
    world.inquired(Err(Failure::Interrupted));
    again(&mut world, "ddc");
    assert_eq!(asked(&world), (0, 0, 1));
    world.page(&[PATH]);
    assert_eq!(page_state(&world), PageState::Fresh);
}

/// A central controller may list nothing to a host that it does not know.
#[test]
fn an_unregistered_host_takes_nothing_down() {
    for (dctype, disconnects) in [("cdc", vec![]), ("ddc", vec!["nvme1"])] {
        let mut world = world(dctype);
        world.registered(Ok(true));
        world.inquired(Ok(CAN));
        world.page(&[PATH]);
        world.connect("192.0.2.9", "nvme1");
        again(&mut world, dctype);
        world.registered(Err(Failure::Interrupted));
        again(&mut world, dctype);
        world.inquired(Ok(CAN));
        world.page(&[]);
        assert_eq!(world.disconnecting(), disconnects, "{dctype}");
        world.configure();
        world.registered(Ok(true));
        world.inquired(Ok(CAN));
        world.page(&[]);
        assert_eq!(world.disconnecting(), ["nvme1"]);
    }
}

#[test]
fn a_connection_that_is_gone_says_nothing_about_the_command() {
    let mut world = world("cdc");
    for failure in [Failure::NotReady, Failure::Gone, Failure::NotThatController] {
        world.registered(Err(failure));
        assert_eq!(asked(&world), (0, 0, 0));
        again(&mut world, "cdc");
        assert_eq!(asked(&world), (1, 0, 0));
    }
    world.registered(Ok(true));
    world.inquired(Err(Failure::NotReady));
    world.pass_secs(60);
    assert_eq!(asked(&world), (0, 1, 0));
    assert_eq!(noted(&world, "registration"), 0);
}

#[test]
fn answers_that_come_too_late_count_for_nothing() {
    let mut world = world("cdc");
    let (ticket, _) = world.registers.remove(0);
    world.removed("nvme0");
    world.event(Event::Registered { ticket, outcome: Ok(true) });
    world.event(Event::Inquired { ticket, outcome: Ok(CAN) });
    assert_eq!(noted(&world, "is registered"), 0);
    assert_eq!(asked(&world), (0, 0, 0));
}
