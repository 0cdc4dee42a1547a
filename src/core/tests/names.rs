//! Host names in the configuration.

use super::*;

const FIRST: &str = "192.0.2.11";
const SECOND: &str = "192.0.2.12";
const OTHER: &str = "192.0.2.13";
const NQN: &str = "nqn.a";

impl World {
    /// The oldest question is answered with these addresses.
    #[track_caller]
    pub(super) fn resolved(&mut self, addresses: &[&str]) {
        let (ticket, _) = self.resolves.remove(0);
        let outcome = Ok(addresses.iter().map(|address| (*address).to_owned()).collect());
        self.event(Event::Resolved { ticket, outcome });
    }

    pub(super) fn unresolved(&mut self) {
        let (ticket, _) = self.resolves.remove(0);
        self.event(Event::Resolved { ticket, outcome: Err("no such name".into()) });
    }

    /// A name is asked for, and answered so.
    #[track_caller]
    fn reload(&mut self, addresses: &[&str]) {
        self.configure();
        self.resolved(addresses);
    }

    fn wanted(&self, kind: ControllerKind) -> Vec<&str> {
        self.machine.links().wanted(kind).map(|id| id.tid.traddr()).collect()
    }

    /// Why the first I/O controller is not connected.
    fn why(&self) -> Option<String> {
        self.machine.last_failure(self.machine.links().wanted(ControllerKind::Io).next().unwrap())
    }

    fn wanted_io(&self) -> Vec<&str> {
        self.wanted(ControllerKind::Io)
    }
}

/// The I/O controller `array` is configured, and not resolved yet.
fn world() -> World {
    let mut world = World::with_roles(CONNECTOR);
    world.settings.io = vec![entry("array", NQN)];
    world.configure();
    world
}

fn connected(addresses: &[&str]) -> World {
    let mut world = world();
    world.resolved(addresses);
    world.connect(addresses[0], "nvme0");
    world.pass_secs(60);
    world
}

#[test]
fn a_name_waits_until_it_has_an_address() {
    let mut world = world();
    assert_eq!((world.wanted_io(), world.resolves.len()), (vec!["array"], 1));
    world.assert_nothing_to_do();
    for _ in 0..8 {
        world.unresolved();
        world.pass_to_deadline();
    }
    let told: Vec<_> =
        world.notes.iter().filter(|note| note.starts_with("array: not resolved: no such name")).collect();
    assert_eq!(told.len(), 1, "{:?}", world.notes);
    assert_eq!(world.why(), Some("not resolved: no such name".to_owned()));
    world.resolved(&[FIRST]);
    assert_eq!(world.why(), None);
    assert_eq!(world.wanted_io(), [FIRST]);
    world.connect(FIRST, "nvme0");
    world.pass_secs(1000);
    assert!(world.resolves.is_empty(), "nothing wakes up");
}

#[test]
fn the_network_ends_the_wait_of_a_name() {
    let mut world = world();
    for _ in 0..8 {
        world.unresolved();
        world.pass_to_deadline();
    }
    world.unresolved();
    assert!(world.machine.waits_for_network());
    world.event(Event::NetworkChanged(crate::core::network::NetworkChange::Link("eth0".into())));
    assert_eq!(world.resolves.len(), 1);
}

#[test]
fn the_next_address_is_tried_at_once() {
    let mut world = world();
    world.resolved(&[FIRST, SECOND]);
    world.fail_probe(FIRST);
    assert_eq!(world.wanted_io(), [SECOND]);
    world.connect(SECOND, "nvme0");
    world.pass_secs(600);
    world.assert_nothing_to_do();
}

