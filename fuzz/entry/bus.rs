//! What other programs say over D-Bus: clients on the private socket, which is open to every user, and a finder that is not ours.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

use rustbus::message_builder::MessageType;
use stas::bus::dispatch::{Served, dispatch};
use stas::bus::finder_client::FinderClient;
use stas::bus::message::{self, CALL_MAX, Dict, MESSAGE_MAX};
use stas::bus::objects::Description;
use stas::bus::sasl::ServerAuth;
use stas::bus::{ControllerId, EntryText, Objects, Role, pages};
use stas::config::settings::{ConnectorSettings, FinderSettings};
use stas::core::device::{ControllerKind, Device};
use stas::core::evidence::Testimony;
use stas::core::links::LinkId;
use stas::core::page::is_nqn;
use stas::core::tid::is_usable_address;
use stas::core::{Action, Event, Machine, Report, Roles};
use stas::daemon::reports::reports;

use super::adds_no_option;

/// What a client sends: lines of the handshake or messages, one after the other.
pub fn calls(data: &[u8]) {
    handshake(data);
    calls_answered(data);
}

/// Whatever is in the lines, the answers are ours, and only who the kernel says it is gets in.
fn handshake(data: &[u8]) {
    let mut auth = ServerAuth::Start;
    for line in data.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let before = auth;
        let Ok(answer) = auth.line(line, 1000, "0123456789abcdef0123456789abcdef") else { return };
        assert!(answer.is_empty() || answer.ends_with("\r\n") && answer.len() < 64 && answer.is_ascii());
        assert!(auth != ServerAuth::Done || matches!(before, ServerAuth::Done | ServerAuth::WaitingForBegin));
        assert_eq!(answer.starts_with("OK "), before != auth && auth == ServerAuth::WaitingForBegin);
    }
}

/// The messages alone; how many calls were answered with other than an error.
pub fn calls_answered(data: &[u8]) -> usize {
    let served = Served { roles: vec![Role::Finder, Role::Connector], machine_id: None };
    let mut finder = FinderClient::default();
    finder.joined();
    let (mut answered, mut rest) = (0, data);
    while let Ok(Some(length)) = message::frame_length(rest, CALL_MAX)
        && let Some((frame, others)) = rest.split_at_checked(length)
    {
        rest = others;
        let Ok(parsed) = message::parse(frame) else { break };
        let Some(call) = parsed else { continue };
        while let Some(question) = finder.next_call() {
            message::encode(&question, 1).unwrap();
            finder.called(1);
        }
        finder.handle(&call, Instant::now());
        while finder.poll_event().is_some() {}
        let _: Result<Dict<String, String>, _> = call.body.parser().get();
        let outcome = dispatch(&served, &call, false, &mut Echo);
        assert_eq!(outcome.tron_set, None, "only root may do that");
        let Some(reply) = outcome.reply else { continue };
        let Ok(bytes) = message::encode(&reply, 7) else { continue };
        assert_eq!(message::frame_length(&bytes, MESSAGE_MAX), Ok(Some(bytes.len())));
        let again = message::parse(&bytes).expect("a reply of ours is a message").expect("of a type that there is");
        assert_eq!(again.dynheader.response_serial, call.dynheader.serial);
        answered += usize::from(again.typ == MessageType::Reply);
    }
    answered
}

/// Says what it was asked for.
struct Echo;

impl Objects for Echo {
    fn list_controllers(&self, _: Role, detailed: bool) -> Vec<Description> {
        vec![vec![("connected", detailed.to_string())]]
    }

    fn log_pages(&self, id: &ControllerId) -> Vec<EntryText> {
        vec![EntryText { traddr: id.traddr.clone(), subnqn: id.subsysnqn.clone(), ..EntryText::default() }]
    }

    fn all_log_pages(&self, _: bool) -> Rc<str> {
        Rc::from("[]")
    }

    fn process_info(&self, _: Role) -> String {
        "{}".to_owned()
    }

    fn controller_info(&self, _: Role, id: &ControllerId) -> String {
        id.transport_id().map(|tid| tid.to_string()).unwrap_or_default()
    }

    fn tron(&self, _: Role) -> bool {
        false
    }

    fn set_tron(&mut self, _: Role, _: bool) {
        unreachable!("only root may do that");
    }

    fn log_level(&self, _: Role) -> String {
        "INFO".to_owned()
    }
}

