//! Discovery controllers that announce themselves in the local network: a machine at the end of a cable has a target and an
//! Avahi that announces it, ours has an Avahi that hears it.

use crate::guest::{Announcer, Controller, DISCOVERY_NQN, Daemon, Guest, Namespace, Port, Subsystem};
use crate::stas::{STAFD_CONF, nqn};
use crate::vm::{Scenario, scenario};
use std::time::Duration;

/// Multicast DNS takes its time: probing for conflicts, announcing, resolving.
const SOON: Duration = Duration::from_secs(30);
const TCP: &str = "_nvme-disc._tcp";
const UDP: &str = "_nvme-disc._udp";

/// The far machine, its target with one subsystem, its Avahi, and what is ours: the bus, Avahi and the program.
struct Lan<'a> {
    guest: &'a Guest,
    far: Namespace,
    port: Port,
    disk: Subsystem,
    announcer: Announcer,
    bus: Daemon,
    avahi: Option<Daemon>,
    stas: Option<Daemon>,
}

impl<'a> Lan<'a> {
    /// Nothing of ours runs yet but the bus, and nothing is announced.
    fn new(guest: &'a Guest, here: &str, there: &str) -> Lan<'a> {
        let far = guest.namespace("far", here, there);
        if !there.contains(':') {
            // So that each service is announced once.
            guest.write("/proc/sys/net/ipv6/conf/far/disable_ipv6", "1");
            far.run("sh", &["-c", "echo 1 >/proc/sys/net/ipv6/conf/uplink/disable_ipv6"]).ok();
        }
        let disk = guest.target().subsystem(&nqn("far"));
        let port = guest.target().tcp_port(there.split('/').next().unwrap(), 8009);
        port.link_in(&far, &disk);
        let announcer = guest.start_announcer(&far);
        Lan { guest, far, port, disk, announcer, bus: guest.start_bus(), avahi: None, stas: None }
    }

    /// All of ours runs, and `settings` are added to stafd.conf.
    fn running(guest: &'a Guest, settings: &str) -> Lan<'a> {
        let mut lan = Lan::new(guest, "10.97.0.1/24", "10.97.0.2/24");
        lan.start_avahi();
        lan.configure(settings);
        lan.start();
        lan
    }

    fn configure(&self, settings: &str) {
        self.guest.write(STAFD_CONF, settings);
    }

    fn reconfigure(&self, settings: &str) {
        let before = self.stas().count_log("reading the configuration again");
        self.configure(settings);
        self.stas().reload();
        self.guest.wait_until("the configuration is read", SOON, || {
            self.stas().count_log("reading the configuration again") > before
        });
    }

    fn start_avahi(&mut self) {
        self.avahi = Some(self.guest.start_avahi());
    }

    fn stop_avahi(&mut self) {
        self.avahi.take().unwrap().terminate();
        self.stas().wait_log("Avahi is gone", SOON);
    }

    fn start(&mut self) {
        let stas = self.guest.spawn("stas", &["run", "--tron"]);
        stas.wait_log("D-Bus: serving as org.nvmexpress.staf", SOON);
        self.stas = Some(stas);
    }

    fn stop(&mut self) {
        self.stas.take().unwrap().terminate();
    }

    fn stas(&self) -> &Daemon {
        self.stas.as_ref().unwrap()
    }

    fn announce(&self) {
        self.announcer.announce("dc", TCP, 8009, &["p=tcp"]);
    }

    /// Returns the discovery controller through which the far disk was found.
    #[track_caller]
    fn wait_for_storage(&self) -> Controller {
        self.guest.wait_for_storage(&[&self.disk.nqn], SOON);
        let mut discovery = self.guest.controllers().into_iter().filter(Controller::is_discovery);
        discovery.next().unwrap()
    }

    /// What `stafctl ls` shows.
    fn list(&self) -> String {
        self.guest.run("stafctl", &["ls", "--detailed"]).ok()
    }

    #[track_caller]
    fn wait_until_listed(&self, traddr: &str, listed: bool, patience: Duration) {
        self.guest
            .wait_until(&format!("{traddr} is listed: {listed}"), patience, || self.list().contains(traddr) == listed);
    }

    /// Our Avahi forgets a service, as a goodbye makes it do after a second.
    #[track_caller]
    fn withdraw(&self) {
        let before = self.stas().count_log("mDNS: 0 announced");
        self.announcer.withdraw("dc");
        self.guest.wait_until("the withdrawal is heard", SOON, || self.stas().count_log("mDNS: 0 announced") > before);
    }
}

#[test]
fn an_announced_controller_becomes_storage() {
    scenario(|guest| {
        let lan = Lan::running(guest, "");
        lan.announce();
        let discovery = lan.wait_for_storage();
        assert_eq!(discovery.address_field("traddr"), Some("10.97.0.2"));
        assert_eq!(discovery.address_field("host_iface"), Some("far"));
        assert_eq!(discovery.subsysnqn, DISCOVERY_NQN);
        assert_eq!(guest.live_io_controllers()[0].address_field("host_iface"), Some("far"));
        assert!(lan.list().contains("discovered"));
        assert!(lan.avahi.is_some() && lan.bus.count_log("rror") == 0);
    });
}

#[test]
fn the_other_service_type_and_keys_in_any_case() {
    scenario(|guest| {
        let lan = Lan::running(guest, "");
        lan.announcer.announce("dc", UDP, 8009, &["txtvers=1", &format!("NqN={DISCOVERY_NQN}"), "P=TCP"]);
        assert_eq!(lan.wait_for_storage().subsysnqn, DISCOVERY_NQN);
    });
}

#[test]
fn rdma_is_understood_and_not_bound_to_the_interface() {
    scenario(|guest| {
        let lan = Lan::running(guest, "");
        for (name, port, protocol) in [("a", 4420, "p=roce"), ("b", 4421, "p=iWARP"), ("c", 4422, "P=rdma")] {
            lan.announcer.announce(name, UDP, port, &[protocol, "nqn=nqn.2026-01.example:dc"]);
            lan.wait_until_listed(&port.to_string(), true, SOON);
        }
        let list = guest.run("stafctl", &["ls", "-o", "json"]).ok();
        assert_eq!(list.matches(r#""rdma""#).count(), 3);
        assert_eq!(list.matches("nqn.2026-01.example:dc").count(), 3);
        assert_eq!(list.replace(' ', "").matches(r#""host-iface":"""#).count(), 3);
    });
}

#[test]
fn an_ipv6_address() {
    scenario(|guest| {
        let mut lan = Lan::new(guest, "fd00::1/64", "fd00::2/64");
        lan.start_avahi();
        lan.start();
        lan.announce();
        assert_eq!(lan.wait_for_storage().address_field("traddr"), Some("fd00::2"));
    });
}

#[test]
fn a_link_local_address_has_its_zone() {
    scenario(|guest| {
        let far = guest.namespace("far", "fe80::1/64", "fe80::2/64");
        far.run("ip", &["address", "flush", "dev", "uplink", "scope", "link"]).ok();
        far.run("ip", &["address", "add", "fe80::2/64", "dev", "uplink", "nodad"]).ok();
        let disk = guest.target().subsystem(&nqn("far"));
        let port = guest.target().tcp_port("::", 8009);
        port.link_in(&far, &disk);
        let announcer = guest.start_announcer(&far);
        let _bus = guest.start_bus();
        let _avahi = guest.start_avahi();
        let _stas = guest.spawn("stas", &["run", "--tron"]);
        announcer.announce("dc", TCP, 8009, &["p=tcp"]);
        guest.wait_for_storage(&[&disk.nqn], SOON);
        let controllers = guest.controllers();
        let discovery = controllers.iter().find(|controller| controller.is_discovery()).unwrap();
        assert_eq!(discovery.address_field("traddr"), Some("fe80::2%far"));
        assert_eq!(discovery.address_field("host_iface"), Some("far"));
    });
}

/// A central discovery controller announces itself before it listens.
#[test]
fn probed_before_it_is_connected() {
    scenario(|guest| {
        let lan = Lan::running(guest, "");
        lan.port.unlink(&lan.disk);
        lan.announce();
        lan.stas().wait_log("ECONNREFUSED", SOON);
        assert_eq!(guest.kernel_log().matches("nvme nvme").count(), 0, "the kernel was not asked to connect");
        lan.port.link_in(&lan.far, &lan.disk);
        lan.wait_for_storage();
        assert_eq!(lan.stas().count_log("ECONNREFUSED"), 1);
    });
}

#[test]
fn withdrawn_and_announced_again() {
    scenario(|guest| {
        let lan = Lan::running(guest, "");
        lan.announce();
        lan.wait_for_storage();
        let before = guest.controllers();
        lan.withdraw();
        assert!(lan.list().contains("10.97.0.2"));
        lan.announce();
        guest.wait_until("it is heard again", SOON, || lan.stas().count_log("mDNS: 1 announced") == 2);
        guest.assert_untouched(&before);
    });
}

#[test]
fn avahi_is_restarted() {
    scenario(|guest| {
        let mut lan =
            Lan::running(guest, "[Discovery controller connection management]\nzeroconf-connections-persistence=0\n");
        lan.announce();
        lan.wait_for_storage();
        let before = guest.controllers();
        for _ in 0..2 {
            lan.stop_avahi();
            assert!(lan.list().contains("10.97.0.2"));
            lan.start_avahi();
        }
        // It is heard by what is announced afterwards.
        lan.announcer.announce("late", UDP, 4420, &["p=rdma"]);
        lan.wait_until_listed("rdma", true, SOON);
        assert!(lan.list().contains("10.97.0.2"));
        guest.assert_untouched(&before);
    });
}

#[test]
fn avahi_comes_later_and_the_bus_restarts() {
    scenario(|guest| {
        let mut lan = Lan::new(guest, "10.97.0.1/24", "10.97.0.2/24");
        lan.announce();
        lan.start();
        lan.stas().wait_log("mDNS: Avahi does not run", SOON);
        lan.start_avahi();
        lan.wait_for_storage();
        let before = guest.controllers();
        let Lan { bus, avahi, stas, announcer, .. } = lan;
        bus.terminate();
        avahi.expect("Avahi runs").kill();
        let stas = stas.unwrap();
        guest.wait_until("the loss of the bus is noticed", SOON, || stas.count_log("Avahi is gone") > 0);
        let _bus = guest.start_bus();
        let _avahi = guest.start_avahi();
        announcer.announce("late", UDP, 4420, &["p=rdma"]);
        guest.wait_until("it hears again", SOON, || guest.run("stafctl", &["ls"]).stdout.contains("rdma"));
        guest.assert_untouched(&before);
    });
}

#[test]
fn switched_off_and_on_by_reload() {
    const OFF: &str = "[Service Discovery]\nzeroconf=disabled\n";
    scenario(|guest| {
        let lan = Lan::running(guest, OFF);
        lan.announce();
        // Announced and heard by our Avahi, but not by us: a reload that changes nothing is done before that shows.
        lan.announcer.daemon.wait_log("Service \"dc\" (/etc/avahi/services/dc.service) successfully established", SOON);
        lan.reconfigure(OFF);
        assert!(!lan.list().contains("10.97.0.2"));
        lan.reconfigure("");
        lan.wait_for_storage();
        let before = guest.controllers();
        lan.reconfigure(OFF);
        guest.wait_until("nothing counts as announced", SOON, || lan.stas().count_log("mDNS: 0 announced") > 0);
        lan.announcer.announce("late", UDP, 4420, &["p=rdma"]);
        lan.announcer
            .daemon
            .wait_log("Service \"late\" (/etc/avahi/services/late.service) successfully established", SOON);
        lan.reconfigure(OFF);
        assert!(!lan.list().contains("rdma") && lan.list().contains("10.97.0.2"), "what is connected stays");
        lan.reconfigure("");
        lan.wait_until_listed("rdma", true, SOON);
        guest.assert_untouched(&before);
    });
}

/// The same target by two cables, and one of the interfaces is excluded.
#[test]
fn two_interfaces_and_one_excluded() {
    scenario(|guest| {
        let mut lan = Lan::new(guest, "10.97.0.1/24", "10.97.0.2/24");
        guest.run("ip", &["link", "add", "second", "type", "veth", "peer", "name", "uplink2", "netns", "far"]).ok();
        for (ip, address, device) in [(None, "10.96.0.1/24", "second"), (Some(&lan.far), "10.96.0.2/24", "uplink2")] {
            for arguments in [&["address", "add", address, "dev", device][..], &["link", "set", device, "up"]] {
                match ip {
                    None => guest.run("ip", arguments).ok(),
                    Some(far) => far.run("ip", arguments).ok(),
                };
            }
        }
        let other = guest.target().tcp_port("10.96.0.2", 8009);
        other.link_in(&lan.far, &lan.disk);
        lan.start_avahi();
        lan.configure("");
        lan.start();
        lan.announce();
        let interfaces = || {
            let discovery = guest.controllers().into_iter().filter(|one| one.is_discovery() && one.is_live());
            let mut found: Vec<_> =
                discovery.filter_map(|one| one.address_field("host_iface").map(str::to_owned)).collect();
            found.sort();
            found
        };
        guest.wait_until("both are connected, each by its interface", SOON, || interfaces() == ["far", "second"]);
        lan.reconfigure("[Controllers]\nexclude = host-iface=second\n");
        guest.wait_until("the excluded one is gone", SOON, || interfaces() == ["far"]);
        lan.wait_until_listed("10.96.0.2", false, SOON);
    });
}

/// Persistence of 0, of some seconds and for ever, told apart by when the controller is forgotten after the target went.
#[test]
fn kept_as_long_as_configured() {
    Scenario::new().limit(Duration::from_secs(240)).run(|guest| {
        let settings = |persistence: &str| {
            format!(
                "[Global]\nreconnect-delay=1\nctrl-loss-tmo=3\n[Discovery controller connection management]\nzeroconf-connections-persistence={persistence}\n"
            )
        };
        let lan = Lan::running(guest, &settings("0"));
        let lose = |how: &str| {
            lan.reconfigure(&settings(how));
            lan.announce();
            lan.wait_for_storage();
            lan.withdraw();
            assert!(lan.list().contains("10.97.0.2"), "connected, it stays");
            lan.port.unlink(&lan.disk);
            let is_gone = || !guest.controllers().iter().any(Controller::is_discovery);
            guest.wait_until("the kernel gave the discovery controller up", SOON, is_gone);
            std::time::Instant::now()
        };
        lose("0");
        lan.wait_until_listed("10.97.0.2", false, Duration::from_secs(5));
        lan.port.link_in(&lan.far, &lan.disk);
        let lost = lose("8 seconds");
        lan.wait_until_listed("10.97.0.2", false, SOON);
        assert!(lost.elapsed() > Duration::from_secs(6), "{:?}", lost.elapsed());
        lan.port.link_in(&lan.far, &lan.disk);
        lose("-1");
        lan.reconfigure(&settings("-1"));
        // A shorter time holds for what is out of sight already.
        assert!(lan.list().contains("10.97.0.2"));
        lan.reconfigure(&settings("1"));
        lan.wait_until_listed("10.97.0.2", false, SOON);
    });
}

#[test]
fn a_restart_keeps_what_is_not_announced_any_more() {
    scenario(|guest| {
        let mut lan = Lan::running(guest, "");
        lan.announce();
        lan.wait_for_storage();
        let before = guest.controllers();
        lan.withdraw();
        for _ in 0..2 {
            lan.stop();
            lan.start();
            guest.wait_until("it runs again", SOON, || {
                guest.run("stafctl", &["ls", "-d"]).stdout.contains("discovered")
            });
            lan.stas().wait_log("lists 2 entries", SOON);
        }
        guest.wait_for_storage(&[&lan.disk.nqn], SOON);
        guest.assert_untouched(&before);
    });
}

/// What is not announced any more is kept for some time; a clock that is set ten years ahead does not make that time pass.
#[test]
fn the_clock_ages_nobody() {
    scenario(|guest| {
        let mut lan = Lan::running(guest, "reconnect-delay = 1\nctrl-loss-tmo = 3\n");
        lan.announce();
        lan.wait_for_storage();
        lan.withdraw();
        lan.port.unlink(&lan.disk);
        let is_gone = || !guest.controllers().iter().any(Controller::is_discovery);
        guest.wait_until("the kernel gave the discovery controller up", SOON, is_gone);
        lan.wait_until_listed("10.97.0.2", true, SOON);
        lan.stop();
        guest.set_clock("2037-12-31 23:59:59");
        lan.start();
        assert!(lan.list().contains("10.97.0.2"), "{}", lan.list());
        lan.port.link_in(&lan.far, &lan.disk);
        lan.wait_for_storage();
    });
}

#[test]
fn nonsense_is_reported_once_and_ignored() {
    scenario(|guest| {
        let lan = Lan::running(guest, "");
        let hex = |bytes: &str| {
            let digits: String = bytes.bytes().map(|byte| format!("{byte:02x}")).collect();
            format!("<txt-record value-format=\"binary-hex\">nqn={digits}</txt-record><txt-record>p=tcp</txt-record>")
        };
        let hostile = [
            ("none", String::new()),
            ("unknown", "<txt-record>p=fc</txt-record>".to_owned()),
            ("empty", "<txt-record>p</txt-record>".to_owned()),
            ("option", hex("nqn.x,hostnqn=y")),
            ("control", hex("nqn.\u{1b}[2J\n")),
            ("long", hex(&"n".repeat(240))),
            ("binary", "<txt-record value-format=\"binary-hex\">p=ff00fe</txt-record>".to_owned()),
        ];
        for (name, records) in &hostile {
            lan.announcer.announce_records(name, TCP, 8009, records);
        }
        for (name, _) in &hostile {
            lan.stas().wait_log(&format!("\"{name}\" on far is ignored"), SOON);
        }
        lan.announce();
        lan.wait_for_storage();
        let log = lan.stas().log();
        assert!(!log.contains('\u{1b}'));
        for (name, _) in &hostile {
            // By IPv4 and by IPv6, which Avahi tells apart, but the words are the same.
            assert_eq!(lan.stas().count_log(&format!("\"{name}\" on far is ignored")), 1);
        }
        assert_eq!(guest.controllers().len(), 2);
    });
}

/// One that is left in between is read again as soon as it announces itself once more.
#[test]
fn an_announcement_has_a_parked_controller_read() {
    scenario(|guest| {
        let lan = Lan::running(guest, "persistent = \"no\"\npolling-interval = \"1hour\"\n");
        lan.announce();
        guest.wait_for_storage(&[&lan.disk.nqn], SOON);
        let is_left = || guest.controllers().len() == 1;
        guest.wait_until("it is left", SOON, is_left);
        lan.withdraw();
        lan.wait_until_listed("10.97.0.2", true, SOON);
        let other = guest.target().subsystem(&nqn("other"));
        lan.port.link_in(&lan.far, &other);
        lan.announce();
        guest.wait_for_storage(&[&lan.disk.nqn, &other.nqn], SOON);
        guest.wait_until("it is left", SOON, || guest.controllers().len() == 2);
    });
}

/// As some do: under the well-known NQN, and under its own (TP8013).
#[test]
fn announced_under_two_names_it_is_connected_once() {
    scenario(|guest| {
        guest.write("/sys/kernel/config/nvmet/discovery_nqn", "nqn.2026-11.test:discovery");
        let lan = Lan::running(guest, "");
        lan.announcer.announce("by-its-own-name", TCP, 8009, &["p=tcp", "nqn=nqn.2026-11.test:discovery"]);
        lan.wait_for_storage();
        lan.announce();
        lan.stas().wait_log("mDNS: 2 announced", SOON);
        let other = guest.target().subsystem(&nqn("other"));
        lan.port.link_in(&lan.far, &other);
        guest.wait_for_storage(&[&lan.disk.nqn, &other.nqn], SOON);
        let connected = guest.controllers();
        assert_eq!(connected.iter().filter(|controller| controller.is_discovery()).count(), 1, "{connected:?}");
        assert_eq!(connected.len(), 3, "{connected:?}");
    });
}
