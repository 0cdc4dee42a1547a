//! Discovery controllers that refer to others: followed wherever they lead, and let go of without harm to the storage behind.

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::guest::{Controller, Daemon, Guest, Namespace, Subsystem};
use crate::sim::log::SUBTYPE_NVME;
use crate::sim::{DISCOVERY_NQN, DcType, Entry, Kind, Recording, Simulator};
use crate::stas::{Form, KERNEL_WAITS, Part, SOON, STACD_CONF, STAFD_CONF, Stas, controller, io_controller, nqn};
use crate::vm::{Kernel, Scenario, scenario};

/// Discovery controllers at ports 8009 and up, and what they may list at port 4420.
struct Fabric<'g> {
    guest: &'g Guest,
    disks: Vec<Subsystem>,
    dcs: Vec<Simulator>,
}

impl<'g> Fabric<'g> {
    fn new(guest: &'g Guest, dcs: u16, disks: usize) -> Self {
        let port = guest.target().tcp_port("127.0.0.1", 4420);
        let disks: Vec<_> = (0..disks).map(|at| guest.target().subsystem(&nqn(&format!("disk{at}")))).collect();
        disks.iter().for_each(|disk| port.link(disk));
        let dcs = (0..dcs).map(|at| Simulator::start(("127.0.0.1", 8009 + at)).unwrap()).collect();
        guest.write(STACD_CONF, KERNEL_WAITS);
        Fabric { guest, disks, dcs }
    }

    /// What discovery controller number `at` lists: these disks, and referrals to these controllers.
    fn list(&self, at: usize, disks: &[usize], referrals: &[usize]) {
        let disks = disks.iter().map(|at| Entry::io(&self.disks[*at].nqn, "127.0.0.1", "4420"));
        let referrals = referrals.iter().map(|at| self.to(*at));
        self.dcs[at].set_entries(disks.chain(referrals));
    }

    fn to(&self, at: usize) -> Entry {
        Entry::referral("127.0.0.1", &self.dcs[at].trsvcid())
    }

    fn nqns(&self, which: std::ops::Range<usize>) -> Vec<&str> {
        self.disks[which].iter().map(|disk| disk.nqn.as_str()).collect()
    }

    fn discovery(&self) -> Vec<Controller> {
        self.guest.controllers().into_iter().filter(Controller::is_discovery).collect()
    }

    /// Just these discovery controllers are connected, each once.
    #[track_caller]
    fn wait_for_roster(&self, expected: &[usize]) {
        let expected: Vec<_> = expected.iter().map(|at| self.dcs[*at].trsvcid()).collect();
        self.guest.wait_until(&format!("these are connected: {expected:?}"), SOON, || {
            let connected = self.discovery().into_iter().filter(Controller::is_live);
            let ports = connected.map(|one| one.address_field("trsvcid").unwrap().to_owned());
            let mut ports: Vec<_> = ports.collect();
            ports.sort_unstable();
            ports == expected && self.discovery().len() == expected.len()
        });
    }

    fn origins(&self) -> String {
        self.guest.run("stafctl", &["ls", "--detailed"]).ok()
    }
}

#[test]
fn followed_in_every_shape() {
    scenario(|guest| followed(guest, Form::TwoDaemons));
}

#[test]
fn followed_in_every_shape_by_one_process() {
    scenario(|guest| followed(guest, Form::OneProcess));
}

#[test]
fn followed_in_every_shape_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(|guest| followed(guest, Form::TwoDaemons));
}