/// What a finder in another process says, a line for each time that it is asked; `gone`: it goes. In between, everything that
/// we ask of the kernel works.
pub fn finder(data: &[u8]) {
    finder_connects(data);
}

/// The same; how many controllers were connected at its word.
pub fn finder_connects(data: &[u8]) -> usize {
    let mut connector = Connector::new();
    for (number, line) in data.split(|byte| *byte == b'\n').take(20).enumerate() {
        if line == b"gone" {
            connector.event(Event::FinderGone);
        } else if let Ok(said) = pages::from_json(&String::from_utf8_lossy(line)) {
            let heard = reports(&said);
            assert!(heard.len() <= said.len());
            connector.listed = heard.iter().flat_map(listed_by).collect();
            // Ours tells how far its pages are evidence.
            let is_ours = said.iter().any(|page| page.state.is_some()) || number % 2 == 1;
            connector.event(if is_ours { Event::FinderReports(heard) } else { Event::FinderMentions(heard) });
        }
    }
    connector.connects
}

fn listed_by(report: &Report) -> Vec<LinkId> {
    let (Testimony::Fresh(paths) | Testimony::Stale(paths)) = &report.testimony else { return Vec::new() };
    for tid in paths.keys().chain(&report.referrals) {
        assert!(is_nqn(tid.subsysnqn()) && is_usable_address(tid.transport(), tid.traddr()), "{tid}");
        adds_no_option(tid.trsvcid(), tid.subsysnqn(), tid.traddr());
    }
    paths.keys().map(|tid| LinkId { kind: ControllerKind::Io, tid: tid.clone() }).collect()
}

/// A connector whose kernel does as it is told.
struct Connector {
    machine: Machine,
    now: Instant,
    /// What was listed the last time.
    listed: BTreeSet<LinkId>,
    connected: BTreeMap<String, LinkId>,
    connects: usize,
}

impl Connector {
    fn new() -> Connector {
        let machine = Machine::new(Roles { finder: false, connector: true }, 1);
        let mut connector = Connector {
            machine,
            now: Instant::now(),
            listed: BTreeSet::new(),
            connected: BTreeMap::new(),
            connects: 0,
        };
        connector.event(Event::FabricsReady(true));
        connector.event(Event::Configured {
            host_nqn: "nqn.host".to_owned(),
            symname: String::new(),
            finder: Some(Box::new(FinderSettings::default())),
            connector: Some(Box::new(ConnectorSettings::default())),
        });
        connector
    }

    fn event(&mut self, event: Event) {
        self.machine.handle(self.now, event);
        while let Some(action) = self.machine.poll_action(self.now) {
            match action {
                Action::Probe(portal) => self.machine.handle(self.now, Event::Probed { portal, outcome: Ok(()) }),
                Action::Connect { ticket, id, .. } => {
                    assert!(self.listed.contains(&id), "{id} is connected, and nobody lists it");
                    let device = self.make(&id);
                    self.machine.handle(self.now, Event::Connected { ticket, outcome: Ok(Some(device)) });
                }
                Action::Disconnect { ticket, device } => {
                    let id = self.connected.remove(&device.name).expect("what we did not connect is not ours to end");
                    assert!(!self.listed.contains(&id), "{id} is disconnected, although it is listed");
                    self.machine.handle(self.now, Event::DeviceRemoved(device.name.clone()));
                    self.machine.handle(self.now, Event::Disconnected { ticket, outcome: Ok(()) });
                }
                Action::Note(note) => assert!(!note.to_string().contains(char::is_control), "{note}"),
                Action::Resolve { .. } => panic!("nobody named anything by a name"),
                _ => {}
            }
        }
    }

    fn make(&mut self, id: &LinkId) -> Device {
        self.connects += 1;
        let name = format!("nvme{}", self.connects);
        self.connected.insert(name.clone(), id.clone());
        let tid = &id.tid;
        Device {
            kind: id.kind,
            state: "live".to_owned(),
            traddr: tid.traddr().to_owned(),
            trsvcid: tid.trsvcid().to_owned(),
            subsysnqn: tid.subsysnqn().to_owned(),
            host_traddr: tid.host_traddr().to_owned(),
            host_iface: tid.host_iface().to_owned(),
            host_nqn: tid.host_nqn().to_owned(),
            ..Device::new(&name, tid.transport())
        }
    }
}
