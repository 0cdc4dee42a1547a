use rustbus::MessageBuilder;
use rustbus::message_builder::DynamicHeader;
use rustbus::wire::ObjectPath;

use super::signals::{INET, INET6};
use super::*;
use crate::bus::BUS_NAME;

const AVAHI: &str = ":1.7";
const TCP: &str = "_nvme-disc._tcp";

/// The client, the calls it wanted sent, and the far ends.
struct Bus {
    client: AvahiClient,
    /// Sent and not looked at yet, with their serial numbers.
    sent: VecDeque<(u32, Message)>,
    serial: u32,
    now: Instant,
}

impl Bus {
    /// A client on a bus without Avahi.
    fn new(wanted: Option<IpFamily>) -> Bus {
        let client = AvahiClient::new(|index| (index < 10).then(|| format!("eth{index}")));
        let mut bus = Bus { client, sent: VecDeque::new(), serial: 0, now: Instant::now() };
        bus.configure(wanted);
        bus.client.joined();
        bus.pump();
        bus
    }

    /// A client that browses: the browsers are `/b0` for tcp and `/b1` for udp.
    fn browsing() -> Bus {
        let mut bus = Bus::new(Some(IpFamily::Ipv4Ipv6));
        assert_eq!(bus.members(), ["AddMatch", "AddMatch", "GetNameOwner"]);
        bus.appear(AVAHI);
        bus.make_browsers();
        bus
    }

    fn make_browsers(&mut self) {
        for path in ["/b0", "/b1"] {
            let (serial, call) = self.sent.pop_front().unwrap();
            assert_eq!(call.dynheader.member.as_deref(), Some("ServiceBrowserNew"));
            self.made(serial, path);
        }
        assert_eq!(self.members(), [""; 0]);
    }

    fn configure(&mut self, wanted: Option<IpFamily>) {
        self.client.configure(wanted, self.now);
        self.pump();
    }

    fn pump(&mut self) {
        let (sent, serial) = (&mut self.sent, &mut self.serial);
        let send = |call: &Message| {
            *serial += 1;
            let bytes = message::encode(call, *serial).unwrap();
            sent.push_back((*serial, message::parse(&bytes).unwrap().unwrap()));
            Ok(*serial)
        };
        self.client.send_calls(send).unwrap();
    }

    /// The members of all calls sent since last looked at.
    fn members(&mut self) -> Vec<String> {
        self.sent.drain(..).map(|(_, call)| call.dynheader.member.unwrap()).collect()
    }

    fn receive(&mut self, message: Message) {
        self.client.handle(message, self.now);
        self.pump();
    }

    fn appear(&mut self, owner: &str) {
        let mut signal = MessageBuilder::new().signal(BUS_NAME, "NameOwnerChanged", "/").build();
        signal.dynheader.sender = Some(BUS_NAME.to_owned());
        signal.body.push_param3(NAME, "", owner).unwrap();
        self.receive(signal);
    }

    fn made(&mut self, serial: u32, path: &str) {
        let mut reply = DynamicHeader { serial: Some(serial), ..Default::default() }.make_response();
        reply.body.push_param(ObjectPath::new(path).unwrap()).unwrap();
        self.receive(reply);
    }

    fn refused(&mut self, serial: u32) {
        let header = DynamicHeader { serial: Some(serial), ..Default::default() };
        self.receive(message::error(&header, "org.freedesktop.Avahi.TooManyObjectsError", "too many"));
    }

    fn signal(&self, interface: &str, path: &str, member: &str) -> Message {
        let mut signal = MessageBuilder::new().signal(interface, member, path).build();
        signal.dynheader.sender = Some(AVAHI.to_owned());
        signal
    }

    fn item(&mut self, member: &str, interface: i32, protocol: i32, name: &str) {
        let mut signal = self.signal(BROWSER, "/b0", member);
        signal.body.push_param5(interface, protocol, name, TCP, "local").unwrap();
        signal.body.push_param(4u32).unwrap();
        self.receive(signal);
    }

    fn all_for_now(&mut self) {
        for path in ["/b0", "/b1"] {
            let signal = self.signal(BROWSER, path, "AllForNow");
            self.receive(signal);
        }
    }

    fn found_signal(&self, path: &str, address: &str, txt: &[&[u8]]) -> Message {
        let mut signal = self.signal(RESOLVER, path, "Found");
        signal.body.push_param5(2i32, INET, "dc", TCP, "local").unwrap();
        signal.body.push_param5("dc.local", INET, address, 8009u16, txt).unwrap();
        signal
    }