/// A diamond with a tail, loops back to its top, and controllers that refer to themselves.
fn followed(guest: &Guest, form: Form) {
    let fabric = Fabric::new(guest, 5, 3);
    fabric.list(0, &[], &[1, 2, 0]);
    fabric.list(1, &[0], &[3, 0]);
    fabric.list(2, &[0], &[3]);
    fabric.list(3, &[1], &[4, 1, 2, 3]);
    fabric.list(4, &[2], &[0]);
    let mapped = Entry::referral("::ffff:127.0.0.1", &fabric.dcs[4].trsvcid());
    let this = Entry::this_controller(DISCOVERY_NQN, "127.0.0.1", "8999");
    let nonsense = Entry { subtype: SUBTYPE_NVME, ..fabric.to(1) };
    fabric.dcs[4].change_entries(|entries| entries.extend([mapped, this, nonsense]));
    guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
    let mut stas = Stas::start(guest, form);
    stas.wait_for_storage(&fabric.nqns(0..3), SOON);
    fabric.wait_for_roster(&[0, 1, 2, 3, 4]);
    let origins = fabric.origins();
    assert_eq!((origins.matches("configured").count(), origins.matches("referral").count()), (1, 4), "{origins}");
    stas.finder().wait_log("a discovery subsystem is no storage", SOON);
    let storage = guest.live_io_controllers();

    // One way of the diamond goes; the other still leads everywhere.
    fabric.list(0, &[], &[1, 0]);
    fabric.list(3, &[1], &[4, 1, 3]);
    fabric.wait_for_roster(&[0, 1, 3, 4]);
    guest.assert_untouched(&storage);

    // Nothing leads to the rest any more, though they refer to each other. What was listed there stays attached.
    fabric.list(0, &[], &[]);
    fabric.wait_for_roster(&[0]);
    assert_eq!(stas.finder().count_log("no discovery controller refers to it any more"), 4, "{}", stas.finder().log());
    guest.assert_untouched(&storage);

    // Back again, it takes over what is left of its own, and now takes it back itself.
    fabric.list(0, &[], &[4]);
    fabric.wait_for_roster(&[0, 4]);
    guest.wait_until("it is listed again", SOON, || guest.run("stacctl", &["ls"]).ok().contains(&fabric.disks[2].nqn));
    fabric.list(4, &[], &[]);
    guest.wait_for_storage(&fabric.nqns(0..2), SOON);
    guest.assert_untouched(&storage[..2]);
    stas.assert_running();
}

#[test]
fn an_absent_lister_takes_nothing_back() {
    scenario(|guest| absent_lister(guest, Form::TwoDaemons));
}

#[test]
fn an_absent_lister_takes_nothing_back_from_one_process() {
    scenario(|guest| absent_lister(guest, Form::OneProcess));
}

/// The lister is away, the daemons are restarted, and what it referred to works on.
fn absent_lister(guest: &Guest, form: Form) {
    let mut fabric = Fabric::new(guest, 3, 3);
    fabric.list(0, &[0], &[1]);
    fabric.list(1, &[], &[2]);
    fabric.list(2, &[1], &[]);
    guest.write(STAFD_CONF, &format!("reconnect-delay = 1\n{}", controller("127.0.0.1", 8009)));
    let mut stas = Stas::start(guest, form);
    stas.wait_for_storage(&fabric.nqns(0..2), SOON);
    let storage = guest.live_io_controllers();
    for at in [0, 1] {
        fabric.dcs[at].stop_listening();
    }
    let is_lost = || fabric.discovery().iter().filter(|one| !one.is_live()).count() == 2;
    guest.wait_until("their connections are lost", SOON, is_lost);
    fabric.list(2, &[1, 2], &[]);
    guest.wait_for_storage(&fabric.nqns(0..3), SOON);

    stas.end(Part::Both, Daemon::kill);
    stas.start_again();
    // It has been heard anew when this has happened.
    fabric.list(2, &[1], &[]);
    guest.wait_for_storage(&fabric.nqns(0..2), SOON);
    guest.assert_untouched(&storage);
    assert_eq!(fabric.origins().matches("referral").count(), 2);

    for at in [0, 1] {
        fabric.dcs[at].listen().unwrap();
    }
    fabric.wait_for_roster(&[0, 1, 2]);
    fabric.list(0, &[0], &[]);
    fabric.wait_for_roster(&[0]);
    guest.assert_untouched(&storage);
}

#[test]
fn a_lister_is_dropped_and_a_referral_excluded() {
    scenario(|guest| dropped_and_excluded(guest, Form::TwoDaemons));
}

#[test]
fn a_lister_is_dropped_and_a_referral_excluded_in_one_process() {
    scenario(|guest| dropped_and_excluded(guest, Form::OneProcess));
}

