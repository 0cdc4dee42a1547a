//! Discovery controllers that others list: followed, kept, and let go.

use super::*;
use crate::core::Report;
use crate::core::finder::Origin;

const B: &str = "192.0.2.2";
const C: &str = "192.0.2.3";
const D: &str = "192.0.2.4";
const UNIQUE: &str = "nqn.dc1";

fn at(nqn: &str, traddr: &str) -> LinkId {
    link(ControllerKind::Discovery, traddr, "8009", nqn, "")
}

impl World {
    fn origin_of(&self, id: &LinkId) -> Option<Origin> {
        self.machine.finder().unwrap().origin(&id.tid)
    }

    fn knows(&self, traddr: &str) -> bool {
        assert_eq!(self.origin_of(&dc(traddr)).is_some(), self.machine.links().is_wanted(&dc(traddr)), "{traddr}");
        self.origin_of(&dc(traddr)).is_some()
    }

    /// How many wanted discovery controllers there are.
    fn roster(&self) -> usize {
        let wanted = self.machine.links().wanted(ControllerKind::Discovery).count();
        assert_eq!(wanted, self.machine.finder().unwrap().controllers().count());
        wanted
    }

    fn list(&mut self, device: &str, entries: &[&str]) {
        self.aen(device);
        self.page_of(device, entries);
    }

    fn count_notes(&self, text: &str) -> usize {
        self.notes.iter().filter(|note| note.contains(text)).count()
    }

    /// Connects a controller of the kernel's that reports this NQN, whatever it was asked for by.
    fn connect_as(&mut self, traddr: &str, name: &str, subsysnqn: &str) {
        self.let_through(traddr);
        let (ticket, id) = self.connects.remove(0);
        assert_eq!(id.tid.traddr(), traddr);
        self.ours.insert(name.to_owned());
        let device = Device { subsysnqn: subsysnqn.into(), ..serving(&id, name) };
        self.event(Event::Connected { ticket, outcome: Ok(Some(device)) });
    }
}

/// [`DC`] (nvme0) refers to [`B`] (nvme5), which lists [`PATH`] (nvme1).
fn world() -> World {
    let mut world = World::with_discovery();
    world.page(&[&format!(">{B}")]);
    world.connect(B, "nvme5");
    world.page_of("nvme5", &[PATH]);
    world.connect("192.0.2.9", "nvme1");
    world.pass_secs(60);
    world
}

/// The same with another process as the finder, whose words these are.
fn report(source: &str, origin: Origin, testimony: Testimony, referrals: &[&str]) -> Report {
    let referrals = referrals.iter().map(|traddr| dc(traddr).tid).collect();
    Report { source: dc(source).tid, testimony, referrals, origin, connected: true }
}

fn connector_world() -> World {
    let mut world = World::with_roles(CONNECTOR);
    world.configure();
    world.event(Event::FinderReports(vec![
        report(DC, Origin::Configured, fresh(&[]), &[B]),
        report(B, Origin::Referral, fresh(&[PATH]), &[]),
    ]));
    world.connect("192.0.2.9", "nvme1");
    world.pass_secs(60);
    world
}

#[test]
fn a_referral_becomes_storage() {
    let world = world();
    assert_eq!(world.origin_of(&dc(B)), Some(Origin::Referral));
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
}

#[test]
fn chains_are_followed_to_their_end_and_bounded() {
    let mut world = World::with_discovery();
    for hop in 0..20 {
        let [this, next] = [hop, hop + 1].map(|number| format!("198.51.100.{number}"));
        let device = if hop == 0 { "nvme0".to_owned() } else { format!("nvme{}", 10 + hop) };
        if hop > 0 {
            if !world.knows(&this) {
                assert_eq!(hop, 9);
                break;
            }
            world.connect(&this, &device);
        }
        world.page_of(&device, &[&format!(">{next}")]);
    }
    assert_eq!((world.roster(), world.count_notes("more than 8 steps")), (9, 1));
    // A shorter way leads further.
    world.list("nvme0", &[">198.51.100.1", ">198.51.100.5"]);
    assert!(world.knows("198.51.100.9"));
    // What is known stays, however long the way gets.
    world.connect("198.51.100.9", "nvme30");
    world.page_of("nvme30", &[]);
    world.list("nvme0", &[">198.51.100.1"]);
    assert!(world.knows("198.51.100.9"));
}

