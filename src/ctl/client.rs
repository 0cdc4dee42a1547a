//! A blocking D-Bus client of one daemon: over the system bus, or over the daemon's private socket.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt::SendTimeout,
};
use nix::sys::time::TimeVal;
use nix::unistd::geteuid;
use rustbus::message_builder::{MarshalledMessageBody, MessageType};
use rustbus::wire::errors::MarshalError;

use crate::bus::address::Address;
use crate::bus::message::{self, Dict, MESSAGE_MAX, Message};
use crate::bus::private::SOCKET_NAME;
use crate::bus::{BUS_NAME, ControllerId, PROPERTIES, Role, sasl};

/// How long people wait for connecting, and for each call.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// A controller or log page entry as a dictionary, in the order in which the daemon gave it.
pub type Pairs = Vec<(String, String)>;

/// Why there is no answer. Displayed as one line for an administrator.
#[derive(Debug)]
pub enum Failure {
    Unreachable(String),
    /// The daemon answered with an error, or with what cannot be understood.
    Refused(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreachable(why) | Failure::Refused(why) => f.write_str(why),
        }
    }
}

/// Where to look for a daemon, in this order.
#[derive(Debug, Clone)]
pub struct Places {
    pub bus: Result<Address, String>,
    pub sockets: Vec<PathBuf>,
    /// Longest time for connecting, and for each call.
    pub patience: Duration,
}

impl Places {
    /// Where the daemon of a role usually is: on the system bus; within `stas run`; on its own.
    pub fn of(role: Role) -> Places {
        let sockets = ["stas", role.daemon()].map(|directory| PathBuf::from("/run").join(directory).join(SOCKET_NAME));
        Places { bus: Address::system(), sockets: sockets.into(), patience: TIMEOUT }
    }
}

/// A connection to one daemon.
#[derive(Debug)]
pub struct Client {
    role: Role,
    stream: UnixStream,
    patience: Duration,
    inbound: Vec<u8>,
    serial: u32,
    /// Over the bus, not over the private socket.
    on_bus: bool,
}

impl Client {
    /// Finds the daemon.
    ///
    /// # Errors
    /// When it is in none of the places.
    pub fn open(role: Role, places: &Places) -> Result<Client, Failure> {
        let mut tried = Vec::new();
        match places.bus.clone().and_then(|address| Client::on_bus(role, &address, places.patience)) {
            Ok(client) => return Ok(client),
            Err(why) => tried.push(why),
        }
        for path in &places.sockets {
            match Client::connect(role, &Address::Path(path.clone()), places.patience) {
                Ok(client) => return Ok(client),
                Err(why) => tried.push(format!("{}: {why}", path.display())),
            }
        }
        let daemon = role.daemon();
        let tried = tried.join("; ");
        Err(Failure::Unreachable(format!("cannot reach {daemon}, start it or `stas run` ({tried})")))
    }

    /// Over the bus, if the daemon is there.
    fn on_bus(role: Role, address: &Address, patience: Duration) -> Result<Client, String> {
        let on_bus = |why: String| format!("system bus: {why}");
        let mut client = Client::connect(role, address, patience).map_err(on_bus)?;
        client.on_bus = true;
        client.exchange(message::bus_call("Hello")).map_err(|failure| on_bus(failure.to_string()))?;
        let mut question = message::bus_call("NameHasOwner");
        question.body.push_param(role.name()).map_err(|error| error.to_string())?;
        let answer = client.exchange(question).map_err(|failure| on_bus(failure.to_string()))?;
        match answer.body.parser().get::<bool>() {
            Ok(true) => Ok(client),
            _ => Err(on_bus(format!("nobody has the name {}", role.name()))),
        }
    }