/// With the administrator's word the storage goes, too.
fn dropped_and_excluded(guest: &Guest, form: Form) {
    let fabric = Fabric::new(guest, 4, 4);
    fabric.list(0, &[0], &[1]);
    fabric.list(1, &[1], &[]);
    fabric.list(2, &[2], &[3]);
    fabric.list(3, &[3], &[]);
    let both = controller("127.0.0.1", 8009) + &controller("127.0.0.1", 8011);
    guest.write(STAFD_CONF, &both);
    let stas = Stas::start(guest, form);
    stas.wait_for_storage(&fabric.nqns(0..4), SOON);
    let storage = guest.live_io_controllers();

    guest.write(STAFD_CONF, &format!("[[exclude]]\ntrsvcid = 8012\n{both}"));
    stas.finder().reload();
    stas.wait_for_storage(&fabric.nqns(0..3), SOON);
    fabric.wait_for_roster(&[0, 1, 2]);

    guest.write(STAFD_CONF, &controller("127.0.0.1", 8011));
    stas.finder().reload();
    stas.wait_for_storage(&fabric.nqns(2..4), SOON);
    fabric.wait_for_roster(&[2, 3]);
    let kept: Vec<_> = storage.into_iter().filter(|one| one.subsysnqn == fabric.disks[2].nqn).collect();
    guest.assert_untouched(&kept);
}

/// One discovery controller is replaced by another, which knows the same storage by way of a referral.
#[test]
fn a_lister_is_replaced() {
    scenario(|guest| {
        let fabric = Fabric::new(guest, 4, 1);
        fabric.list(0, &[], &[1]);
        fabric.list(1, &[0], &[]);
        fabric.list(2, &[], &[3]);
        fabric.list(3, &[0], &[]);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let stas = Stas::start(guest, Form::TwoDaemons);
        stas.wait_for_storage(&fabric.nqns(0..1), SOON);
        let storage = guest.live_io_controllers();
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8011));
        stas.finder().reload();
        fabric.wait_for_roster(&[2, 3]);
        guest.assert_untouched(&storage);
    });
}

/// More than anybody means: bounded, said once, and the rest works.
#[test]
fn three_hundred_referrals() {
    scenario(|guest| {
        let fabric = Fabric::new(guest, 2, 1);
        fabric.list(1, &[0], &[]);
        let dead = (0..299).map(|at| Entry::referral(&format!("127.1.{}.{}", at / 100, at % 100 + 1), "8009"));
        let all: Vec<_> = [fabric.to(1)].into_iter().chain(dead).collect();
        fabric.dcs[0].set_entries(all.clone());
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let mut stas = Stas::start(guest, Form::OneProcess);
        stas.wait_for_storage(&fabric.nqns(0..1), SOON);
        let bound = "256 discovery controllers are known from referrals";
        stas.finder().wait_log(bound, SOON);
        let listed = guest.run("stafctl", &["ls"]).ok();
        assert_eq!(listed.lines().count(), 1 + 257, "{listed}");
        fabric.dcs[0].set_entries(all);
        stas.finder().wait_log("(generation 2)", SOON);
        fabric.dcs[0].set_entries([fabric.to(1)]);
        guest.wait_until("the others are gone", SOON, || guest.run("stafctl", &["ls"]).ok().lines().count() == 3);
        assert_eq!(stas.finder().count_log(bound), 1);
        stas.assert_running();
    });
}

#[test]
fn two_names_are_one_controller() {
    scenario(two_names);
}

#[test]
fn two_names_are_one_controller_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(two_names);
}

