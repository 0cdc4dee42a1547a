//! The same objects for machines without a bus: a unix socket on which clients speak D-Bus to us directly.
//!
//! Anyone may connect and call, as on the bus; the kernel tells who the peer is, and only root may set properties.
//! A client costs a descriptor and nothing else while it is idle. One that does not read its replies is not read from
//! either, so that it can make us keep one reply and a bounded number of signals, and one that sends nonsense is dropped.
//! A client that says Hello, as it would to a bus, is answered; every client gets every signal without asking.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, umask};
use rustbus::message_builder::MessageType;

use super::dispatch::{Served, dispatch};
use super::link::{Limits, Link, Received};
use super::message::{CALL_MAX, MESSAGE_MAX, Message};
use super::sasl::ServerAuth;
use super::{BUS_NAME, BusEvent, Objects, Signal};
use crate::rarely::Rarely;

/// The socket's name in the daemon's runtime directory.
pub const SOCKET_NAME: &str = "control";
/// Most clients at a time.
pub const CLIENTS_MAX: usize = 64;
/// How long to wait before trying again to make a socket that cannot be made.
const LISTEN_AGAIN: Duration = Duration::from_secs(10);
/// Beside one reply, this much may wait for a client in signals.
const SIGNALS_MAX: usize = 256 << 10;
const LIMITS: Limits = Limits { message: CALL_MAX, queue: MESSAGE_MAX + SIGNALS_MAX };
/// Messages of one client handled at a time, before other sources of events get their turn.
const BUDGET: usize = 16;

#[derive(Debug)]
struct Client {
    link: Link,
    /// Who it is, according to the kernel.
    uid: u32,
    auth: ServerAuth,
}

/// The listening socket and its clients.
#[derive(Debug)]
pub struct PrivateServer {
    /// `None`: the directory is not to be had, is full or read-only.
    listener: Option<UnixListener>,
    listen_at: Option<Instant>,
    path: PathBuf,
    served: Served,
    registry: Registry,
    /// The listener's token; clients have those that follow.
    first_token: usize,
    /// By place, from 1.
    clients: BTreeMap<usize, Client>,
    clients_max: usize,
    /// Somebody waits whom we had no descriptor for.
    starved: bool,
    turned_away: Rarely,
    cannot_accept: Rarely,
    /// Our name in the authentication, 32 hexadecimal digits.
    guid: String,
    events: VecDeque<BusEvent>,
}

impl PrivateServer {
    /// How many tokens from the first one on belong to the server.
    pub const TOKENS: usize = CLIENTS_MAX + 1;

    /// Listens in `directory`, which is made. Takes the place of a socket that nobody listens on any more. A socket that cannot
    /// be made keeps nobody from his storage: that is said, and tried again.
    ///
    /// # Errors
    /// When another process listens there (`AddrInUse`).
    pub fn new(directory: &Path, served: Served, registry: &Registry, first_token: Token) -> io::Result<PrivateServer> {
        let guid = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().replace('-', "");
        let mut server = PrivateServer {
            listener: None,
            listen_at: None,
            path: directory.join(SOCKET_NAME),
            served,
            registry: registry.try_clone()?,
            first_token: first_token.0,
            clients: BTreeMap::new(),
            clients_max: CLIENTS_MAX,
            starved: false,
            turned_away: Rarely::default(),
            cannot_accept: Rarely::default(),
            guid,
            events: VecDeque::new(),
        };
        match server.listen() {
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(error),
            Err(error) => {
                let directory = directory.display();
                log::warn!(
                    "{directory}: the control socket cannot be made: {error}; clients reach us only over D-Bus, trying again"
                );
                server.listen_at = Instant::now().checked_add(LISTEN_AGAIN);
            }
            Ok(()) => {}
        }
        Ok(server)
    }

    /// Not more than `most` clients at a time, nor more than [`CLIENTS_MAX`].
    pub fn limit_clients(&mut self, most: usize) {
        self.clients_max = most.min(CLIENTS_MAX);
    }