#[test]
fn diamonds_loops_and_self_references_do_no_harm() {
    let mut world = World::with_discovery();
    let [to_b, to_c, to_d, to_a] = [B, C, D, DC].map(|traddr| format!(">{traddr}"));
    world.page(&[&to_b, &to_c, &to_a, ">::ffff:192.0.2.1", &format!("={DC}"), &to_b]);
    for (traddr, device) in [(B, "nvme5"), (C, "nvme6")] {
        world.let_through(traddr);
        let index = world.connects.iter().position(|(_, id)| id.tid.traddr() == traddr).unwrap();
        world.connects.swap(0, index);
        world.connect_ok(device);
    }
    world.page_of("nvme5", &[&to_d, &to_a]);
    world.page_of("nvme6", &[&to_d, &to_b]);
    world.connect(D, "nvme7");
    world.page_of("nvme7", &[&to_a, &to_b, &to_c, &to_d, PATH]);
    assert_eq!(world.roster(), 4);
    assert_eq!(world.origin_of(&dc(DC)), Some(Origin::Configured), "whoever refers to it");
    world.connect("192.0.2.9", "nvme1");

    world.list("nvme5", &[]);
    assert!(world.knows(D), "the other one still lists it");
    world.list("nvme0", &[&to_b]);
    // C and D refer to each other, but nobody who is wanted refers to either.
    assert_eq!(world.roster(), 2);
    assert_eq!(world.disconnecting(), ["nvme6", "nvme7"]);
}

#[test]
fn a_withdrawn_referral_goes_and_its_storage_stays() {
    let mut world = world();
    world.list("nvme0", &[]);
    assert!(!world.knows(B) && !world.machine.links().is_wanted(&io(PATH)));
    assert_eq!(world.disconnecting(), ["nvme5"], "the discovery connection only");
    assert_eq!(world.count_notes("no discovery controller refers to it any more"), 1);
    world.disconnect_ok();
    world.configure();
    world.assert_nothing_to_do();
    // Back, it takes over what is left.
    world.list("nvme0", &[&format!(">{B}")]);
    world.connect(B, "nvme6");
    world.page_of("nvme6", &[PATH]);
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
    world.list("nvme6", &[]);
    assert_eq!(world.disconnecting(), ["nvme1"], "taken back by who listed it");
}

#[test]
fn what_moved_to_another_referral_is_not_lost() {
    let mut world = world();
    world.list("nvme0", &[&format!(">{C}")]);
    world.disconnect_ok();
    world.connect(C, "nvme6");
    world.page_of("nvme6", &[PATH]);
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
    world.assert_nothing_to_do();
}

#[test]
fn an_unreachable_lister_takes_nothing_back() {
    let mut world = world();
    world.aen("nvme0");
    world.page_read(Err("no".into()));
    world.removed("nvme0");
    world.fail_probe(DC);
    world.removed("nvme5");
    world.fail_probe(B);
    assert!(world.knows(B));
    assert_eq!((world.disconnecting(), world.device_of(&io(PATH))), (vec![], Some("nvme1")));
}

#[test]
fn a_lister_that_the_administrator_drops_takes_its_referrals_and_their_storage_with_it() {
    let mut world = world();
    world.settings.discovery.clear();
    world.configure();
    assert_eq!(world.roster(), 0);
    assert_eq!(world.disconnecting(), ["nvme0", "nvme5", "nvme1"]);
}

#[test]
fn who_replaces_the_lister_is_heard_first_with_its_referrals() {
    for same in [true, false] {
        let mut world = world();
        world.settings.discovery = vec![entry(C, "")];
        world.configure();
        assert_eq!(world.disconnecting(), ["nvme0", "nvme5"]);
        world.disconnect_ok();
        world.disconnect_ok();
        world.connect(C, "nvme6");
        let referral = if same { B } else { D };
        world.page_of("nvme6", &[&format!(">{referral}")]);
        assert_eq!(world.disconnecting(), [""; 0]);
        world.connect(referral, "nvme7");
        world.page_of("nvme7", &[PATH]);
        assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
        world.assert_nothing_to_do();
    }
}

#[test]
fn excluded_and_of_a_disabled_family_before_and_after() {
    let mut world = world();
    let excluded = Exclusion { traddr: B.into(), ..Exclusion::default() };
    world.settings.exclusions = vec![excluded];
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme5", "nvme1"]);
    world.list("nvme0", &[&format!(">{B}"), &format!(">{C}"), ">0.0.0.0", ">host.example", ">nonsense@192.0.2.8"]);
    assert_eq!((world.knows(B), world.knows(C), world.roster()), (false, true, 2));
    world.settings.exclusions.clear();
    world.configure();
    assert!(world.knows(B), "without another read");
}