/// TP8013: asked for by the well-known NQN and by its own, in the configuration and by referrals.
fn two_names(guest: &Guest) {
    let fabric = Fabric::new(guest, 2, 2);
    let [own, other] = ["dc", "other"].map(nqn);
    for (at, name) in [(0, &own), (1, &other)] {
        fabric.dcs[at].behave(|b| {
            b.identity.unique_nqn = Some(name.clone());
            b.identity.dctype = DcType::Ddc;
        });
    }
    let named = |at: usize, name: &str| Entry { subnqn: name.to_owned(), ..fabric.to(at) };
    let disk = |at: usize| Entry::io(&fabric.disks[at].nqn, "127.0.0.1", "4420");
    fabric.dcs[0].set_entries([disk(0), named(0, &own), fabric.to(0), named(1, &other), fabric.to(1)]);
    fabric.dcs[1].set_entries([named(0, &own), fabric.to(0), fabric.to(1)]);
    let by_own_name = controller("127.0.0.1", 8009) + &format!("nqn = \"{own}\"\n");
    guest.write(STAFD_CONF, &(controller("127.0.0.1", 8009) + &by_own_name));
    let stas = Stas::start(guest, Form::TwoDaemons);
    stas.wait_for_storage(&fabric.nqns(0..1), SOON);
    fabric.wait_for_roster(&[0, 1]);
    let connects = || fabric.dcs.iter().map(|dc| dc.recording().count(Kind::Connect)).collect::<Vec<_>>();
    assert_eq!(connects(), [1, 1]);
    assert_eq!(fabric.origins().matches("referral").count(), 1);
    // Listed by both names, with the same connection, and read once for both.
    let whole_pages = |seen: &Recording| seen.log_reads().filter(|read| !read.rae).count();
    fabric.dcs[0].clear_recording();
    fabric.dcs[0].set_entries([disk(0), disk(1), named(1, &other)]);
    stas.wait_for_storage(&fabric.nqns(0..2), SOON);
    assert_eq!(whole_pages(&fabric.dcs[0].recording()), 1);
    for name in [DISCOVERY_NQN, own.as_str()] {
        let page = guest.run("stafctl", &["dlp", "-a", "127.0.0.1", "-s", "8009", "-n", name]).ok();
        assert!(page.contains(&fabric.disks[1].nqn), "{page}");
    }

    // By its own name only, then by the known one only.
    let storage = guest.controllers();
    for conf in [by_own_name, controller("127.0.0.1", 8009)] {
        guest.write(STAFD_CONF, &conf);
        stas.finder().reload();
        guest.wait_until("one name is left", SOON, || fabric.origins().matches("configured").count() == 1);
        guest.assert_untouched(&storage);
        assert_eq!(guest.controllers().len(), 4);
    }
}

/// What one controller is given in the configuration holds for it alone; a referral gets what holds for all.
#[test]
fn options_of_one_controller() {
    scenario(|guest| {
        let fabric = Fabric::new(guest, 2, 2);
        fabric.list(0, &[], &[1]);
        fabric.list(1, &[0], &[]);
        let finds = format!("kato = 11\n{}kato = 7\nctrl-loss-tmo = 80\n", controller("127.0.0.1", 8009));
        guest.write(STAFD_CONF, &finds);
        let connects = io_controller("127.0.0.1", 4420, &fabric.disks[1].nqn) + "kato = 9\nreconnect-delay = 6\n";
        guest.write(STACD_CONF, &format!("kato = 13\nreconnect-delay = 60\n{connects}"));
        let stas = Stas::start(guest, Form::OneProcess);
        stas.wait_for_storage(&fabric.nqns(0..2), SOON);
        fabric.wait_for_roster(&[0, 1]);
        let attributes = |controller: &Controller| {
            ["kato", "ctrl_loss_tmo", "reconnect_delay"].map(|attribute| {
                let value = std::fs::read_to_string(format!("/sys/class/nvme/{}/{attribute}", controller.name));
                value.unwrap().trim_end().to_owned()
            })
        };
        let mut discovery = fabric.discovery();
        discovery.sort_by_key(|one| one.address_field("trsvcid").map(str::to_owned));
        let all: Vec<_> =
            discovery.iter().chain(&guest.wait_for_storage(&fabric.nqns(0..2), SOON)).map(attributes).collect();
        assert_eq!(all, [["7", "80", "10"], ["11", "600", "10"], ["13", "600", "60"], ["9", "600", "6"]]);
    });
}

