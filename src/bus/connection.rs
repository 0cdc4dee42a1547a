//! Our connection to the system bus: made without blocking, missed without noise, made again when the bus returns.
//!
//! Connect, authenticate, Hello, RequestName for each role; then calls are answered by [`dispatch`](super::dispatch) and
//! signals go out. There may be no bus at start or ever, and it may restart: a watch on its socket tells when it is back,
//! so that waiting for it costs no wake-ups. Where the socket cannot be watched, trying again is spaced out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::mem;
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use mio::{Registry, Token};
use nix::unistd::geteuid;
use rustbus::message_builder::MessageType;

use super::address::Address;
use super::avahi::AvahiClient;
use super::dispatch::{Served, dispatch};
use super::finder_client::FinderClient;
use super::link::{Limits, Link, Received};
use super::message::{self, MESSAGE_MAX, Message};
use super::watch::Watch;
use super::{BUS_NAME, BusEvent, Objects, Role, Signal, sasl};
use crate::config::settings::IpFamily;

/// While more than this waits to be sent, no further messages are taken from the bus: replies do not pile up here.
const BACKLOG: usize = 1 << 20;
/// The backlog, one reply, and signals.
const LIMITS: Limits = Limits { message: MESSAGE_MAX, queue: 2 * MESSAGE_MAX };
/// How long the bus may leave what we send unread. It stops reading when too many of our replies wait for a client that
/// does not read them; on a new connection it reads again, so that one such client does not silence us for the others.
const STALL: Duration = Duration::from_secs(5);
/// `DBUS_NAME_FLAG_ALLOW_REPLACEMENT`: a new connection of ours may take the name from an old one.
const ALLOW_REPLACEMENT: u32 = 1;
/// `DBUS_NAME_FLAG_REPLACE_EXISTING`: take it. A bus that does not read from the old connection does not see its end.
const REPLACE_EXISTING: u32 = 2;
/// Messages handled at a time, before other sources of events get their turn.
const BUDGET: usize = 64;
/// The first pause before trying to connect again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// After so many attempts (5 s) only the watch is waited for, if there is one.
const WATCHED_ATTEMPTS: u32 = 8;
/// A connection that lasted this long was a good one: trying again starts with the shortest pause.
const GOOD: Duration = Duration::from_secs(10);

/// What the poll loop calls our two sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusTokens {
    pub bus: Token,
    pub watch: Token,
}

/// How far the connection is.
#[derive(Debug)]
enum State {
    Down,
    Authenticating(Link),
    /// Let in; `hello` is the serial number of the call that makes us a member of the bus.
    Greeting {
        link: Link,
        hello: u32,
    },
    Joined(Joined),
}

#[derive(Debug)]
struct Joined {
    link: Link,
    since: Instant,
    /// RequestName calls that are not answered yet, by serial number.
    requests: BTreeMap<u32, Role>,
    owned: BTreeSet<Role>,
}

/// The system bus, there or not.
#[derive(Debug)]
pub struct SystemBus {
    address: Address,
    served: Served,
    registry: Registry,
    tokens: BusTokens,
    state: State,
    /// Present when another process is the finder of our connector.
    finder: Option<FinderClient>,
    /// Idle unless announcements are wanted.
    avahi: AvahiClient,
    watch: Option<Watch>,
    /// Attempts to connect since the last good connection or the last sign of the bus.
    attempts: u32,
    retry_at: Option<Instant>,
    /// While something waits to be sent: how much was sent so far, and when more has to be.
    stall: Option<(u64, Instant)>,
    /// The bus may still believe that a former connection of ours has the names.
    stalled: bool,
    /// The loss has been told already.
    told: bool,
    events: VecDeque<BusEvent>,
}