#[test]
fn the_strongest_origin_counts_and_changes() {
    let mut world = world();
    let origin = |world: &World| world.origin_of(&dc(B));
    world.settings.discovery.push(entry(B, ""));
    world.configure();
    assert_eq!(origin(&world), Some(Origin::Configured));
    world.list("nvme0", &[]);
    assert_eq!(origin(&world), Some(Origin::Configured));
    world.list("nvme0", &[&format!(">{B}")]);
    world.settings.discovery.pop();
    world.published.clear();
    world.configure();
    assert_eq!(origin(&world), Some(Origin::Referral));
    assert!(matches!(world.published[..], [Change::LogPage { .. }]), "clients are told: {:?}", world.published);
    world.pass_secs(600);
    world.assert_nothing_to_do();
    // Announced without being bound to an interface it is the same one.
    world.settings.ignore_iface = true;
    world.settings.persistence = Persistence::For(Duration::ZERO);
    world.configure();
    world.announce(&[B]);
    assert_eq!(origin(&world), Some(Origin::Discovered));
    world.removed("nvme5");
    world.announce(&[]);
    world.pass_secs(1);
    assert_eq!(origin(&world), Some(Origin::Referral), "forgotten, but still referred to");
    world.settings.discovery.push(entry(B, ""));
    world.configure();
    world.settings.discovery.remove(0);
    world.configure();
    assert_eq!(origin(&world), Some(Origin::Configured));
    assert_eq!(world.disconnecting(), ["nvme0"]);
}

#[test]
fn a_referral_goes_with_an_announced_lister_that_is_forgotten_and_its_storage_stays() {
    let mut world = World::new();
    world.settings.ignore_iface = true;
    world.settings.persistence = Persistence::For(Duration::ZERO);
    world.configure();
    world.announce(&[DC]);
    world.connect(DC, "nvme0");
    world.page(&[&format!(">{B}")]);
    world.connect(B, "nvme5");
    world.page_of("nvme5", &[PATH]);
    world.connect("192.0.2.9", "nvme1");
    world.announce(&[]);
    assert_eq!(world.roster(), 2);
    world.removed("nvme0");
    world.pass_secs(1);
    assert_eq!((world.roster(), world.disconnecting()), (0, vec!["nvme5"]));
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme5"]);
}

#[test]
fn referrals_inherit_how_their_lister_is_reached() {
    let mut world = World::new();
    world.settings.discovery = vec![via("eth3", entry("fe80::1%eth3", ""))];
    world.configure();
    world.connect("fe80::1%eth3", "nvme0");
    world.page(&[">fe80::2", ">fe80::3%eno1", ">192.0.2.2"]);
    let known: Vec<_> = world.machine.links().wanted(ControllerKind::Discovery).collect();
    let known: Vec<_> = known.iter().map(|id| (id.tid.traddr(), id.tid.host_iface(), id.tid.host_nqn())).collect();
    let expected = ["192.0.2.2", "fe80::1%eth3", "fe80::2%eth3", "fe80::3%eth3"].map(|traddr| (traddr, "eth3", HOST));
    assert_eq!(known, expected);
}

#[test]
fn floods_are_bounded_and_do_not_displace_what_is_there() {
    let mut world = World::with_discovery();
    let pages: Vec<Vec<String>> =
        (0..2u8).map(|third| (0..200).map(|last| format!(">198.51.{third}.{last}")).collect()).collect();
    let [first, second] = &pages[..] else { panic!() };
    let of = |pages: &[&[String]]| pages.concat();
    let list = |world: &mut World, entries: Vec<String>| {
        world.aen("nvme0");
        world.page_of("nvme0", &entries.iter().map(String::as_str).collect::<Vec<_>>());
    };
    list(&mut world, of(&[second]));
    list(&mut world, of(&[first, second]));
    assert_eq!((world.roster(), world.count_notes("256 discovery controllers are known")), (257, 1));
    assert!(second.iter().all(|entry| world.knows(&entry[1..])), "nobody is displaced");
    list(&mut world, of(&[first, second]));
    assert_eq!((world.roster(), world.count_notes("256 discovery controllers are known")), (257, 1));
    // Room that is made is used.
    list(&mut world, of(&[first, &second[..100]]));
    world.aen("nvme0");
    assert_eq!(world.roster(), 257);
    list(&mut world, of(&[first, &second[..20]]));
    assert_eq!(world.roster(), 221);
    list(&mut world, vec![]);
    assert_eq!(world.roster(), 1);
}