    /// Connects and authenticates.
    fn connect(role: Role, address: &Address, patience: Duration) -> Result<Client, String> {
        let stream = connect_stream(address, patience).map_err(|error| error.desc().to_owned())?;
        let mut client = Client { role, stream, patience, inbound: Vec::new(), serial: 0, on_bus: false };
        let deadline = Some(client.deadline());
        client.write(&sasl::client_greeting(geteuid().as_raw()), deadline)?;
        let line = client.read_until(deadline, |inbound| {
            let end = inbound.windows(2).position(|pair| pair == b"\r\n");
            Ok(end.map(|end| end.saturating_add(2)))
        })?;
        sasl::client_accepts(line.trim_ascii_end())?;
        client.write(sasl::CLIENT_BEGIN, deadline)?;
        Ok(client)
    }

    fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.patience).unwrap_or(now)
    }

    fn in_words(&self, error: &std::io::Error) -> String {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("no answer within {} s", self.patience.as_secs()),
            _ => error.to_string(),
        }
    }

    fn write(&mut self, bytes: &[u8], deadline: Option<Instant>) -> Result<(), String> {
        self.stream.set_write_timeout(deadline.map(left)).map_err(|error| error.to_string())?;
        self.stream.write_all(bytes).map_err(|error| self.in_words(&error))
    }

    /// Reads until `measure` finds that so many bytes are what is waited for, and takes them. Without a deadline, for ever.
    fn read_until(
        &mut self,
        deadline: Option<Instant>,
        measure: impl Fn(&[u8]) -> Result<Option<usize>, String>,
    ) -> Result<Vec<u8>, String> {
        let mut chunk = [0; 16 << 10];
        loop {
            match measure(&self.inbound)? {
                Some(length) if length <= self.inbound.len() => return Ok(self.inbound.drain(..length).collect()),
                _ => {}
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(self.in_words(&ErrorKind::TimedOut.into()));
            }
            self.stream.set_read_timeout(deadline.map(left)).map_err(|error| error.to_string())?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(length) => self.inbound.extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.in_words(&error)),
            }
        }
    }

    /// Sends a call and waits for its reply.
    fn exchange(&mut self, call: Message) -> Result<Message, Failure> {
        let deadline = Some(self.deadline());
        self.serial = self.serial.wrapping_add(1).max(1);
        let bytes = message::encode(&call, self.serial).map_err(Failure::Refused)?;
        self.write(&bytes, deadline).map_err(|why| self.unreachable(why))?;
        loop {
            let frame = self
                .read_until(deadline, |inbound| message::frame_length(inbound, MESSAGE_MAX))
                .map_err(|why| self.unreachable(why))?;
            let message = message::parse(&frame).map_err(Failure::Refused)?;
            match message.filter(|message| message.dynheader.response_serial == Some(self.serial)) {
                Some(error) if error.typ == MessageType::Error => {
                    return Err(Failure::Refused(format!("{} refused: {}", self.role.daemon(), refusal(&error))));
                }
                Some(reply) => return Ok(reply),
                // Signals come on the private socket without asking.
                None => {}
            }
        }
    }

    /// Asks for the signals of the daemon's object, and for the coming and going of the daemon. Over the private socket
    /// they come without asking.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn subscribe(&mut self) -> Result<(), Failure> {
        if !self.on_bus {
            return Ok(());
        }
        let (name, path) = (self.role.name(), self.role.path());
        for rule in [
            format!("type='signal',sender='{name}',path='{path}'"),
            format!("type='signal',sender='{BUS_NAME}',member='NameOwnerChanged',arg0='{name}'"),
        ] {
            let mut call = message::bus_call("AddMatch");
            call.body.push_param(rule).map_err(|error| Failure::Refused(error.to_string()))?;
            self.exchange(call)?;
        }
        Ok(())
    }

    /// Waits for the next signal, of whatever kind. One that came while a reply was waited for is lost: subscribe last.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn next_signal(&mut self) -> Result<Message, Failure> {
        loop {
            let frame = self
                .read_until(None, |inbound| message::frame_length(inbound, MESSAGE_MAX))
                .map_err(|why| self.unreachable(why))?;
            match message::parse(&frame).map_err(Failure::Refused)? {
                Some(signal) if signal.typ == MessageType::Signal => return Ok(signal),
                _ => {}
            }
        }
    }

    fn unreachable(&self, why: String) -> Failure {
        Failure::Unreachable(format!("{}: {why}", self.role.daemon()))
    }

    /// Calls a method of the daemon's object.
    ///
    /// # Errors
    /// When the daemon refuses or does not answer in time.
    pub fn call(
        &mut self,
        interface: &str,
        member: &str,
        arguments: impl FnOnce(&mut MarshalledMessageBody) -> Result<(), MarshalError>,
    ) -> Result<Message, Failure> {
        let mut call = message::call(self.role.name(), self.role.path(), interface, member);
        arguments(&mut call.body).map_err(|error| Failure::Refused(error.to_string()))?;
        self.exchange(call)
    }

    /// # Errors
    /// As [`Client::call`].
    pub fn list_controllers(&mut self, detailed: bool) -> Result<Vec<Pairs>, Failure> {
        let reply = self.call(self.role.interface(), "list_controllers", |body| body.push_param(detailed))?;
        dictionaries(&reply)
    }

    /// # Errors
    /// As [`Client::call`].
    pub fn log_pages(&mut self, id: &ControllerId) -> Result<Vec<Pairs>, Failure> {
        let reply = self.call(self.role.interface(), "get_log_pages", |body| body.push_params(&id.strings()))?;
        dictionaries(&reply)
    }

    /// # Errors
    /// As [`Client::call`].
    pub fn all_log_pages(&mut self, detailed: bool) -> Result<String, Failure> {
        text(&self.call(self.role.interface(), "get_all_log_pages", |body| body.push_param(detailed))?)
    }

    /// # Errors
    /// As [`Client::call`].
    pub fn process_info(&mut self) -> Result<String, Failure> {
        text(&self.call(self.role.debug_interface(), "process_info", |_| Ok(()))?)
    }

    /// # Errors
    /// As [`Client::call`].
    pub fn set_tron(&mut self, on: bool) -> Result<(), Failure> {
        let interface = self.role.debug_interface();
        self.call(PROPERTIES, "Set", |body| {
            body.push_param2(interface, "tron")?;
            body.push_variant(on)
        })?;
        Ok(())
    }
}

