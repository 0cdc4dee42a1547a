//! What Avahi says in the name of whoever is in the local network.

use std::time::{Duration, Instant};

use rustbus::MessageBuilder;
use rustbus::message_builder::DynamicHeader;
use rustbus::wire::ObjectPath;
use stas::bus::avahi::AvahiClient;
use stas::bus::message::{self, Message};
use stas::bus::{BUS_NAME, BUS_PATH, BusEvent};
use stas::config::settings::IpFamily;
use stas::core::announcement::{Announcement, Claims};
use stas::core::page::is_nqn;
use stas::core::tid::is_usable_address;
use stas::wire::txt::{TXT_MAX, Txt};

use super::adds_no_option;

/// A TXT record, a line for each string.
pub fn txt(data: &[u8]) {
    let strings: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let Some(txt) = Txt::new(&strings) else { return assert!(data.len() >= TXT_MAX) };
    for key in ["p", "nqn"] {
        let is_it = |string: &&&[u8]| {
            let name = string.split(|byte| *byte == b'=').next().unwrap_or_default();
            name.eq_ignore_ascii_case(key.as_bytes())
        };
        let value = strings.iter().find(is_it).and_then(|string| string.get(key.len() + 1..));
        assert_eq!(txt.get(key), value);
    }
    let claims = Claims {
        protocol: txt.get("p"),
        subsysnqn: txt.get("nqn"),
        address: "192.0.2.1",
        port: 8009,
        interface: "eth0",
    };
    match Announcement::new(claims) {
        Ok(announcement) => {
            let tid = announcement.transport_id(true, "");
            assert!(is_nqn(tid.subsysnqn()));
            adds_no_option(tid.trsvcid(), tid.subsysnqn(), tid.traddr());
        }
        Err(why) => assert!(why.len() < 1000 && !why.contains(char::is_control), "{why:?}"),
    }
}

/// Its messages, in any order: lines of a verb, a number for the object and
/// arguments, separated by `|`. `raw` is a whole message.
pub fn avahi(data: &[u8]) {
    avahi_announcements(data);
}

/// The same; how many announcements came out of it, one that came twice counted twice.
pub fn avahi_announcements(data: &[u8]) -> usize {
    let mut avahi = Avahi {
        client: AvahiClient::new(interface_name),
        calls: Vec::new(),
        serial: 0,
        now: Instant::now(),
        announced: 0,
    };
    avahi.client.configure(Some(IpFamily::default()), avahi.now);
    avahi.client.joined();
    avahi.check();
    for line in data.split(|byte| *byte == b'\n').take(1000) {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b'|').collect();
        avahi.step(&words);
        avahi.check();
    }
    avahi.announced
}

fn interface_name(index: u32) -> Option<String> {
    (index != 7).then(|| format!("eth{index}"))
}

struct Avahi {
    client: AvahiClient,
    /// Sent and not answered.
    calls: Vec<u32>,
    serial: u32,
    now: Instant,
    announced: usize,
}