#[test]
fn a_restart_knows_referrals_before_anybody_is_heard() {
    let before = world();
    let legacy = before.machine.legacy(before.now);
    let devices: Vec<Device> = before.machine.links().devices().cloned().collect();
    let restarted = |devices: Vec<Device>| {
        let mut world = World::new();
        world.settings.discovery = vec![entry(DC, "")];
        world.inherit(legacy.clone(), devices);
        world.configure();
        world
    };
    let mut world = restarted(devices.clone());
    assert_eq!(world.origin_of(&dc(B)), Some(Origin::Referral));
    assert_eq!((world.device_of(&dc(B)), world.device_of(&io(PATH))), (Some("nvme5"), Some("nvme1")));
    assert_eq!(world.machine.legacy(world.now), legacy);
    world.page_of("nvme5", &[PATH]);
    world.page_of("nvme0", &[&format!(">{B}")]);
    world.pass_secs(60);
    world.assert_nothing_to_do();

    // The lister is away: nothing changes until it is heard.
    let mut world = restarted(devices[1..].to_vec());
    world.fail_probe(DC);
    assert!(world.knows(B));
    world.page_of("nvme5", &[PATH]);
    world.pass_to_deadline();
    world.connect(DC, "nvme9");
    world.page_of("nvme9", &[]);
    assert_eq!((world.roster(), world.disconnecting()), (1, vec!["nvme5"]));

    // Dropped by the administrator meanwhile.
    let mut world = World::new();
    world.inherit(legacy.clone(), devices);
    world.configure();
    assert_eq!((world.roster(), world.disconnecting().len()), (0, 3));
}

#[test]
fn asked_by_either_name_it_is_one_connection_and_one_read() {
    let mut world = World::new();
    world.settings.discovery = vec![entry(DC, ""), entry(DC, UNIQUE)];
    world.configure();
    world.connect_as(DC, "nvme0", UNIQUE);
    assert_eq!(world.page_reads.len(), 1);
    world.page(&[PATH]);
    world.connect("192.0.2.9", "nvme1");
    let state = |world: &World, nqn| world.machine.finder().unwrap().page_state(&at(nqn, DC).tid).as_str();
    assert_eq!((state(&world, DISCOVERY_NQN), state(&world, UNIQUE)), ("fresh", "fresh"));
    world.aen("nvme0");
    world.page_read(Err("no".into()));
    assert_eq!((state(&world, DISCOVERY_NQN), state(&world, UNIQUE)), ("stale", "stale"));
    world.pass_secs(60);
    // Whose name is dropped while it is read hands over to the other.
    world.settings.discovery.remove(0);
    world.configure();
    assert_eq!(world.page_reads.len(), 2, "the first answer will not count");
    world.page_read(Ok(page(&[]).into()));
    assert_eq!(world.disconnecting(), [""; 0]);
    world.page(&[PATH]);
    assert_eq!(state(&world, UNIQUE), "fresh");
    world.assert_nothing_to_do();
}

#[test]
fn a_referral_to_a_known_controller_by_another_name_is_not_followed() {
    let mut world = World::with_discovery();
    let to = |nqn: &str, traddr: &str| format!(">{nqn}@{traddr}");
    let two = [to(UNIQUE, B), format!(">{B}"), format!(">{B}")];
    world.page(&two.each_ref().map(String::as_str));
    assert_eq!(world.roster(), 2, "two names in one page");
    world.connect_as(B, "nvme5", UNIQUE);
    world.page_of("nvme5", &[&to(UNIQUE, B), &to("nqn.dc9", DC)]);
    assert_eq!(world.roster(), 3, "DC calls itself by the well-known name, so this is somebody else");

    let mut world = World::new();
    world.settings.discovery = vec![entry(DC, "")];
    world.configure();
    world.connect_as(DC, "nvme0", UNIQUE);
    world.page(&[&to(UNIQUE, DC)]);
    assert_eq!(world.roster(), 1, "a self reference by its own name");
    world.list("nvme0", &[&to("nqn.other", DC)]);
    assert_eq!(world.roster(), 2);
}

