//! Discovery controllers that announce themselves: known, tried, kept and forgotten.

use super::*;
use crate::core::Report;
use crate::core::announcement::{Announcement, Claims};
use crate::core::finder::Origin;

const OTHER: &str = "192.0.2.2";
const HOUR: u64 = 3600;
const PATH: &str = "nqn.a@192.0.2.9%eth0";

fn announcement(protocol: &str, address: &str, interface: &str) -> Announcement {
    let claims = Claims { protocol: Some(protocol.as_bytes()), subsysnqn: None, address, port: 8009, interface };
    Announcement::new(claims).unwrap()
}

/// The discovery controller at this address, found on eth0.
fn found(traddr: &str) -> LinkId {
    link(ControllerKind::Discovery, traddr, "8009", DISCOVERY_NQN, "eth0")
}

impl World {
    /// These TCP discovery controllers are announced on eth0, and no others.
    pub(super) fn announce(&mut self, addresses: &[&str]) {
        let all = addresses.iter().map(|address| announcement("tcp", address, "eth0"));
        self.event(Event::Announced(all.collect()));
    }

    fn origin(&self, id: &LinkId) -> Option<Origin> {
        self.machine.finder().unwrap().origin(&id.tid)
    }

    fn is_known(&self, id: &LinkId) -> bool {
        self.machine.links().is_wanted(id)
    }
}

/// [`DC`] is announced and connected as nvme0, and lists [`PATH`], which is connected as nvme1.
fn world(persistence: Persistence) -> World {
    let mut world = World::new();
    world.settings.persistence = persistence;
    world.configure();
    world.announce(&[DC]);
    world.connect(DC, "nvme0");
    world.page(&["nqn.a@192.0.2.9"]);
    world.connect("192.0.2.9", "nvme1");
    world.pass_secs(60);
    world
}

fn seconds(seconds: u64) -> Persistence {
    Persistence::For(Duration::from_secs(seconds))
}

#[test]
fn an_announced_controller_becomes_storage() {
    let world = world(Persistence::Forever);
    assert_eq!(world.origin(&found(DC)), Some(Origin::Discovered));
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"), "bound to the interface it was found on");
}

#[test]
fn a_withdrawn_announcement_ends_no_connection() {
    let mut world = world(seconds(0));
    world.announce(&[]);
    world.pass_secs(100 * HOUR);
    assert!(world.is_known(&found(DC)));
    world.assert_nothing_to_do();
}

#[test]
fn forgotten_once_neither_announced_nor_connected_for_so_long() {
    let mut world = world(seconds(HOUR));
    world.removed("nvme0");
    world.pass_secs(2 * HOUR);
    assert!(world.is_known(&found(DC)), "it is announced");
    world.announce(&[]);
    world.pass_secs(HOUR - 1);
    world.announce(&[DC]);
    world.announce(&[]);
    world.pass_secs(HOUR - 1);
    assert!(world.is_known(&found(DC)), "time starts again");
    world.pass_secs(1);
    assert!(!world.is_known(&found(DC)));
    assert!(world.published.contains(&Change::DiscoveryControllerRemoved));
}

#[test]
fn persistence_zero_is_at_once_and_minus_one_never() {
    for (persistence, known) in [(seconds(0), false), (Persistence::Forever, true)] {
        let mut world = world(persistence);
        world.announce(&[]);
        world.removed("nvme0");
        world.pass_secs(1);
        assert_eq!(world.is_known(&found(DC)), known);
        world.pass_secs(1000 * HOUR);
        assert_eq!(world.is_known(&found(DC)), known);
    }
}

#[test]
fn what_a_forgotten_one_listed_stays_connected() {
    let mut world = world(seconds(0));
    world.announce(&[]);
    world.removed("nvme0");
    world.pass_secs(1);
    assert!(!world.is_known(&found(DC)) && !world.is_known(&io(PATH)));
    world.configure();
    assert_eq!(world.disconnecting(), [""; 0]);
    world.probes.clear();
    world.removed("nvme1");
    assert_eq!(world.probing(), [DC; 0], "but is not connected again");
    // Back, it takes over what is left.
    let mut world = self::world(seconds(0));
    world.announce(&[]);
    world.removed("nvme0");
    world.pass_secs(1);
    world.announce(&[DC]);
    world.connect(DC, "nvme5");
    world.page(&["nqn.a@192.0.2.9"]);
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
}