#[test]
fn each_address_has_its_own_waits_and_is_told_of_once() {
    let mut world = world();
    world.resolved(&[FIRST, SECOND]);
    let (mut probes, end) = (0, world.now + Duration::from_secs(3600));
    while world.now < end {
        match world.probes.pop() {
            Some(portal) => {
                probes += 1;
                world.event(Event::Probed { portal, outcome: Err("silence".into()) });
            }
            None => world.pass_to_deadline(),
        }
        if !world.resolves.is_empty() {
            world.resolved(&[FIRST, SECOND]);
        }
    }
    assert!((60..300).contains(&probes), "{probes} probes in an hour");
    assert_eq!(world.notes.len(), 2, "{:?}", world.notes);
}

#[test]
fn addresses_whose_controller_refuses_take_turns_with_waits_too() {
    let mut world = world();
    world.resolved(&[FIRST, SECOND]);
    let (mut connects, end) = (0, world.now + Duration::from_secs(3600));
    while world.now < end {
        if let Some(portal) = world.probes.pop() {
            world.event(Event::Probed { portal, outcome: Ok(()) });
        } else if !world.connects.is_empty() {
            connects += 1;
            world.connect_fails(Errno::ENOKEY);
        } else {
            world.pass_to_deadline();
        }
        if !world.resolves.is_empty() {
            world.resolved(&[FIRST, SECOND]);
        }
    }
    assert!((60..300).contains(&connects), "{connects} connects in an hour");
    assert_eq!(world.notes.len(), 2, "{:?}", world.notes);
}

#[test]
fn a_live_connection_stays_until_it_is_lost() {
    let mut world = connected(&[FIRST]);
    world.reload(&[SECOND]);
    assert_eq!((world.wanted_io(), world.disconnecting()), (vec![FIRST], vec![]));
    world.removed("nvme0");
    assert_eq!(world.wanted_io(), [SECOND]);
}

#[test]
fn what_is_lost_is_resolved_again() {
    let mut world = connected(&[FIRST, SECOND]);
    world.removed("nvme0");
    assert_eq!((world.probing(), world.resolves.len()), (vec![FIRST], 1));
    world.resolved(&[OTHER]);
    assert_eq!(world.wanted_io(), [OTHER]);
}

#[test]
fn what_cannot_be_resolved_any_more_keeps_its_addresses() {
    let mut world = connected(&[FIRST]);
    world.configure();
    world.unresolved();
    assert_eq!(world.wanted_io(), [FIRST]);
    world.removed("nvme0");
    assert_eq!(world.wanted_io(), [FIRST]);
    assert!(world.notes.iter().any(|note| note.ends_with("the addresses that are known stay in force")));
}

#[test]
fn one_name_is_resolved_once() {
    let mut world = World::new();
    world.settings.io = (0..250).map(|number| entry("array", &format!("nqn.{number}"))).collect();
    world.settings.discovery = vec![entry("Array", "")];
    world.configure();
    assert_eq!(world.resolves.len(), 1);
    world.resolved(&[FIRST]);
    assert_eq!(world.probes.len(), 2, "a probe for each port");
    world.configure();
    world.configure();
    assert_eq!(world.resolves.len(), 1);
}

#[test]
fn the_family_decides_what_comes_first_and_what_at_all() {
    let cases = [
        (IpFamily::Ipv4Ipv6, "192.0.2.11"),
        (IpFamily::Ipv6Ipv4, "2001:db8::1"),
        (IpFamily::Ipv4, "192.0.2.11"),
        (IpFamily::Ipv6, "2001:db8::1"),
    ];
    for (ip_family, expected) in cases {
        let mut world = World::with_roles(CONNECTOR);
        world.settings.io = vec![entry("array", NQN)];
        world.settings.ip_family = ip_family;
        world.reload(&["2001:db8::1", "192.0.2.11"]);
        assert_eq!(world.wanted_io(), [expected]);
    }
    let mut world = World::with_roles(CONNECTOR);
    world.settings.io = vec![entry("array", NQN)];
    world.settings.ip_family = IpFamily::Ipv6;
    world.reload(&["192.0.2.11"]);
    assert_eq!(world.wanted_io(), ["array"]);
    assert!(world.notes[0].contains("ip-family"), "{:?}", world.notes);
    world.pass_to_deadline();
    world.resolved(&["2001:db8::1"]);
    assert_eq!(world.wanted_io(), ["2001:db8::1"]);
}

