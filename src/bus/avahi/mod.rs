//! Avahi as a finder needs it: the discovery controllers that announce themselves in the local network.
//!
//! Pure: messages in, messages and events out. Follows `org.freedesktop.Avahi` on the bus, never starts it. While it is
//! there, a browser for each service type tells which services exist and a resolver for each of these where it is.
//!
//! ```text
//! owner appears ── ServiceBrowserNew ── ItemNew ── ServiceResolverNew ── Found ──▶ BusEvent::Announced
//!                                       ItemRemove ── Free               Failure ── the other address family, later again
//! ```
//!
//! Avahi or the bus going away withdraws nothing: what was announced counts until Avahi is back and had time to say it
//! again, or did not come back for [`REMEMBERED`]. Everybody in the local network can announce anything, so all of it is
//! checked (see [`super::avahi_signals`]), bounded, and complained about once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use nix::net::if_::if_indextoname;
use rustbus::message_builder::MessageType;
use rustbus::wire::ObjectPath;

use super::avahi_signals::{DOMAIN, INET, INET6, SERVICE_TYPES, ServiceKey, announcement};
use super::message::{self, Message};
use super::{BUS_NAME, BusEvent};
use crate::config::settings::IpFamily;
use crate::core::announcement::{Announcement, quoted};
use crate::core::deadlines::Deadlines;

const NAME: &str = "org.freedesktop.Avahi";
const SERVER: &str = "org.freedesktop.Avahi.Server";
const BROWSER: &str = "org.freedesktop.Avahi.ServiceBrowser";
const RESOLVER: &str = "org.freedesktop.Avahi.ServiceResolver";
/// Any interface, or either protocol.
const ANY: i32 = -1;
/// `AVAHI_LOOKUP_USE_MULTICAST`: never ask a unicast DNS server.
const USE_MULTICAST: u32 = 2;

/// Services that are followed; a resolver is kept for each, and Avahi allows 1024 objects.
const SERVICES_MAX: usize = 256;
/// Signals that are kept for objects whose names Avahi has not told yet.
const EARLY_MAX: usize = 64;
/// The longest of them that is kept, in bytes: what a multicast DNS message can carry, and some more.
const EARLY_BYTES_MAX: usize = 16 << 10;
/// Complaints in the life of the process: each is made once, and who invents ever new reasons is not heard any more.
const COMPLAINTS_MAX: usize = 64;
/// How long after a failure Avahi is asked again. It is only needed where Avahi itself fails: what appears, it tells.
const RETRY: Duration = Duration::from_secs(60);
/// How long an announcement outlives Avahi.
const REMEMBERED: Duration = Duration::from_secs(120);
/// How long after Avahi is done browsing the resolvers may take. Avahi gives up resolving after 5 s, and there are two
/// address families.
const SETTLING: Duration = Duration::from_secs(12);

/// What a call that waits for its answer asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Question {
    Owner,
    Browser(&'static str),
    Resolver(ServiceKey),
}

/// A service that exists.
#[derive(Debug)]
struct Service {
    /// The object that resolves it, once Avahi told its name.
    resolver: Option<String>,
    /// Failures to resolve, in a row.
    failures: usize,
    announcement: Option<Announcement>,
}

/// What Avahi has for us: from the moment at which it is there and wanted to the one at which it is not.
#[derive(Debug, Default)]
struct Session {
    browsers: BTreeMap<String, &'static str>,
    resolvers: BTreeMap<String, ServiceKey>,
    services: BTreeMap<ServiceKey, Service>,
    /// Services to be resolved anew.
    retries: Deadlines<ServiceKey>,
    /// When to start over.
    restart_at: Option<Instant>,
    /// The service types whose browser has told all that Avahi knew when asked.
    complete: BTreeSet<&'static str>,
    early: Vec<Message>,
}

/// The client. Does nothing until [`AvahiClient::configure`] wants announcements.
#[derive(Debug)]
pub struct AvahiClient {
    interface_name: fn(u32) -> Option<String>,
    /// The address families wanted; `None`: no announcements are.
    wanted: Option<IpFamily>,
    /// There is a connection to the bus.
    joined: bool,
    subscribed: bool,
    /// Avahi's unique name.
    owner: Option<String>,
    session: Option<Session>,
    calls: VecDeque<(Message, Option<Question>)>,
    /// By serial number, with the session that they belong to.
    questions: BTreeMap<u32, (u64, Question)>,
    /// Counts sessions.
    epoch: u64,
    /// Announced before Avahi went, not yet again.
    remembered: BTreeSet<Announcement>,
    forget_at: Option<Instant>,
    /// The set told last.
    told: BTreeSet<Announcement>,
    changed: bool,
    complaints: BTreeSet<String>,
    events: VecDeque<BusEvent>,
}