#[test]
fn what_a_finder_in_another_process_forgot_stays_connected_what_it_excluded_does_not() {
    for connected in [false, true] {
        let mut world = World::with_roles(CONNECTOR);
        world.configure();
        let report = |connected| Report {
            source: dc(DC).tid,
            testimony: fresh(&["nqn.a@192.0.2.9"]),
            referrals: BTreeSet::new(),
            origin: Origin::Discovered,
            connected,
        };
        world.event(Event::FinderReports(vec![report(true)]));
        world.connect("192.0.2.9", "nvme1");
        world.event(Event::FinderReports(vec![report(connected)]));
        world.event(Event::FinderReports(vec![]));
        assert_eq!(world.disconnecting().len(), usize::from(connected));
        assert!(!world.is_known(&io("nqn.a@192.0.2.9")));
    }
}

#[test]
fn announced_later_than_the_configuration_changed() {
    let mut world = World::with_discovery();
    world.announce(&[OTHER]);
    world.connect(OTHER, "nvme5");
    world.page_reads.swap(0, 1);
    world.page(&["nqn.a@192.0.2.9"]);
    world.page(&[]);
    world.connect("192.0.2.9", "nvme1");
    // A new one is configured in place of another; what is announced lists on.
    world.settings.discovery = vec![entry("192.0.2.3", "")];
    world.configure();
    world.disconnect_ok();
    world.connect("192.0.2.3", "nvme6");
    world.page(&[]);
    assert_eq!(world.disconnecting(), [""; 0]);
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
}

#[test]
fn a_change_of_persistence_holds_for_those_out_of_sight() {
    let mut world = world(Persistence::Forever);
    world.announce(&[]);
    world.removed("nvme0");
    world.pass_secs(2 * HOUR);
    world.settings.persistence = seconds(3 * HOUR);
    world.configure();
    world.pass_secs(HOUR - 1);
    assert!(world.is_known(&found(DC)));
    world.pass_secs(1);
    assert!(!world.is_known(&found(DC)));
}

#[test]
fn an_announcement_that_never_led_to_a_connection_goes_when_withdrawn() {
    let mut world = world(Persistence::Forever);
    world.announce(&[DC, OTHER]);
    world.fail_probe(OTHER);
    assert!(world.is_known(&found(OTHER)));
    world.announce(&[DC]);
    assert!(!world.is_known(&found(OTHER)));
    world.pass_secs(HOUR);
    world.assert_nothing_to_do();
}

#[test]
fn what_was_never_reached_is_tried_less_and_less_and_at_once_when_announced_again() {
    let mut world = World::new();
    world.configure();
    world.announce(&[DC]);
    for wait in [2, 5, 10, 30, 60, 300, 600, 600] {
        world.fail_probe(DC);
        let before = world.now;
        world.pass_to_deadline();
        let waited = (world.now - before).as_secs_f64();
        assert!(waited <= f64::from(wait) && waited >= 0.75 * f64::from(wait), "{waited} s, not {wait} s");
        assert_eq!(world.probing(), [DC]);
    }
    world.fail_probe(DC);
    world.announce(&[]);
    world.announce(&[DC]);
    assert_eq!(world.probing(), [DC]);
}

#[test]
fn what_was_connected_is_tried_as_often_as_any_other_and_at_once_when_announced_again() {
    let mut world = world(Persistence::Forever);
    world.announce(&[]);
    world.removed("nvme0");
    for _ in 0..20 {
        world.fail_probe(DC);
        world.pass_to_deadline();
    }
    let before = world.now;
    world.fail_probe(DC);
    world.pass_secs(1);
    world.announce(&[DC]);
    assert_eq!(world.probing(), [DC]);
    world.fail_probe(DC);
    world.pass_to_deadline();
    assert!(world.now - before < Duration::from_secs(5), "the shortest waits again");
}

#[test]
fn haste_does_not_let_a_portal_hold_up_the_host_again() {
    let mut world = World::new();
    world.configure();
    world.announce(&[DC]);
    world.answer_probe(DC);
    world.pass_secs(60);
    world.connect_fails(Errno::EIO);
    world.announce(&[]);
    for _ in 0..5 {
        world.announce(&[DC, OTHER]);
        world.announce(&[DC]);
    }
    assert_eq!((world.probing(), world.connecting()), (vec![OTHER; 5], vec![]));
    world.probes.clear();
    world.pass_secs(600);
    assert_eq!(world.probing(), [DC]);
}