#[test]
fn a_referral_takes_over_from_the_other_name_that_is_dropped() {
    let mut world = World::with_discovery();
    world.page(&[&format!(">{UNIQUE}@{B}")]);
    world.connect_as(B, "nvme5", UNIQUE);
    world.page_of("nvme5", &[PATH]);
    world.connect("192.0.2.9", "nvme1");
    // By the other name from now on, and back.
    for configured in [true, false] {
        world.settings.discovery = vec![entry(DC, "")];
        world.settings.discovery.extend(configured.then(|| entry(B, "")));
        world.configure();
        assert_eq!(world.disconnecting(), [""; 0]);
        while !world.page_reads.is_empty() {
            world.page_of("nvme5", &[PATH]);
        }
    }
    assert_eq!((world.roster(), world.device_of(&io(PATH))), (2, Some("nvme1")));
    world.assert_nothing_to_do();

    let mut world = World::new();
    world.settings.discovery = vec![entry(DC, ""), entry(B, "")];
    world.configure();
    world.answer_probe(DC);
    world.answer_probe(B);
    world.connect_ok("nvme0");
    world.connect_as(B, "nvme5", UNIQUE);
    world.page_of("nvme0", &[&format!(">{UNIQUE}@{B}")]);
    world.page_of("nvme5", &[PATH]);
    world.connect("192.0.2.9", "nvme1");
    assert_eq!(world.roster(), 2);
    world.settings.discovery.pop();
    world.configure();
    assert_eq!((world.roster(), world.disconnecting()), (2, vec![]));
    world.page_of("nvme5", &[PATH]);
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
    world.assert_nothing_to_do();
}

#[test]
fn a_name_that_turns_out_to_be_anothers_is_followed_then() {
    let mut world = World::with_discovery();
    world.page(&[&format!(">{B}"), &format!(">nqn.other@{B}")]);
    assert_eq!(world.roster(), 2);
    world.connect_as(B, "nvme5", UNIQUE);
    assert_eq!(world.roster(), 3);
}

/// The connector's configuration decides, whatever the finder's says.
#[test]
fn with_ignore_iface_no_path_is_bound_to_the_interface_of_its_source() {
    let bound = "nqn.a@192.0.2.9%eth1";
    let report = || Report {
        source: link(ControllerKind::Discovery, DC, "8009", DISCOVERY_NQN, "eth1").tid,
        testimony: fresh(&[bound]),
        referrals: BTreeSet::new(),
        origin: Origin::Configured,
        connected: true,
    };
    let mut world = World::with_roles(CONNECTOR);
    world.settings.ignore_iface = true;
    world.configure();
    world.event(Event::FinderReports(vec![report()]));
    world.connect("192.0.2.9", "nvme1");
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
    for ignore_iface in [false, true] {
        world.removed("nvme1");
        world.probes.clear();
        world.settings.ignore_iface = ignore_iface;
        world.configure();
        world.connect("192.0.2.9", "nvme1");
        world.pass_secs(60);
        assert_eq!(world.device_of(&io(if ignore_iface { PATH } else { bound })), Some("nvme1"));
        world.event(Event::FinderReports(vec![report()]));
        world.assert_nothing_to_do();
    }
    world.settings.ignore_iface = false;
    world.configure();
    assert_eq!((world.probing(), world.disconnecting()), (vec!["192.0.2.9"], vec![]), "it goes through another one");
}

#[test]
fn another_process_is_understood_when_a_referral_is_missing() {
    // Withdrawn by its lister: its storage stays.
    let mut world = connector_world();
    world.event(Event::FinderReports(vec![report(DC, Origin::Configured, fresh(&[]), &[])]));
    assert!(!world.machine.links().is_wanted(&io(PATH)));
    world.event(Event::FinderReports(vec![]));
    assert_eq!(world.disconnecting(), [""; 0]);
    // Dropped with its lister, or excluded, by the administrator.
    for reports in [vec![], vec![report(DC, Origin::Configured, fresh(&[]), &[B])]] {
        let mut world = connector_world();
        world.event(Event::FinderReports(reports));
        assert_eq!(world.disconnecting(), ["nvme1"]);
    }
}

#[test]
fn another_process_that_lost_its_memory_takes_no_storage_down() {
    let stale = || vec![report(DC, Origin::Configured, stale(&[]), &[])];
    let mut world = connector_world();
    world.event(Event::FinderGone);
    world.event(Event::FinderReports(stale()));
    assert_eq!(world.disconnecting(), [""; 0]);
    // Nor if we have been restarted, too.
    let before = connector_world();
    let legacy = before.machine.legacy(before.now);
    let devices = before.machine.links().devices().cloned().collect();
    let mut world = World::with_roles(CONNECTOR);
    world.inherit(legacy, devices);
    world.configure();
    world.event(Event::FinderReports(stale()));
    assert_eq!(world.disconnecting(), [""; 0]);
}