impl Avahi {
    fn step(&mut self, words: &[&[u8]]) {
        let text =
            |index: usize| String::from_utf8_lossy(words.get(index).copied().unwrap_or_default()).replace('\0', "");
        let number = |index: usize| text(index).parse::<i32>().unwrap_or_default();
        let path = format!("/o{}", number(1).unsigned_abs());
        let (resolver, browser) = ("org.freedesktop.Avahi.ServiceResolver", "org.freedesktop.Avahi.ServiceBrowser");
        match words.first().copied().unwrap_or_default() {
            b"owner" => {
                let mut signal = MessageBuilder::new().signal(BUS_NAME, "NameOwnerChanged", BUS_PATH).build();
                let owner = if number(1) == 0 { "" } else { ":1.7" };
                signal.body.push_param3("org.freedesktop.Avahi", "", owner).unwrap();
                self.hear(signal, BUS_NAME);
            }
            b"made" if !self.calls.is_empty() => {
                let call = self.calls.remove(0);
                let mut reply = DynamicHeader { serial: Some(call), ..Default::default() }.make_response();
                reply.body.push_param(ObjectPath::new(path.as_str()).unwrap()).unwrap();
                self.hear(reply, ":1.7");
            }
            b"refused" if !self.calls.is_empty() => {
                let header = DynamicHeader { serial: Some(self.calls.remove(0)), ..Default::default() };
                self.hear(message::error(&header, "org.freedesktop.Avahi.Error", &text(1)), ":1.7");
            }
            verb @ (b"new" | b"remove") => {
                let member = if verb == b"new" { "ItemNew" } else { "ItemRemove" };
                let mut signal = MessageBuilder::new().signal(browser, member, path.as_str()).build();
                let (name, service_type) = (text(4), text(5));
                let pushed =
                    signal.body.push_param5(number(2), number(3), name.as_str(), service_type.as_str(), "local");
                pushed.unwrap();
                self.hear(signal, ":1.7");
            }
            b"found" => {
                let mut signal = MessageBuilder::new().signal(resolver, "Found", path.as_str()).build();
                signal.body.push_param5(1i32, 0i32, "name", "type", "local").unwrap();
                let port = text(3).parse::<u16>().unwrap_or_default();
                let txt = words.get(4..).unwrap_or_default();
                signal.body.push_param5("host", 0i32, text(2).as_str(), port, txt).unwrap();
                self.hear(signal, ":1.7");
            }
            b"failure" => {
                for interface in [browser, resolver] {
                    let mut signal = MessageBuilder::new().signal(interface, "Failure", path.as_str()).build();
                    signal.body.push_param(text(2).as_str()).unwrap();
                    self.hear(signal, ":1.7");
                }
            }
            b"done" => {
                let signal = MessageBuilder::new().signal(browser, "AllForNow", path.as_str()).build();
                self.hear(signal, ":1.7");
            }
            b"want" => {
                let wanted = [None, Some(IpFamily::Ipv4), Some(IpFamily::Ipv6), Some(IpFamily::Ipv4Ipv6)];
                self.client.configure(wanted[number(1).unsigned_abs() as usize % wanted.len()], self.now);
            }
            b"pass" => {
                self.now += Duration::from_secs(u64::from(number(1).unsigned_abs() % 1000));
                self.client.handle_deadline(self.now);
            }
            b"raw" => {
                let bytes = words[1..].join(&b'|');
                if let Ok(Some(message)) = message::parse(&bytes) {
                    self.hear(message, ":1.7");
                }
            }
            _ => {}
        }
    }

    fn hear(&mut self, mut message: Message, sender: &str) {
        message.dynheader.sender = Some(sender.to_owned());
        self.client.handle(message, self.now);
    }

    fn check(&mut self) {
        let (calls, serial) = (&mut self.calls, &mut self.serial);
        let mut sent = 0;
        let send = |call: &Message| {
            *serial += 1;
            sent += 1;
            if message::expects_reply(call) {
                calls.push(*serial);
            }
            message::encode(call, *serial).map(|_| *serial)
        };
        self.client.send_calls(send).unwrap();
        assert!(sent <= 1024, "{sent} calls at once");
        while let Some(event) = self.client.poll_event() {
            match event {
                BusEvent::Announced(set) => {
                    assert!(set.len() <= 512);
                    self.announced += set.len();
                    for announcement in set {
                        let tid = announcement.transport_id(true, "");
                        adds_no_option(tid.trsvcid(), tid.subsysnqn(), tid.traddr());
                        assert!(is_usable_address(tid.transport(), tid.traddr()), "{tid}");
                    }
                }
                BusEvent::AvahiComplaint(why) => {
                    assert!(why.len() < 1000 && !why.contains(char::is_control), "{why:?}")
                }
                _ => {}
            }
        }
    }
}