#[test]
fn rdma_is_bound_to_no_interface_and_nobody_is_with_ignore_iface() {
    let mut world = World::new();
    world.configure();
    world.event(Event::Announced([announcement("roce", DC, "eth0")].into()));
    let [id] = world.machine.links().wanted(ControllerKind::Discovery).collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!((id.tid.transport(), id.tid.host_iface()), (Transport::Rdma, ""));
    world.settings.ignore_iface = true;
    world.configure();
    world.announce(&[OTHER]);
    assert!(world.is_known(&dc(OTHER)));
}

#[test]
fn excluded_by_interface_before_and_after() {
    let exclusion = Exclusion { host_iface: "eth0".into(), ..Exclusion::default() };
    let mut world = world(Persistence::Forever);
    world.settings.exclusions = vec![exclusion];
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme0", "nvme1"], "excluded ones leave at once, with what they listed");
    let both =
        [announcement("tcp", OTHER, "eth0"), announcement("roce", OTHER, "eth0"), announcement("tcp", OTHER, "eth1")];
    world.event(Event::Announced(both.into()));
    let known: Vec<_> = world.machine.links().wanted(ControllerKind::Discovery).map(|id| id.tid.host_iface()).collect();
    assert_eq!(known, ["eth1"]);
}

#[test]
fn a_configured_one_is_configured_whoever_announces_it() {
    let mut world = World::new();
    world.settings.discovery = vec![via("eth0", entry(DC, ""))];
    world.settings.persistence = seconds(0);
    world.configure();
    world.announce(&[DC]);
    assert_eq!(world.origin(&found(DC)), Some(Origin::Configured));
    world.announce(&[]);
    world.pass_secs(HOUR);
    world.announce(&[DC]);
    world.settings.discovery.clear();
    world.configure();
    assert_eq!(world.origin(&found(DC)), Some(Origin::Discovered));
    world.settings.discovery = vec![via("eth0", entry(DC, ""))];
    world.configure();
    world.announce(&[]);
    assert_eq!(world.origin(&found(DC)), Some(Origin::Configured));
    world.settings.discovery.clear();
    world.configure();
    assert!(!world.is_known(&found(DC)));
}

#[test]
fn a_restart_knows_them_and_disconnects_nothing_meanwhile() {
    let before = world(seconds(HOUR));
    let legacy = before.machine.legacy(before.now);
    let devices: Vec<Device> = before.machine.links().devices().cloned().collect();
    let mut world = World::new();
    world.settings.persistence = seconds(HOUR);
    world.inherit(legacy.clone(), devices);
    world.configure();
    assert_eq!(world.disconnecting(), [""; 0]);
    assert_eq!(world.origin(&found(DC)), Some(Origin::Discovered));
    assert_eq!((world.device_of(&found(DC)), world.device_of(&io(PATH))), (Some("nvme0"), Some("nvme1")));
    assert_eq!(world.machine.legacy(world.now), legacy);
    world.page(&["nqn.a@192.0.2.9"]);
    world.pass_secs(2 * HOUR);
    world.assert_nothing_to_do();
}

#[test]
fn age_outlives_a_restart_but_there_is_time_to_announce_again() {
    let mut before = world(seconds(HOUR));
    before.announce(&[]);
    before.removed("nvme0");
    before.pass_secs(HOUR - 1);
    let legacy = before.machine.legacy(before.now);
    for announced in [false, true] {
        let mut world = World::new();
        world.settings.persistence = seconds(HOUR);
        world.inherit(legacy.clone(), vec![]);
        world.configure();
        world.pass_secs(59);
        assert!(world.is_known(&found(DC)));
        if announced {
            world.announce(&[DC]);
        }
        world.pass_secs(1);
        assert_eq!(world.is_known(&found(DC)), announced);
    }
}

#[test]
fn floods_are_bounded_and_leave_nothing() {
    let mut world = World::new();
    world.configure();
    let flood = |third: u8| (0..=255).map(move |last| announcement("tcp", &format!("198.51.{third}.{last}"), "eth0"));
    for third in 0..4 {
        world.event(Event::Announced(flood(third).collect()));
        world.probes.clear();
    }
    world.event(Event::Announced(flood(1).chain(flood(2)).collect()));
    assert_eq!(world.machine.links().wanted(ControllerKind::Discovery).count(), 256);
    world.announce(&[]);
    assert!(world.machine.links().is_empty() && world.machine.finder().unwrap().is_empty());
}