    fn found(&mut self, path: &str, address: &str) {
        let signal = self.found_signal(path, address, &[b"P=tcp"]);
        self.receive(signal);
    }

    /// A service appears and is resolved by an object of this name.
    fn announce(&mut self, interface: i32, name: &str, path: &str, address: &str) {
        self.item("ItemNew", interface, INET, name);
        let (serial, call) = self.sent.pop_front().unwrap();
        assert_eq!(call.dynheader.member.as_deref(), Some("ServiceResolverNew"));
        self.made(serial, path);
        self.found(path, address);
    }

    fn fail(&mut self, path: &str) {
        let mut signal = self.signal(RESOLVER, path, "Failure");
        signal.body.push_param("org.freedesktop.Avahi.TimeoutError").unwrap();
        self.receive(signal);
    }

    /// The address family that the only call sent asks for.
    fn family_asked(&mut self) -> (u32, i32) {
        let (serial, call) = self.sent.pop_front().unwrap();
        assert_eq!(self.sent.len(), 0);
        let mut body = call.body.parser();
        body.get5::<i32, i32, &str, &str, &str>().unwrap();
        (serial, body.get().unwrap())
    }

    fn events(&mut self) -> Vec<BusEvent> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }

    /// The addresses in the set told last; `None` if none was told.
    fn announced(&mut self) -> Option<Vec<String>> {
        let mut sets = self.events().into_iter().filter_map(|event| match event {
            BusEvent::Announced(set) => Some(set.iter().map(|one| one.traddr().to_owned()).collect()),
            _ => None,
        });
        sets.next_back()
    }

    fn complaints(&mut self) -> usize {
        self.events().iter().filter(|event| matches!(event, BusEvent::AvahiComplaint(_))).count()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        while self.client.deadline().is_some_and(|at| at <= self.now) {
            self.client.handle_deadline(self.now);
            self.pump();
        }
    }
}

fn addresses(addresses: &[&str]) -> Option<Vec<String>> {
    Some(addresses.iter().map(|address| (*address).to_owned()).collect())
}

#[test]
fn does_nothing_unless_wanted() {
    let mut bus = Bus::new(None);
    assert_eq!(bus.members(), [""; 0]);
    bus.configure(Some(IpFamily::Ipv4));
    assert_eq!(bus.members(), ["AddMatch", "AddMatch", "GetNameOwner"]);
}

#[test]
fn an_avahi_that_is_there_already_is_asked() {
    let mut bus = Bus::new(Some(IpFamily::Ipv4Ipv6));
    let (serial, _) = bus.sent.pop_back().unwrap();
    bus.sent.clear();
    let mut reply = DynamicHeader { serial: Some(serial), ..Default::default() }.make_response();
    reply.body.push_param(AVAHI).unwrap();
    bus.receive(reply);
    assert_eq!(bus.members(), ["ServiceBrowserNew", "ServiceBrowserNew"]);
    assert_eq!(bus.events(), [BusEvent::AvahiAppeared]);
}

#[test]
fn an_avahi_that_is_not_there_is_missed_once() {
    let mut bus = Bus::new(Some(IpFamily::Ipv4Ipv6));
    let nobody_has_it = |bus: &mut Bus| {
        let (serial, _) = bus.sent.drain(..).next_back().unwrap();
        bus.refused(serial);
        bus.events()
    };
    assert_eq!(nobody_has_it(&mut bus), [BusEvent::AvahiMissing]);
    let again = |bus: &mut Bus| {
        bus.client.parted(bus.now);
        bus.client.joined();
        bus.pump();
    };
    again(&mut bus);
    assert_eq!(nobody_has_it(&mut bus), []);
    bus.appear(AVAHI);
    again(&mut bus);
    bus.pump();
    assert_eq!(nobody_has_it(&mut bus), [BusEvent::AvahiAppeared, BusEvent::AvahiGone]);
}

#[test]
fn a_service_is_resolved_announced_and_withdrawn() {
    let mut bus = Bus::browsing();
    bus.announce(2, "dc", "/r0", "192.0.2.1");
    assert_eq!(bus.announced(), addresses(&["192.0.2.1"]));
    bus.found("/r0", "192.0.2.2");
    assert_eq!(bus.announced(), addresses(&["192.0.2.2"]), "it moved");
    bus.found("/r0", "192.0.2.2");
    assert_eq!(bus.announced(), None, "nothing new");
    bus.item("ItemRemove", 2, INET, "dc");
    assert_eq!(bus.announced(), addresses(&[]));
    assert_eq!(bus.members(), ["Free"]);
    bus.found("/r0", "192.0.2.1");
    assert_eq!(bus.announced(), None, "a freed resolver counts for nothing");
}