impl SystemBus {
    /// Prepares to serve `served` on the bus at `address`, and to follow another process' finder if asked to.
    /// [`SystemBus::start`] has to be called.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new(
        address: Address,
        served: Served,
        follow_finder: bool,
        registry: &Registry,
        tokens: BusTokens,
    ) -> io::Result<SystemBus> {
        Ok(SystemBus {
            address,
            served,
            registry: registry.try_clone()?,
            tokens,
            state: State::Down,
            finder: follow_finder.then(FinderClient::default),
            avahi: AvahiClient::default(),
            watch: None,
            attempts: 0,
            retry_at: None,
            stall: None,
            stalled: false,
            told: false,
            events: VecDeque::new(),
        })
    }

    /// The first attempt to connect. Its outcome comes as an event.
    pub fn start(&mut self, now: Instant) {
        self.attempt(now);
    }

    /// Wants to know which discovery controllers announce themselves, with addresses of these families, or not to know.
    pub fn want_announcements(&mut self, families: Option<IpFamily>, now: Instant) {
        self.avahi.configure(families, now);
        self.ask_others(now);
        self.note_progress(now);
    }

    /// Something happened on one of our tokens.
    pub fn ready(&mut self, token: Token, now: Instant, objects: &mut dyn Objects) {
        if token == self.tokens.watch {
            self.handle_notices(now);
        } else if let Err(why) = self.pump(now, objects) {
            self.lose(why, false, now);
        }
        self.note_progress(now);
    }

    /// When [`SystemBus::handle_deadline`] wants to be called; `None` while there is nothing to wait for.
    pub fn deadline(&self) -> Option<Instant> {
        let finder = self.finder.as_ref().and_then(FinderClient::deadline);
        let stall = self.stall.map(|(_, at)| at);
        [self.retry_at, stall, finder, self.avahi.deadline()].into_iter().flatten().min()
    }

    pub fn handle_deadline(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.attempt(now);
        }
        if let Some(finder) = &mut self.finder {
            finder.handle_deadline(now);
        }
        self.avahi.handle_deadline(now);
        self.ask_others(now);
        self.note_progress(now);
        if self.stall.is_some_and(|(_, at)| at <= now) {
            self.stalled = true;
            self.lose("the system bus does not read what we send".to_owned(), false, now);
        }
    }

    pub fn poll_event(&mut self) -> Option<BusEvent> {
        let finder = |finder: &mut Option<FinderClient>| finder.as_mut()?.poll_event();
        self.events.pop_front().or_else(|| finder(&mut self.finder)).or_else(|| self.avahi.poll_event())
    }

    /// Sends a signal, if its role's name is ours.
    pub fn emit(&mut self, signal: &Signal, now: Instant) {
        let sent = match (&mut self.state, signal.message()) {
            (State::Joined(joined), Ok(message)) if joined.owned.contains(&signal.role()) => {
                joined.link.send(&message).map(drop)
            }
            _ => Ok(()),
        };
        if let Err(why) = sent {
            self.lose(why, false, now);
        }
        self.note_progress(now);
    }

    /// Has systemd start a unit, anew if it runs, without waiting for it. Whether that could be said.
    pub fn restart_unit(&mut self, unit: &str, now: Instant) -> bool {
        let mut call = message::without_reply(message::call(
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "RestartUnit",
        ));
        let State::Joined(joined) = &mut self.state else {
            return false;
        };
        if call.body.push_param2(unit, "replace").is_err() {
            return false;
        }
        let sent = joined.link.send(&call);
        let was_sent = sent.is_ok();
        if let Err(why) = sent {
            self.lose(why, false, now);
        }
        self.note_progress(now);
        was_sent
    }

    /// Sees whether the bus reads.
    fn note_progress(&mut self, now: Instant) {
        let (queued, sent) = self.link().map_or((0, 0), |link| (link.queued(), link.sent()));
        self.stall = match self.stall {
            _ if queued == 0 => None,
            Some((before, at)) if before == sent => Some((before, at)),
            _ => now.checked_add(STALL).map(|at| (sent, at)),
        };
    }

    /// Asks for the names that we do not have: after a refusal, when the administrator changed something.
    pub fn request_names(&mut self, now: Instant) {
        if let State::Joined(joined) = &mut self.state
            && let Err(why) = joined.request_names(&self.served.roles, self.stalled)
        {
            self.lose(why, false, now);
        }
    }

    fn attempt(&mut self, now: Instant) {
        self.retry_at = None;
        match self.connect() {
            Ok(link) => {
                self.unwatch();
                self.state = State::Authenticating(link);
            }
            Err(error) => {
                let absent = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
                self.lose(format!("no system bus: {error}"), absent, now);
            }
        }
    }

    fn connect(&self) -> io::Result<Link> {
        let stream = UnixStream::connect_addr(&self.address.socket_addr()?)?;
        let mut link = Link::new(stream, LIMITS);
        link.register(&self.registry, self.tokens.bus)?;
        link.send_bytes(&sasl::client_greeting(geteuid().as_raw())).map_err(io::Error::other)?;
        Ok(link)
    }

    /// There is no connection (any more). `absent`: nothing listens there, so that only its appearance can help.
    fn lose(&mut self, why: String, absent: bool, now: Instant) {
        match mem::replace(&mut self.state, State::Down) {
            State::Down => {}
            State::Authenticating(mut link) | State::Greeting { mut link, .. } => link.deregister(&self.registry),
            State::Joined(mut joined) => {
                joined.link.deregister(&self.registry);
                if now.saturating_duration_since(joined.since) >= GOOD {
                    self.attempts = 0;
                }
            }
        }
        self.stall = None;
        if let Some(finder) = &mut self.finder {
            finder.parted();
        }
        self.avahi.parted(now);
        if !mem::replace(&mut self.told, true) {
            self.events.push_back(BusEvent::Disconnected(why));
        }
        // A watch that is only set now may have missed the socket's appearance: one attempt more has to follow it.
        let watched = self.watch.is_some();
        if !watched {
            self.watch_socket();
        }
        let enough = absent && watched && self.attempts >= WATCHED_ATTEMPTS;
        let pause = PAUSE_MIN.saturating_mul(1 << self.attempts.min(16)).min(PAUSE_MAX);
        self.retry_at = if enough { None } else { now.checked_add(pause) };
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Watches for the socket to appear, from where it is missing now. Without a watch (abstract address, no inotify) the
    /// pauses do.
    fn watch_socket(&mut self) {
        if let Some(file) = self.address.file() {
            self.watch = Watch::new(file, &self.registry, self.tokens.watch).ok();
        }
    }

    fn unwatch(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.deregister(&self.registry);
        }
    }

    fn handle_notices(&mut self, now: Instant) {
        if self.watch.as_ref().is_some_and(Watch::take_notices) && matches!(self.state, State::Down) {
            // The directory to watch may be another one by now.
            self.unwatch();
            self.attempts = 0;
            self.attempt(now);
        }
    }

    /// Reads and handles what is there.
    fn pump(&mut self, now: Instant, objects: &mut dyn Objects) -> Result<(), String> {
        for _ in 0..BUDGET {
            let Some(link) = self.link() else {
                return Ok(());
            };
            link.flush()?;
            if link.queued() > BACKLOG {
                return Ok(());
            }
            if !self.step(now, objects)?
                && let Some(link) = self.link()
                && link.read()? == Received::Nothing
            {
                return Ok(());
            }
        }
        let token = self.tokens.bus;
        let State::Joined(joined) = &mut self.state else {
            return Err("the bus talks without end before letting us in".to_owned());
        };
        joined.link.rearm(&self.registry, token).map_err(|error| error.to_string())
    }

    fn link(&mut self) -> Option<&mut Link> {
        match &mut self.state {
            State::Down => None,
            State::Authenticating(link) | State::Greeting { link, .. } => Some(link),
            State::Joined(joined) => Some(&mut joined.link),
        }
    }

    /// Handles one line or message; false when there is none.
    fn step(&mut self, now: Instant, objects: &mut dyn Objects) -> Result<bool, String> {
        match mem::replace(&mut self.state, State::Down) {
            State::Down => Ok(false),
            State::Authenticating(mut link) => {
                let Some(line) = link.take_line()? else {
                    self.state = State::Authenticating(link);
                    return Ok(false);
                };
                sasl::client_accepts(&line)?;
                link.send_bytes(sasl::CLIENT_BEGIN)?;
                let hello = link.send(&message::bus_call("Hello"))?;
                self.state = State::Greeting { link, hello };
                Ok(true)
            }
            State::Greeting { mut link, hello } => {
                let Some(reply) = link.take_message()? else {
                    self.state = State::Greeting { link, hello };
                    return Ok(false);
                };
                if reply.dynheader.response_serial != Some(hello) {
                    self.state = State::Greeting { link, hello };
                    return Ok(true);
                }
                if reply.typ == MessageType::Error {
                    return Err(message::error_text(&reply));
                }
                self.join(link, now)?;
                Ok(true)
            }
            State::Joined(joined) => {
                self.state = State::Joined(joined);
                self.step_joined(now, objects)
            }
        }
    }

    fn join(&mut self, link: Link, now: Instant) -> Result<(), String> {
        let mut joined = Joined { link, since: now, requests: BTreeMap::new(), owned: BTreeSet::new() };
        self.told = false;
        joined.request_names(&self.served.roles, self.stalled)?;
        self.stalled = false;
        if let Some(finder) = &mut self.finder {
            for call in finder.joined() {
                joined.link.send(&call)?;
            }
        }
        self.avahi.joined();
        self.state = State::Joined(joined);
        self.ask()
    }

    fn step_joined(&mut self, now: Instant, objects: &mut dyn Objects) -> Result<bool, String> {
        let State::Joined(joined) = &mut self.state else {
            return Ok(false);
        };
        let Some(message) = joined.link.take_message()? else {
            return Ok(false);
        };
        match message.typ {
            MessageType::Call => {
                // Who may set properties is the business of the bus' policy: calls that it denies do not reach us.
                let outcome = dispatch(&self.served, &message, true, objects);
                if let Some(reply) = outcome.reply {
                    joined.link.send_reply(&message, &reply)?;
                }
                self.events.extend(outcome.tron_set.map(|(role, on)| BusEvent::TronSet(role, on)));
            }
            MessageType::Signal => self.events.extend(joined.handle_name_signal(&message)),
            MessageType::Reply | MessageType::Error => self.events.extend(joined.handle_name_reply(&message)),
            MessageType::Invalid => {}
        }
        if let Some(finder) = &mut self.finder {
            finder.handle(&message, now);
        }
        self.avahi.handle(message, now);
        self.ask()?;
        Ok(true)
    }

    /// Sends what our clients of others have to ask.
    fn ask(&mut self) -> Result<(), String> {
        let State::Joined(joined) = &mut self.state else {
            return Ok(());
        };
        if let Some(finder) = &mut self.finder
            && let Some(call) = finder.next_call()
        {
            let serial = joined.link.send(&call)?;
            finder.called(serial);
        }
        self.avahi.send_calls(|call| joined.link.send(call))
    }

    fn ask_others(&mut self, now: Instant) {
        if let Err(why) = self.ask() {
            self.lose(why, false, now);
        }
    }
}