    fn listen(&mut self) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        }
        remove_leftover(&self.path)?;
        // As the bus policy says: anyone may call. Not by chmod, which is out of reach once the daemon is confined.
        let usual = umask(Mode::empty());
        let bound = UnixListener::bind(&self.path);
        umask(usual);
        let mut listener = bound?;
        self.registry.register(&mut listener, Token(self.first_token), Interest::READABLE)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// When [`PrivateServer::handle_deadline`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.listen_at
    }

    pub fn handle_deadline(&mut self, now: Instant) {
        if self.listen_at.is_some_and(|at| at <= now) {
            self.listen_at = match self.listen() {
                Ok(()) => None,
                Err(_) => now.checked_add(LISTEN_AGAIN),
            };
        }
    }

    /// Something was done, which may have set a descriptor free.
    pub fn accept_starved(&mut self) {
        if self.starved {
            self.accept();
        }
    }

    /// Whether a token is one of ours.
    pub fn has_token(&self, token: Token) -> bool {
        token.0.checked_sub(self.first_token).is_some_and(|place| place < Self::TOKENS)
    }

    /// Something happened on one of our tokens.
    pub fn ready(&mut self, token: Token, objects: &mut dyn Objects) {
        match token.0.checked_sub(self.first_token) {
            Some(0) => self.accept(),
            Some(place) => self.serve(place, objects),
            None => {}
        }
    }

    pub fn poll_event(&mut self) -> Option<BusEvent> {
        self.events.pop_front()
    }

    /// Sends a signal to every client.
    pub fn emit(&mut self, signal: &Signal) {
        let Ok(message) = signal.message() else {
            return;
        };
        let send = |client: &mut Client| match client.auth {
            ServerAuth::Done => client.link.send(&message).map(drop),
            _ => Ok(()),
        };
        let lost: Vec<usize> =
            self.clients.iter_mut().filter_map(|(place, client)| send(client).is_err().then_some(*place)).collect();
        for place in lost {
            self.drop_client(place, "it does not read");
        }
    }

    fn accept(&mut self) {
        self.starved = false;
        while let Some(listener) = &self.listener {
            match listener.accept() {
                Ok((stream, _)) => {
                    if let Err(why) = self.admit(stream)
                        && self.turned_away.is_due(Instant::now())
                    {
                        log::info!("{}: clients are turned away: {why}", self.path.display());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors or memory.
                    self.starved = true;
                    if self.cannot_accept.is_due(Instant::now()) {
                        log::warn!("{}: cannot accept clients: {error}; they wait", self.path.display());
                    }
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: UnixStream) -> io::Result<()> {
        let uid = getsockopt(&stream, PeerCredentials)?.uid();
        // The last places are kept for root: other users cannot lock the administrator out.
        let limit = if uid == 0 { self.clients_max } else { self.clients_max.saturating_sub(self.clients_max / 4) };
        let free = (1..=CLIENTS_MAX).find(|place| !self.clients.contains_key(place));
        let Some(place) = free.filter(|_| self.clients.len() < limit) else {
            return Err(io::Error::other(format!("{} clients are connected", self.clients.len())));
        };
        let mut link = Link::new(stream, LIMITS);
        link.register(&self.registry, self.token(place))?;
        self.clients.insert(place, Client { link, uid, auth: ServerAuth::Start });
        Ok(())
    }

    fn token(&self, place: usize) -> Token {
        Token(self.first_token.saturating_add(place))
    }

    fn serve(&mut self, place: usize, objects: &mut dyn Objects) {
        let token = self.token(place);
        let Some(client) = self.clients.get_mut(&place) else {
            return;
        };
        let mut tron_set = Vec::new();
        let served = client.pump(&self.served, &self.guid, objects, &mut tron_set);
        let served = served.and_then(|more| match more {
            More::Later => client.link.rearm(&self.registry, token).map_err(|error| error.to_string()),
            More::WhenReady => Ok(()),
        });
        self.events.extend(tron_set);
        if let Err(why) = served {
            self.drop_client(place, &why);
        }
    }

    fn drop_client(&mut self, place: usize, why: &str) {
        if let Some(mut client) = self.clients.remove(&place) {
            log::debug!("{}: client of uid {} gone: {why}", self.path.display(), client.uid);
            client.link.deregister(&self.registry);
        }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        if self.listener.is_some() {
            // Left behind it would be taken over by the next start: nothing to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// When to go on with a client.
enum More {
    /// The next readiness event tells.
    WhenReady,
    /// After the others had their turn.
    Later,
}

impl Client {
    /// Serves calls until there are none, the client stops reading, or others should have a turn.
    fn pump(
        &mut self,
        served: &Served,
        guid: &str,
        objects: &mut dyn Objects,
        events: &mut Vec<BusEvent>,
    ) -> Result<More, String> {
        for _ in 0..BUDGET {
            self.link.flush()?;
            if self.link.queued() > 0 {
                return Ok(More::WhenReady);
            }
            let progress = match self.auth {
                ServerAuth::Done => self.step(served, objects, events)?,
                _ => self.step_auth(guid)?,
            };
            if !progress && self.link.read()? == Received::Nothing {
                return Ok(More::WhenReady);
            }
        }
        Ok(More::Later)
    }

    fn step_auth(&mut self, guid: &str) -> Result<bool, String> {
        let Some(line) = self.link.take_line()? else {
            return Ok(false);
        };
        let answer = self.auth.line(&line, self.uid, guid)?;
        self.link.send_bytes(answer.as_bytes())?;
        Ok(true)
    }

    fn step(&mut self, served: &Served, objects: &mut dyn Objects, events: &mut Vec<BusEvent>) -> Result<bool, String> {
        let Some(mut call) = self.link.take_message()? else {
            return Ok(false);
        };
        if call.typ == MessageType::Call {
            // There are no names here, so replies have no destination either.
            call.dynheader.sender = None;
            if is_hello(&call) {
                let mut reply = call.dynheader.make_response();
                reply.body.push_param(":1.0").map_err(|error| error.to_string())?;
                self.link.send_reply(&call, &reply)?;
            } else {
                let outcome = dispatch(served, &call, self.uid == 0, objects);
                if let Some(reply) = outcome.reply {
                    self.link.send_reply(&call, &reply)?;
                }
                events.extend(outcome.tron_set.map(|(role, on)| BusEvent::TronSet(role, on)));
            }
        }
        Ok(true)
    }
}

fn is_hello(call: &Message) -> bool {
    call.dynheader.interface.as_deref() == Some(BUS_NAME) && call.dynheader.member.as_deref() == Some("Hello")
}

/// Removes a socket that a former life of ours left; anything else stays and makes binding fail.
fn remove_leftover(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
            _ => Err(io::Error::new(ErrorKind::AddrInUse, "another process serves this socket")),
        },
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