#[test]
fn signals_may_come_before_their_object_has_a_name() {
    let mut bus = Bus::new(Some(IpFamily::Ipv4Ipv6));
    bus.members();
    bus.appear(AVAHI);
    bus.item("ItemNew", 2, INET, "dc");
    assert_eq!(bus.sent.len(), 2, "browsers only");
    bus.make_browsers_with_early_item();
    let (serial, _) = bus.sent.pop_front().unwrap();
    bus.found("/r0", "192.0.2.1");
    assert_eq!(bus.announced(), None);
    bus.made(serial, "/r0");
    assert_eq!(bus.announced(), addresses(&["192.0.2.1"]));
}

impl Bus {
    fn make_browsers_with_early_item(&mut self) {
        let (first, _) = self.sent.pop_front().unwrap();
        let (second, _) = self.sent.pop_front().unwrap();
        self.made(first, "/b0");
        self.made(second, "/b1");
        assert_eq!(self.sent.len(), 1, "the resolver");
    }
}

#[test]
fn strangers_and_other_objects_are_not_heard() {
    let mut bus = Bus::browsing();
    let mut stranger = bus.signal(BROWSER, "/b0", "ItemNew");
    stranger.dynheader.sender = Some(":1.66".to_owned());
    stranger.body.push_param5(2i32, INET, "dc", TCP, "local").unwrap();
    bus.receive(stranger);
    let mut other = bus.signal(BROWSER, "/b9", "ItemNew");
    other.body.push_param5(2i32, INET, "dc", TCP, "local").unwrap();
    bus.receive(other);
    assert_eq!(bus.members(), [""; 0]);
}

#[test]
fn the_other_address_family_is_tried_and_then_time_passes() {
    let mut bus = Bus::browsing();
    bus.item("ItemNew", 2, INET, "dc");
    let (serial, family) = bus.family_asked();
    assert_eq!(family, INET);
    bus.made(serial, "/r0");
    bus.fail("/r0");
    assert_eq!(bus.sent.pop_front().unwrap().1.dynheader.member.as_deref(), Some("Free"));
    let (serial, family) = bus.family_asked();
    assert_eq!((family, bus.complaints()), (INET6, 0));
    bus.refused(serial);
    assert_eq!((bus.members().len(), bus.complaints()), (0, 1));
    bus.pass(RETRY);
    let (serial, family) = bus.family_asked();
    assert_eq!(family, INET);
    bus.made(serial, "/r1");
    bus.found("/r1", "192.0.2.1");
    assert_eq!(bus.announced(), addresses(&["192.0.2.1"]));
}

#[test]
fn a_disabled_address_family_is_not_asked_for() {
    for (wanted, protocol, expected) in
        [(IpFamily::Ipv4, INET6, INET), (IpFamily::Ipv6, INET, INET6), (IpFamily::Ipv6Ipv4, INET6, INET6)]
    {
        let mut bus = Bus::new(Some(wanted));
        bus.members();
        bus.appear(AVAHI);
        bus.make_browsers();
        bus.item("ItemNew", 2, protocol, "dc");
        assert_eq!(bus.family_asked().1, expected);
    }
}

#[test]
fn an_avahi_that_restarts_withdraws_nothing_that_it_says_again() {
    let mut bus = Bus::browsing();
    bus.announce(2, "one", "/r0", "192.0.2.1");
    bus.announce(2, "two", "/r1", "192.0.2.2");
    assert_eq!(bus.announced(), addresses(&["192.0.2.1", "192.0.2.2"]));
    bus.appear("");
    assert_eq!(bus.events(), [BusEvent::AvahiGone]);
    bus.pass(Duration::from_secs(30));
    bus.appear(AVAHI);
    bus.make_browsers();
    bus.announce(2, "one", "/r0", "192.0.2.1");
    bus.all_for_now();
    assert_eq!(bus.events(), [BusEvent::AvahiAppeared]);
    bus.pass(SETTLING);
    assert_eq!(bus.announced(), addresses(&["192.0.2.1"]));
    assert_eq!(bus.client.deadline(), None);
}

