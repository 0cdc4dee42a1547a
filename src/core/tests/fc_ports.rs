//! Ports of Fibre Channel targets, of which the kernel tells once, and again when it is asked.

use super::*;
use crate::core::announcement::Announcement;
use crate::core::finder::Origin;

const HOST_PORT: &str = "nn-0x10:pn-0x20";
const TARGETS: [&str; 2] = ["nn-0x11:pn-0x21", "nn-0x12:pn-0x22"];

fn port(traddr: &str) -> Announcement {
    Announcement::fc_port(traddr, HOST_PORT).unwrap()
}

fn found(traddr: &str) -> LinkId {
    let spelling =
        Spelling { traddr, subsysnqn: DISCOVERY_NQN, host_traddr: HOST_PORT, host_nqn: HOST, ..Spelling::default() };
    LinkId { kind: ControllerKind::Discovery, tid: Rc::new(TransportId::new(Transport::Fc, spelling)) }
}

impl World {
    fn is_found(&self, traddr: &str) -> bool {
        self.machine.finder().unwrap().origin(&found(traddr).tid) == Some(Origin::Discovered)
    }

    /// The kernel answers with these ports.
    fn tell(&mut self, ports: &[&str]) {
        ports.iter().for_each(|traddr| self.event(Event::FcPort(port(traddr))));
        self.event(Event::FcPortsTold { answered: true });
    }
}

/// One round of questions is open, the first.
fn world() -> World {
    let mut world = World::new();
    world.settings.persistence = Persistence::For(Duration::from_secs(3600));
    world.configure();
    assert_eq!(world.fc_questions, 1);
    world
}

#[test]
fn ports_are_asked_for_and_become_discovery_controllers() {
    let mut world = world();
    world.tell(&TARGETS);
    assert_eq!(world.connecting(), TARGETS);
    assert!(world.is_found(TARGETS[0]) && world.is_found(TARGETS[1]));
    assert!(world.notes.iter().any(|note| note.contains("found on the Fibre Channel fabric")), "{:?}", world.notes);
    world.connect_ok("nvme0");
    world.connect_ok("nvme1");
    assert_eq!(world.device_of(&found(TARGETS[1])), Some("nvme1"));
}

#[test]
fn a_lost_one_stays_wanted_for_as_long_as_announced_ones_do() {
    let mut world = world();
    world.tell(&TARGETS[..1]);
    world.connect_ok("nvme0");
    world.pass_secs(60);
    world.removed("nvme0");
    assert_eq!(world.fc_questions, 2, "is its port still there?");
    world.event(Event::FcPortsTold { answered: true });
    world.connect_fails(Errno::EIO);
    world.pass_secs(3599);
    assert!(world.is_found(TARGETS[0]));
    world.connect_fails(Errno::EIO);
    world.pass_secs(2);
    assert!(!world.is_found(TARGETS[0]));
}

#[test]
fn a_port_that_comes_back_is_tried_at_once() {
    let mut world = world();
    world.tell(&TARGETS[..1]);
    world.connect_fails(Errno::EIO);
    assert_eq!(world.connecting(), [""; 0]);
    world.event(Event::FcPort(port(TARGETS[0])));
    assert_eq!(world.connecting(), TARGETS[..1]);
}

#[test]
fn an_answer_is_no_reason_to_hurry() {
    let mut world = world();
    world.tell(&TARGETS[..1]);
    for round in 2..5 {
        world.connect_ok("nvme0");
        world.removed("nvme0");
        assert_eq!(world.fc_questions, round);
        world.tell(&TARGETS[..1]);
        assert_eq!(world.connecting(), [""; 0], "connecting in circles");
        world.pass_secs(60);
    }
}

#[test]
fn one_that_was_never_connected_goes_with_its_port() {
    let mut world = world();
    world.tell(&TARGETS);
    world.connect_fails(Errno::EIO);
    world.connect_ok("nvme1");
    world.removed("nvme1");
    world.tell(&TARGETS[1..]);
    assert_eq!((world.is_found(TARGETS[0]), world.is_found(TARGETS[1])), (false, true));
}

#[test]
fn without_an_answer_nothing_is_withdrawn_and_questions_do_not_pile_up() {
    let mut world = world();
    world.event(Event::FcPort(port(TARGETS[0])));
    world.configure();
    world.event(Event::DevicesRead(vec![]));
    assert_eq!(world.fc_questions, 1);
    world.event(Event::FcPortsTold { answered: false });
    assert_eq!(world.fc_questions, 2);
    world.event(Event::FcPortsTold { answered: false });
    assert_eq!(world.fc_questions, 2);
    assert!(world.is_found(TARGETS[0]));
}

#[test]
fn an_exclusion_holds_for_them_too() {
    let mut world = World::new();
    world.settings.exclusions = vec![Exclusion { transport: Some(Transport::Fc), ..Exclusion::default() }];
    world.configure();
    world.tell(&TARGETS);
    world.assert_nothing_to_do();
}