/// The far machine's own name for its interface means nothing here; and with `ignore-iface` no path is bound.
#[test]
fn link_local_addresses_and_interfaces() {
    scenario(|guest| {
        let far = guest.namespace("far", "fe80::1/64", "fe80::2/64");
        far.run("ip", &["address", "flush", "dev", "uplink", "scope", "link"]).ok();
        far.run("ip", &["address", "add", "fe80::2/64", "dev", "uplink", "nodad"]).ok();
        let disk = guest.target().subsystem(&nqn("far"));
        guest.target().tcp_port("::", 4420).link_in(&far, &disk);
        let [first, second] = ["[::]:8009", "[::]:8010"].map(|address| start_in(&far, address));
        first.set_entries([Entry::referral("fe80::2%uplink", "8010"), Entry::referral("fe80::2", "8010")]);
        second.set_entries([Entry::io(&disk.nqn, "fe80::2%uplink", "4420")]);
        let conf = format!("{}host-iface = \"far\"\n", controller("fe80::2%far", 8009));
        guest.write(STAFD_CONF, &conf);
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        stas.wait_for_storage(&[&disk.nqn], SOON);
        let found = guest.live_io_controllers();
        assert_eq!(found[0].address_field("traddr"), Some("fe80::2%far"));
        assert_eq!(found[0].address_field("host_iface"), Some("far"));
        let described = guest.run("stacctl", &["ls", "-d", "-o", "json"]).ok();
        assert!(described.contains("uplink"), "the entry it comes from: {described}");
        let discovery = guest.controllers().into_iter().filter(Controller::is_discovery);
        let ways: Vec<_> =
            discovery.map(|one| (one.address_field("host_iface").map(str::to_owned), one.state)).collect();
        assert_eq!(ways, [(); 2].map(|()| (Some("far".to_owned()), "live".to_owned())));

        // stacd alone is told not to bind; what stands stays, and holds for the next connection.
        guest.write(STACD_CONF, "ignore-iface = true\n");
        stas.connector().reload();
        guest.wait_until("it is listed unbound", SOON, || {
            let listed = guest.run("stacctl", &["ls", "-o", "json"]).ok().replace(' ', "");
            listed.contains(r#""host-iface":"""#)
        });
        guest.assert_untouched(&found);
        guest.disconnect(&found[0].name);
        stas.wait_for_storage(&[&disk.nqn], SOON);
        let again = guest.live_io_controllers();
        assert_eq!(again[0].address_field("traddr"), Some("fe80::2%far"));
        assert_eq!(again[0].address_field("host_iface"), None);
        stas.assert_running();
    });
}

/// A simulator on the far machine.
fn start_in(far: &Namespace, address: &'static str) -> Simulator {
    let namespace = File::open(format!("/run/netns/{}", far.name())).unwrap();
    let start = move || {
        // SAFETY: changes where this thread, and those that it starts, make their sockets.
        let entered = unsafe { nix::libc::setns(namespace.as_raw_fd(), nix::libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
        Simulator::start(address).unwrap()
    };
    std::thread::spawn(start).join().unwrap()
}

/// ip-family holds for referrals and for storage, on both sides of a reload.
#[test]
fn one_address_family_only() {
    scenario(|guest| {
        let fabric = Fabric::new(guest, 1, 2);
        let six = Simulator::start("[::1]:8009").unwrap();
        guest.target().tcp_port("::1", 4420).link(&fabric.disks[1]);
        six.set_entries([Entry::io(&fabric.disks[1].nqn, "::1", "4420")]);
        let to_six = Entry::referral("::1", "8009");
        fabric.dcs[0].set_entries([Entry::io(&fabric.disks[0].nqn, "127.0.0.1", "4420"), to_six]);
        let conf = |family: &str| format!("ip-family = \"{family}\"\n{}", controller("127.0.0.1", 8009));
        guest.write(STAFD_CONF, &conf("ipv4"));
        let stas = Stas::start(guest, Form::OneProcess);
        stas.wait_for_storage(&fabric.nqns(0..1), SOON);
        fabric.wait_for_roster(&[0]);
        assert_eq!(six.recording().accepted, 0);
        guest.write(STAFD_CONF, &conf("ipv4+ipv6"));
        stas.finder().reload();
        stas.wait_for_storage(&fabric.nqns(0..2), SOON);
        guest.write(STAFD_CONF, &conf("ipv4"));
        stas.finder().reload();
        stas.wait_for_storage(&fabric.nqns(0..1), SOON);
    });
}
