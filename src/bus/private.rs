//! The same objects for machines without a bus: a unix socket on which clients speak D-Bus to us directly.
//!
//! Anyone may connect and call, as on the bus; the kernel tells who the peer is, and only root may set properties.
//! A client costs a descriptor and nothing else while it is idle. One that does not read its replies is not read from
//! either, so that it can make us keep one reply and a bounded number of signals, and one that sends nonsense is dropped.
//! A client that says Hello, as it would to a bus, is answered; every client gets every signal without asking.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustbus::message_builder::MessageType;

use super::dispatch::{Served, dispatch};
use super::link::{Limits, Link, Received};
use super::message::{CALL_MAX, MESSAGE_MAX, Message};
use super::sasl::ServerAuth;
use super::{BUS_NAME, BusEvent, Objects, Signal};

/// The socket's name in the daemon's runtime directory.
pub const SOCKET_NAME: &str = "control";
/// Most clients at a time.
pub const CLIENTS_MAX: usize = 64;
/// The last places are kept for root: other users cannot lock the administrator out.
const CLIENTS_OF_USERS: usize = 48;
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
    listener: UnixListener,
    path: PathBuf,
    served: Served,
    registry: Registry,
    /// The listener's token; clients have those that follow.
    first_token: usize,
    /// By place, from 1.
    clients: BTreeMap<usize, Client>,
    /// Our name in the authentication, 32 hexadecimal digits.
    guid: String,
    events: VecDeque<BusEvent>,
}

impl PrivateServer {
    /// How many tokens from the first one on belong to the server.
    pub const TOKENS: usize = CLIENTS_MAX + 1;

    /// Listens in `directory`, which has to exist. Takes the place of a socket that nobody listens on any more.
    ///
    /// # Errors
    /// When another process listens there (`AddrInUse`), or the socket cannot be made.
    pub fn new(directory: &Path, served: Served, registry: &Registry, first_token: Token) -> io::Result<PrivateServer> {
        let path = directory.join(SOCKET_NAME);
        remove_leftover(&path)?;
        let mut listener = UnixListener::bind(&path)?;
        // As the bus policy says: anyone may call.
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        registry.register(&mut listener, first_token, Interest::READABLE)?;
        let guid = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().replace('-', "");
        Ok(PrivateServer {
            listener,
            path,
            served,
            registry: registry.try_clone()?,
            first_token: first_token.0,
            clients: BTreeMap::new(),
            guid,
            events: VecDeque::new(),
        })
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
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if let Err(why) = self.admit(stream) {
                        log::info!("{}: a client turned away: {why}", self.path.display());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors or memory: the next client that comes brings us here again.
                    log::warn!("{}: cannot accept clients: {error}", self.path.display());
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: UnixStream) -> io::Result<()> {
        let uid = getsockopt(&stream, PeerCredentials)?.uid();
        let limit = if uid == 0 { CLIENTS_MAX } else { CLIENTS_OF_USERS };
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
        // Left behind it would be taken over by the next start: nothing to report.
        let _ = fs::remove_file(&self.path);
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