#[test]
fn a_name_of_both_kinds_is_not_complained_of_before_it_was_tried() {
    let mut world = World::new();
    world.settings.discovery = vec![entry("array", "")];
    world.reload(&[FIRST]);
    world.settings.io = vec![entry("array", NQN)];
    world.configure();
    assert_eq!((world.wanted_io(), world.notes.len()), (vec![FIRST], 0), "{:?}", world.notes);
}

#[test]
fn exclusions_apply_to_the_name_and_to_its_addresses() {
    let exclude = |traddr: &str| Exclusion { traddr: traddr.into(), ..Exclusion::default() };
    let mut world = World::with_roles(CONNECTOR);
    world.settings.io = vec![entry("array", NQN)];
    world.settings.exclusions = vec![exclude(FIRST)];
    world.reload(&[FIRST, SECOND]);
    assert_eq!(world.wanted_io(), [SECOND]);
    world.connect(SECOND, "nvme0");
    world.settings.exclusions = vec![exclude("array")];
    world.configure();
    assert_eq!((world.wanted_io().len(), world.disconnecting()), (0, vec!["nvme0"]));
    assert!(world.resolves.is_empty());
}

#[test]
fn what_the_kernel_has_comes_before_other_addresses() {
    let mut world = world();
    world.up(&serving(&io("nqn.a@192.0.2.12"), "nvme3"));
    world.resolved(&[FIRST, SECOND]);
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.12")), Some("nvme3"));
    world.assert_nothing_to_do();
}

#[test]
fn an_address_replaced_by_a_name_loses_no_storage() {
    // To its own name, to the name of another, and to a name that nobody knows.
    let mut world = World::with_roles(CONNECTOR);
    world.settings.io = vec![entry(FIRST, NQN)];
    world.configure();
    world.connect(FIRST, "nvme0");
    world.settings.io = vec![entry("array", NQN)];
    world.configure();
    world.unresolved();
    assert_eq!(world.disconnecting(), [""; 0]);
    world.pass_to_deadline();
    world.resolved(&[FIRST]);
    assert_eq!((world.device_of(&io("nqn.a@192.0.2.11")), world.disconnecting()), (Some("nvme0"), vec![]));

    world.settings.io = vec![entry("other", NQN)];
    world.reload(&[SECOND]);
    assert_eq!(world.disconnecting(), [""; 0], "not before the other is there");
    world.connect(SECOND, "nvme1");
    assert_eq!(world.disconnecting(), ["nvme0"]);
}

#[test]
fn after_a_restart_what_was_ours_waits_for_its_name() {
    let id = io("nqn.a@192.0.2.11");
    let legacy = Legacy { ours: true, ..Legacy::new(id.clone()) };
    let mut world = World::with_roles(CONNECTOR);
    world.settings.io = vec![entry("array", NQN)];
    world.inherit(vec![legacy], vec![serving(&id, "nvme0")]);
    world.configure();
    world.unresolved();
    assert_eq!(world.disconnecting(), [""; 0]);
    world.pass_to_deadline();
    world.resolved(&[SECOND]);
    assert_eq!(world.disconnecting(), [""; 0], "not before the other is there");
    world.connect(SECOND, "nvme1");
    assert_eq!(world.disconnecting(), ["nvme0"]);
}

#[test]
fn a_name_that_leaves_the_configuration_takes_its_connection_along() {
    let mut world = connected(&[FIRST]);
    world.settings.io.clear();
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme0"]);
}

// ---- discovery controllers -----------------------------------------------------------------------------------------

/// The discovery controller `dc` is connected at [`FIRST`] and lists storage, which is connected.
fn discovery() -> World {
    let mut world = World::new();
    world.settings.discovery = vec![entry("dc", "")];
    world.reload(&[FIRST, SECOND]);
    world.connect(FIRST, "nvme0");
    world.page(&["nqn.a@192.0.2.9"]);
    world.connect("192.0.2.9", "nvme1");
    world.pass_secs(60);
    world
}