#[test]
fn an_avahi_that_stays_away_is_believed_for_a_while() {
    let mut bus = Bus::browsing();
    bus.announce(2, "dc", "/r0", "192.0.2.1");
    bus.client.parted(bus.now);
    assert_eq!(bus.announced(), addresses(&["192.0.2.1"]));
    bus.client.joined();
    bus.pump();
    bus.pass(REMEMBERED - Duration::from_secs(1));
    assert_eq!(bus.announced(), None);
    bus.pass(Duration::from_secs(1));
    assert_eq!(bus.announced(), addresses(&[]));
    assert_eq!(bus.members(), ["AddMatch", "AddMatch", "GetNameOwner"]);
}

#[test]
fn switched_off_everything_is_given_back_and_nothing_is_announced() {
    let mut bus = Bus::browsing();
    bus.announce(2, "dc", "/r0", "192.0.2.1");
    bus.item("ItemNew", 3, INET, "dc");
    let (serial, _) = bus.sent.pop_front().unwrap();
    bus.configure(None);
    assert_eq!(bus.members(), ["Free"; 3]);
    assert_eq!(bus.announced(), addresses(&[]));
    bus.made(serial, "/r1");
    assert_eq!(bus.members(), ["Free"], "one that was still being made");
    bus.configure(Some(IpFamily::Ipv4Ipv6));
    bus.make_browsers();
    bus.announce(2, "dc", "/r2", "192.0.2.1");
    assert_eq!(bus.announced(), addresses(&["192.0.2.1"]));
}

#[test]
fn failing_browsers_are_made_again_later() {
    let mut bus = Bus::browsing();
    bus.announce(2, "dc", "/r0", "192.0.2.1");
    bus.events();
    let mut signal = bus.signal(BROWSER, "/b0", "Failure");
    signal.body.push_param("org.freedesktop.Avahi.Failure\n").unwrap();
    bus.receive(signal);
    assert_eq!(bus.complaints(), 1);
    bus.pass(RETRY);
    let members = bus.members();
    assert_eq!(members, ["Free", "Free", "Free", "ServiceBrowserNew", "ServiceBrowserNew"]);
    assert_eq!(bus.announced(), None, "what was announced stays so");
}

#[test]
fn nonsense_is_complained_about_once() {
    let mut bus = Bus::browsing();
    bus.announce(2, "dc", "/r0", "192.0.2.1");
    bus.events();
    for txt in [&b"p=ftp"[..], b"P=ftp", b"q=tcp"] {
        let signal = bus.found_signal("/r0", "192.0.2.1", &[txt]);
        bus.receive(signal);
    }
    let events = bus.events();
    assert!(matches!(
        &events[..],
        [BusEvent::AvahiComplaint(_), BusEvent::AvahiComplaint(_), BusEvent::Announced(set)] if set.is_empty()
    ));
    let malformed = bus.signal(RESOLVER, "/r0", "Found");
    bus.receive(malformed);
    assert_eq!(bus.complaints(), 1);
    bus.item("ItemNew", 0, INET, "x");
    bus.item("ItemNew", 2, 7, "x");
    bus.item("ItemNew", 2, INET, &"x".repeat(64));
    assert_eq!((bus.complaints(), bus.members().len()), (2, 0));
}

#[test]
fn an_address_on_two_interfaces_is_complained_about_once() {
    let mut bus = Bus::browsing();
    bus.announce(2, "dc", "/r0", "192.0.2.1");
    bus.announce(3, "dc", "/r1", "192.0.2.1");
    bus.announce(2, "ll", "/r2", "fe80::1");
    bus.announce(3, "ll", "/r3", "fe80::1");
    assert_eq!(bus.complaints(), 1);
    bus.item("ItemRemove", 3, INET, "dc");
    bus.members();
    bus.announce(3, "dc", "/r4", "192.0.2.1");
    assert_eq!(bus.complaints(), 0);
}

#[test]
fn floods_are_bounded() {
    let mut bus = Bus::browsing();
    for number in 0..2 * SERVICES_MAX {
        bus.item("ItemNew", 2, INET, &format!("dc {number}"));
    }
    assert_eq!(bus.members().len(), SERVICES_MAX);
    assert_eq!(bus.complaints(), 1);
    for number in 0..1000 {
        let mut signal = bus.signal(BROWSER, "/b0", "Failure");
        signal.body.push_param(format!("reason {number}").as_str()).unwrap();
        bus.receive(signal);
    }
    assert_eq!(bus.complaints(), COMPLAINTS_MAX);
    for _ in 0..1000 {
        let signal = bus.found_signal("/unknown", "192.0.2.1", &[]);
        bus.receive(signal);
    }
    assert_eq!(bus.client.session.as_ref().unwrap().early.len(), EARLY_MAX);
}