fn connect_stream(address: &Address, patience: Duration) -> nix::Result<UnixStream> {
    let target = match address {
        Address::Path(path) => UnixAddr::new(path)?,
        Address::Abstract(name) => UnixAddr::new_abstract(name)?,
    };
    let descriptor = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Connecting waits while the listener's backlog is full; this bounds it.
    setsockopt(&descriptor, SendTimeout, &TimeVal::new(patience.as_secs() as _, 0))?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&descriptor), &target)?;
    Ok(UnixStream::from(descriptor))
}

/// What is left until then; never zero, which would mean "for ever".
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// What an error reply says.
fn refusal(error: &Message) -> String {
    match error.dynheader.error_name.as_deref() {
        // Only setting properties is denied to anyone; the bus words it as a matter of its rules.
        Some("org.freedesktop.DBus.Error.AccessDenied") => "only root may do that".to_owned(),
        _ => message::error_text(error),
    }
}

fn text(reply: &Message) -> Result<String, Failure> {
    reply.body.parser().get::<String>().map_err(|error| Failure::Refused(format!("unexpected answer: {error}")))
}

fn dictionaries(reply: &Message) -> Result<Vec<Pairs>, Failure> {
    let parsed = reply.body.parser().get::<Vec<Dict<String, String>>>();
    let dictionaries = parsed.map_err(|error| Failure::Refused(format!("unexpected answer: {error}")))?;
    Ok(dictionaries.into_iter().map(|Dict(pairs)| pairs).collect())
}