impl Default for AvahiClient {
    fn default() -> AvahiClient {
        AvahiClient::new(|index| if_indextoname(index).ok()?.into_string().ok())
    }
}

impl AvahiClient {
    /// `interface_name` tells the name of an interface by its index.
    pub fn new(interface_name: fn(u32) -> Option<String>) -> AvahiClient {
        AvahiClient {
            interface_name,
            wanted: None,
            joined: false,
            subscribed: false,
            owner: None,
            session: None,
            calls: VecDeque::new(),
            questions: BTreeMap::new(),
            epoch: 0,
            remembered: BTreeSet::new(),
            forget_at: None,
            told: BTreeSet::new(),
            changed: false,
            complaints: BTreeSet::new(),
            events: VecDeque::new(),
        }
    }

    /// Wants announcements of these address families, or none at all: then nothing counts as announced.
    pub fn configure(&mut self, wanted: Option<IpFamily>, now: Instant) {
        if wanted == self.wanted {
            return;
        }
        self.close_session(now);
        self.wanted = wanted;
        if wanted.is_none() {
            self.forget();
        }
        self.subscribe();
        self.open_session();
    }

    // ---- the connection to the bus -------------------------------------------------------------------------------

    /// A new connection to the bus.
    pub fn joined(&mut self) {
        self.joined = true;
        self.subscribe();
    }

    /// The connection to the bus is gone.
    pub fn parted(&mut self, now: Instant) {
        self.joined = false;
        self.subscribed = false;
        self.set_owner(None, now);
        self.calls.clear();
        self.questions.clear();
    }

    /// Sends what is to be sent; `send` yields the serial number.
    ///
    /// # Errors
    /// That of `send`.
    pub fn send_calls(&mut self, mut send: impl FnMut(&Message) -> Result<u32, String>) -> Result<(), String> {
        while let Some((call, question)) = self.calls.pop_front() {
            let serial = send(&call)?;
            if let Some(question) = question {
                self.questions.insert(serial, (self.epoch, question));
            }
        }
        Ok(())
    }

    pub fn poll_event(&mut self) -> Option<BusEvent> {
        self.note_change();
        self.events.pop_front()
    }