#[test]
fn another_address_of_a_discovery_controller_is_no_evidence_against_what_the_first_listed() {
    let mut world = discovery();
    world.removed("nvme0");
    world.resolved(&[FIRST, SECOND]);
    world.fail_probe(FIRST);
    assert_eq!(world.wanted(ControllerKind::Discovery), [FIRST, SECOND]);
    world.connect(SECOND, "nvme2");
    world.page(&["nqn.b@192.0.2.9"]);
    world.pass_secs(600);
    assert_eq!(world.disconnecting(), [""; 0]);
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.9")), Some("nvme1"));
    // Once the administrator says that it is another one by now, what it lists counts.
    world.reload(&[SECOND]);
    assert_eq!(world.wanted(ControllerKind::Discovery), [SECOND]);
    assert_eq!(world.disconnecting(), ["nvme1"]);
}

#[test]
fn after_a_restart_a_name_without_address_is_no_evidence() {
    let source = dc(FIRST).tid;
    let path = io("nqn.a@192.0.2.9");
    let legacy = Legacy { ours: true, sources: vec![source], ..Legacy::new(path.clone()) };
    let mut world = World::new();
    world.settings.discovery = vec![entry("dc", "")];
    world.inherit(vec![legacy], vec![serving(&path, "nvme0")]);
    world.configure();
    world.unresolved();
    world.pass_secs(600);
    assert_eq!(world.disconnecting(), [""; 0]);
    world.resolves.truncate(1);
    world.resolved(&[SECOND]);
    world.connect(SECOND, "nvme1");
    assert_eq!(world.disconnecting(), [""; 0]);
    world.page(&[]);
    assert_eq!(world.disconnecting(), ["nvme0"], "heard, it does not list it");
}

#[test]
fn a_discovery_controller_replaced_by_a_name_is_kept_until_the_name_is_known() {
    let mut world = World::with_discovery();
    world.page(&["nqn.a@192.0.2.9"]);
    world.connect("192.0.2.9", "nvme1");
    world.settings.discovery = vec![entry("dc", "")];
    world.configure();
    world.unresolved();
    world.pass_secs(600);
    assert_eq!(world.disconnecting(), [""; 0]);
    world.resolves.truncate(1);
    world.resolved(&[SECOND]);
    assert_eq!(world.disconnecting(), ["nvme0"]);
    world.disconnect_ok();
    assert_eq!(world.disconnecting(), [""; 0], "what it listed waits for the other");
    world.connect(SECOND, "nvme2");
    world.page(&[]);
    assert_eq!(world.disconnecting(), ["nvme1"]);
}

/// It is left in the same moment in which it takes a referral back.
#[test]
fn a_referral_that_a_named_controller_takes_back_loses_no_storage() {
    let mut world = World::new();
    world.can.notices = false;
    world.settings.discovery = vec![entry("dc", "")];
    world.reload(&[FIRST]);
    world.connect(FIRST, "nvme0");
    world.declining_page(&[">192.0.2.2"]);
    world.disconnect_ok();
    world.connect("192.0.2.2", "nvme1");
    world.page(&["nqn.a@192.0.2.9", "nqn.b@192.0.2.9"]);
    world.let_through("192.0.2.9");
    world.connect_ok("nvme2");
    world.connect_ok("nvme3");
    while world.connecting().is_empty() {
        world.pass_to_deadline();
        world.let_through(FIRST);
    }
    world.connect_ok("nvme4");
    world.page_reads.retain(|(_, device)| device == "nvme4");
    world.declining_page(&["nqn.a@192.0.2.9"]);
    assert_eq!(world.disconnecting(), ["nvme4", "nvme1"]);
    world.resolved(&[FIRST]);
    assert_eq!(world.disconnecting(), ["nvme4", "nvme1"]);
}
