//! Avahi as a finder needs it: the discovery controllers that announce themselves in the local network.
//!
//! Pure: messages in, messages and events out. Follows `org.freedesktop.Avahi` on the bus, never starts it. While it is
//! there, a browser for each service type tells which services exist and a resolver for each of these where it is.
//!
//! ```text
//! owner appears ── ServiceBrowserNew ── ItemNew ── ServiceResolverNew ── Found ──▶ BusEvent::Announced
//!                                       ItemRemove ── Free               Failure ── the other family, later again
//! ```
//!
//! Avahi or the bus going away withdraws nothing: what was announced counts until Avahi is back and had time to say it
//! again, or did not come back for `REMEMBERED`. Everybody in the local network can announce anything, so all of it
//! is checked (see [`signals`]), bounded, and complained about once.
//!
//! Here is the client and its connection to the bus; `services` asks Avahi, `incoming` takes what it says, `telling`
//! passes it on.

mod incoming;
mod services;
pub mod signals;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use nix::net::if_::if_indextoname;

use super::message::{self, Message};
use super::{BUS_NAME, BusEvent};
use crate::config::settings::IpFamily;
use crate::core::announcement::Announcement;
use crate::core::deadlines::Deadlines;
use signals::ServiceKey;

const NAME: &str = "org.freedesktop.Avahi";
const BROWSER: &str = "org.freedesktop.Avahi.ServiceBrowser";
const RESOLVER: &str = "org.freedesktop.Avahi.ServiceResolver";

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
    /// It has been said that there is no Avahi.
    missed: bool,
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
            missed: false,
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
            self.missed = true;
        }
        if owner.is_some() {
            self.owner = owner;
            self.missed = false;
            self.events.push_back(BusEvent::AvahiAppeared);
            self.open_session();
        }
    }
}