    /// Takes a signal or a reply; whatever does not concern Avahi is left alone.
    pub fn handle(&mut self, message: Message, now: Instant) {
        match message.typ {
            MessageType::Signal => self.handle_signal(message, now),
            MessageType::Reply | MessageType::Error => self.handle_reply(&message, now),
            MessageType::Call | MessageType::Invalid => {}
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        let session = self.session.as_ref();
        let session = session.and_then(|session| session.retries.next().into_iter().chain(session.restart_at).min());
        session.into_iter().chain(self.forget_at).min()
    }

    pub fn handle_deadline(&mut self, now: Instant) {
        if self.forget_at.is_some_and(|at| at <= now) {
            self.forget();
        }
        if self.session.as_ref().and_then(|session| session.restart_at).is_some_and(|at| at <= now) {
            self.close_session(now);
            self.open_session();
        }
        while let Some(key) = self.session.as_mut().and_then(|session| session.retries.pop(now)) {
            self.resolve(&key);
        }
    }

    fn subscribe(&mut self) {
        if !self.joined || self.wanted.is_none() || std::mem::replace(&mut self.subscribed, true) {
            return;
        }
        let rules = [
            format!("type='signal',sender='{BUS_NAME}',member='NameOwnerChanged',arg0='{NAME}'"),
            format!("type='signal',sender='{NAME}'"),
        ];
        for rule in rules {
            let mut call = message::bus_call("AddMatch");
            if call.body.push_param(rule).is_ok() {
                self.calls.push_back((message::without_reply(call), None));
            }
        }
        let mut call = message::bus_call("GetNameOwner");
        if call.body.push_param(NAME).is_ok() {
            self.calls.push_back((call, Some(Question::Owner)));
        }
    }

    fn set_owner(&mut self, owner: Option<String>, now: Instant) {
        if owner == self.owner {
            return;
        }
        if self.owner.take().is_some() {
            self.remember(now);
            self.session = None;
            self.calls.clear();
            self.questions.clear();
            self.events.push_back(BusEvent::AvahiGone);
        }
        if owner.is_some() {
            self.owner = owner;
            self.events.push_back(BusEvent::AvahiAppeared);
            self.open_session();
        }
    }

    /// Lets what is announced count for some time more.
    fn remember(&mut self, now: Instant) {
        self.note_change();
        self.remembered.clone_from(&self.told);
        if !self.remembered.is_empty() && self.forget_at.is_none() {
            self.forget_at = now.checked_add(REMEMBERED);
        }
    }

    fn forget(&mut self) {
        self.forget_at = None;
        self.remembered.clear();
        self.changed = true;
    }

    // ---- browsers and resolvers ----------------------------------------------------------------------------------

    fn open_session(&mut self) {
        if self.owner.is_none() || self.wanted.is_none() || self.session.is_some() {
            return;
        }
        self.session = Some(Session::default());
        for service_type in SERVICE_TYPES {
            self.ask("ServiceBrowserNew", Question::Browser(service_type), |call| {
                call.body.push_param5(ANY, ANY, service_type, DOMAIN, USE_MULTICAST)
            });
        }
    }

    /// Gives back what Avahi has for us.
    fn close_session(&mut self, now: Instant) {
        self.remember(now);
        let Some(session) = self.session.take() else {
            return;
        };
        // Answers to what is not sent yet, or not answered yet, belong to a former session: their objects are freed.
        self.epoch = self.epoch.wrapping_add(1);
        self.calls.retain(|(_, question)| !matches!(question, Some(Question::Browser(_) | Question::Resolver(_))));
        for path in session.resolvers.keys() {
            self.free(path, RESOLVER);
        }
        for path in session.browsers.keys() {
            self.free(path, BROWSER);
        }
    }

    fn ask(
        &mut self,
        member: &str,
        question: Question,
        fill: impl FnOnce(&mut Message) -> Result<(), rustbus::wire::errors::MarshalError>,
    ) {
        if let Some(owner) = &self.owner {
            let mut call = message::call(owner, "/", SERVER, member);
            if fill(&mut call).is_ok() {
                self.calls.push_back((call, Some(question)));
            }
        }
    }

    fn free(&mut self, path: &str, interface: &str) {
        if let Some(owner) = &self.owner {
            let call = message::call(owner, path, interface, "Free");
            self.calls.push_back((message::without_reply(call), None));
        }
    }

    /// Asks where a service is: first for an address of the family by which it was announced, then for one of the other.
    fn resolve(&mut self, key: &ServiceKey) {
        let families: &[i32] = match (self.wanted, key.protocol) {
            (Some(IpFamily::Ipv4), _) => &[INET],
            (Some(IpFamily::Ipv6), _) => &[INET6],
            (_, INET6) => &[INET6, INET],
            _ => &[INET, INET6],
        };
        let failures = self.service(key).map_or(0, |service| service.failures);
        let family = families.get(failures % families.len()).copied().unwrap_or(ANY);
        let interface = i32::try_from(key.interface).unwrap_or(ANY);
        self.ask("ServiceResolverNew", Question::Resolver(key.clone()), |call| {
            call.body.push_param5(interface, key.protocol, key.name.as_str(), key.service_type, DOMAIN)?;
            call.body.push_param2(family, USE_MULTICAST)
        });
    }

    fn service(&mut self, key: &ServiceKey) -> Option<&mut Service> {
        self.session.as_mut()?.services.get_mut(key)
    }

    fn add_service(&mut self, key: ServiceKey) {
        let Some(session) = &mut self.session else {
            return;
        };
        if session.services.contains_key(&key) {
            return;
        }
        if session.services.len() >= SERVICES_MAX {
            return self.complain(format!("more than {SERVICES_MAX} announcements: the rest is ignored"));
        }
        session.services.insert(key.clone(), Service { resolver: None, failures: 0, announcement: None });
        self.resolve(&key);
    }

    fn remove_service(&mut self, key: &ServiceKey) {
        let Some(session) = &mut self.session else {
            return;
        };
        session.retries.cancel(key);
        if let Some(service) = session.services.remove(key) {
            self.changed |= service.announcement.is_some();
            self.free_resolver(service.resolver);
        }
    }

    fn free_resolver(&mut self, path: Option<String>) {
        if let (Some(path), Some(session)) = (path, &mut self.session) {
            session.resolvers.remove(&path);
            self.free(&path, RESOLVER);
        }
    }

    /// A service cannot be resolved now. There may be an address of another family, at once; else later again.
    fn resolving_failed(&mut self, key: &ServiceKey, why: &str, now: Instant) {
        let Some(service) = self.service(key) else {
            return;
        };
        service.failures = service.failures.saturating_add(1);
        let failures = service.failures;
        let path = service.resolver.take();
        let had = service.announcement.take().is_some();
        self.changed |= had;
        self.free_resolver(path);
        if failures % 2 == 1 {
            return self.resolve(key);
        }
        self.complain(format!("{} cannot be resolved: {why}", self.describe(key)));
        if let (Some(session), Some(at)) = (&mut self.session, now.checked_add(RETRY)) {
            session.retries.set(key.clone(), at);
        }
    }

    // ---- what arrives --------------------------------------------------------------------------------------------

    fn handle_signal(&mut self, message: Message, now: Instant) {
        let header = &message.dynheader;
        let sender = header.sender.as_deref();
        if sender == Some(BUS_NAME) && header.member.as_deref() == Some("NameOwnerChanged") {
            if let Ok((NAME, _, new)) = message.body.parser().get3::<&str, &str, &str>() {
                self.set_owner((!new.is_empty()).then(|| new.to_owned()), now);
            }
        } else if sender.is_some() && sender == self.owner.as_deref() {
            self.handle_avahi_signal(message, now);
        }
    }

    fn handle_avahi_signal(&mut self, message: Message, now: Instant) {
        let header = &message.dynheader;
        let (Some(session), Some(path)) = (&mut self.session, header.object.as_deref()) else {
            return;
        };
        let (browser, resolver) = (session.browsers.get(path).copied(), session.resolvers.get(path).cloned());
        let member = header.member.as_deref().unwrap_or_default();
        let may_keep = session.early.len() < EARLY_MAX && message.get_buf().len() <= EARLY_BYTES_MAX;
        match (header.interface.as_deref(), browser, resolver) {
            (Some(BROWSER), Some(service_type), _) => self.handle_browser(service_type, member, &message, now),
            (Some(RESOLVER), _, Some(key)) => self.handle_resolver(&key, member, &message, now),
            // Avahi may speak for an object before it told us the object's name.
            (_, None, None) if may_keep && !self.questions.is_empty() => session.early.push(message),
            _ => {}
        }
    }

    fn handle_browser(&mut self, service_type: &'static str, member: &str, message: &Message, now: Instant) {
        match member {
            "ItemNew" => match ServiceKey::from_item(service_type, message) {
                Ok(key) => self.add_service(key),
                Err(why) => self.complain(why),
            },
            "ItemRemove" => {
                if let Ok(key) = ServiceKey::from_item(service_type, message) {
                    self.remove_service(&key);
                }
            }
            "AllForNow" => {
                if let Some(session) = &mut self.session
                    && session.complete.insert(service_type)
                    && session.complete.len() == SERVICE_TYPES.len()
                    && !self.remembered.is_empty()
                {
                    self.forget_at = now.checked_add(SETTLING);
                }
            }
            "Failure" => self.browsing_failed(&failure(message), now),
            _ => {}
        }
    }

    fn handle_resolver(&mut self, key: &ServiceKey, member: &str, message: &Message, now: Instant) {
        match member {
            "Found" => self.resolved(key, message),
            "Failure" => self.resolving_failed(key, &failure(message), now),
            _ => {}
        }
    }

    fn resolved(&mut self, key: &ServiceKey, found: &Message) {
        // Without a name the interface is gone, and the service with it: Avahi is about to say so.
        let interface = (self.interface_name)(key.interface);
        let outcome = interface.map(|interface| announcement(found, &interface));
        if let Some(Err(why)) = &outcome {
            self.complain(format!("{} is ignored: {why}", self.describe(key)));
        }
        if let Some(service) = self.service(key) {
            service.failures = 0;
            service.announcement = outcome.and_then(Result::ok);
            self.changed = true;
        }
    }

    fn browsing_failed(&mut self, why: &str, now: Instant) {
        self.complain(format!("Avahi cannot look for discovery controllers: {why}; trying again later"));
        if let Some(session) = &mut self.session {
            session.restart_at = now.checked_add(RETRY);
        }
    }

    fn handle_reply(&mut self, message: &Message, now: Instant) {
        let serial = message.dynheader.response_serial;
        let Some((epoch, question)) = serial.and_then(|serial| self.questions.remove(&serial)) else {
            return;
        };
        if question == Question::Owner {
            // The error says that nobody has the name.
            let owner = message.body.parser().get::<String>().ok();
            return self.set_owner(owner.filter(|_| message.typ == MessageType::Reply), now);
        }
        let path = match message.typ {
            MessageType::Reply => message.body.parser().get::<ObjectPath<&str>>().map_err(|error| error.to_string()),
            _ => Err(message::error_text(message)),
        };
        let path = path.map(|path| path.as_ref().to_owned());
        match question {
            Question::Owner => {}
            Question::Browser(service_type) => self.browser_made(epoch, service_type, path, now),
            Question::Resolver(key) => self.resolver_made(epoch, &key, path, now),
        }
        if let Some(session) = &mut self.session {
            for signal in std::mem::take(&mut session.early) {
                self.handle_avahi_signal(signal, now);
            }
        }
    }

    fn browser_made(&mut self, epoch: u64, service_type: &'static str, path: Result<String, String>, now: Instant) {
        match (path, &mut self.session) {
            (Ok(path), Some(session)) if epoch == self.epoch => {
                session.browsers.insert(path, service_type);
            }
            (Ok(path), _) => self.free(&path, BROWSER),
            (Err(why), _) if epoch == self.epoch => self.browsing_failed(&printable(&why), now),
            (Err(_), _) => {}
        }
    }

    fn resolver_made(&mut self, epoch: u64, key: &ServiceKey, path: Result<String, String>, now: Instant) {
        match (path, &mut self.session) {
            (Ok(path), Some(session)) if epoch == self.epoch => match session.services.get_mut(key) {
                // A service that went and came meanwhile was asked for twice.
                Some(service) if service.resolver.is_none() => {
                    service.resolver = Some(path.clone());
                    session.resolvers.insert(path, key.clone());
                }
                _ => self.free(&path, RESOLVER),
            },
            (Ok(path), _) => self.free(&path, RESOLVER),
            (Err(why), _) if epoch == self.epoch => self.resolving_failed(key, &printable(&why), now),
            (Err(_), _) => {}
        }
    }

    // ---- what is told --------------------------------------------------------------------------------------------

    /// Tells the set of announcements, if it is another one than before.
    fn note_change(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let services = self.session.iter().flat_map(|session| session.services.values());
        let current = services.filter_map(|service| service.announcement.clone());
        let set: BTreeSet<Announcement> = current.chain(self.remembered.iter().cloned()).collect();
        if set != self.told {
            self.told.clone_from(&set);
            self.find_misconfiguration(&set);
            self.events.push_back(BusEvent::Announced(set));
        }
    }

    fn find_misconfiguration(&mut self, set: &BTreeSet<Announcement>) {
        let mut interfaces: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for announcement in set {
            interfaces.entry(announcement.traddr()).or_default().insert(announcement.interface());
        }
        for (address, interfaces) in interfaces.into_iter().filter(|(_, interfaces)| interfaces.len() > 1) {
            let interfaces: Vec<_> = interfaces.into_iter().collect();
            self.complain(format!(
                "{address} is announced on several interfaces ({}): are two networks using the same addresses?",
                interfaces.join(", ")
            ));
        }
    }

    /// Once for each reason.
    fn complain(&mut self, why: String) {
        if self.complaints.len() >= COMPLAINTS_MAX || !self.complaints.insert(why.clone()) {
            return;
        }
        self.events.push_back(BusEvent::AvahiComplaint(why));
        if self.complaints.len() == COMPLAINTS_MAX {
            let last = "that was the last complaint about announcements: there are too many of them";
            self.events.push_back(BusEvent::AvahiComplaint(last.to_owned()));
        }
    }

    fn describe(&self, key: &ServiceKey) -> String {
        let interface = (self.interface_name)(key.interface).unwrap_or_else(|| format!("interface {}", key.interface));
        format!("{} {} on {interface}", key.service_type, quoted(key.name.as_bytes()))
    }
}

/// The reason in a `Failure` signal: the name of an error.
fn failure(signal: &Message) -> String {
    printable(signal.body.parser().get::<&str>().unwrap_or("no reason given"))
}

fn printable(text: &str) -> String {
    text.chars().take(120).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
#[path = "avahi_tests.rs"]
mod tests;