impl Joined {
    /// Queues for the names that are not ours, so that we get each as soon as whoever has it lets go of it.
    fn request_names(&mut self, roles: &[Role], replace: bool) -> Result<(), String> {
        let flags = if replace { ALLOW_REPLACEMENT | REPLACE_EXISTING } else { ALLOW_REPLACEMENT };
        for role in roles.iter().filter(|role| !self.owned.contains(role)).copied().collect::<Vec<_>>() {
            let mut call = message::bus_call("RequestName");
            call.body.push_param2(role.name(), flags).map_err(|error| error.to_string())?;
            let serial = self.link.send(&call)?;
            self.requests.insert(serial, role);
        }
        Ok(())
    }

    /// The bus tells by signals whose a name is, on request and later on.
    fn handle_name_signal(&mut self, message: &Message) -> Option<BusEvent> {
        if message.dynheader.sender.as_deref() != Some(BUS_NAME) {
            return None;
        }
        let role = Role::of_name(message.body.parser().get::<&str>().ok()?)?;
        match message.dynheader.member.as_deref() {
            Some("NameAcquired") => self.owned.insert(role).then_some(BusEvent::NameOwned(role)),
            Some("NameLost") => self.owned.remove(&role).then_some(BusEvent::NameLost(role)),
            _ => None,
        }
    }

    fn handle_name_reply(&mut self, message: &Message) -> Option<BusEvent> {
        let role = self.requests.remove(&message.dynheader.response_serial?)?;
        if message.typ == MessageType::Error {
            return Some(BusEvent::NameRefused(role, message::error_text(message)));
        }
        match message.body.parser().get::<u32>() {
            // DBUS_REQUEST_NAME_REPLY_IN_QUEUE
            Ok(2) => Some(BusEvent::NameRefused(
                role,
                "another process has the name, nvme-stas perhaps; we get it when that one ends".to_owned(),
            )),
            _ => None,
        }
    }
}
