//! Whether an NVMe/TCP controller answers at a portal: a non-blocking connect and an Initialize Connection Request, so
//! that nothing has to be asked of the kernel driver that would hold up every other connect of the host.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use crate::core::deadlines::Deadlines;
use crate::core::portal::PortalId;
use crate::kernel::address::socket_address;
use crate::wire::pdu::{self, Answer};

/// For the TCP connection: two lost SYNs are forgiven.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// For the ICResp; the kernel driver itself would wait 10 s.
const ANSWER_TIME: Duration = Duration::from_secs(5);

const CLOSED: &str = "something accepts connections there but closes them at once; it may demand TLS";

/// The outcome for a portal; `Err` says in words what is wrong.
pub type Outcome = (PortalId, Result<(), String>);

/// All probes under way.
#[derive(Debug)]
pub struct Probes {
    first_token: usize,
    /// Tokens are not used twice, so a late event cannot concern another probe.
    next_token: usize,
    probes: BTreeMap<usize, Probe>,
    deadlines: Deadlines<usize>,
    outcomes: VecDeque<Outcome>,
    /// Each needs a descriptor: so many at a time…
    most: usize,
    /// …while these wait.
    waiting: VecDeque<PortalId>,
}

#[derive(Debug)]
struct Probe {
    portal: PortalId,
    stream: TcpStream,
    /// What was received, once the connection stands.
    received: Option<Vec<u8>>,
}

impl Probes {
    /// All tokens from `first_token` on belong to probes, of which no more than `most` are under way at a time.
    pub fn new(first_token: Token, most: usize) -> Probes {
        Probes {
            first_token: first_token.0,
            next_token: first_token.0,
            probes: BTreeMap::new(),
            deadlines: Deadlines::default(),
            outcomes: VecDeque::new(),
            most,
            waiting: VecDeque::new(),
        }
    }

    pub fn has_token(&self, token: Token) -> bool {
        token.0 >= self.first_token
    }

    pub fn start(&mut self, now: Instant, portal: PortalId, registry: &Registry) {
        self.waiting.push_back(portal);
        self.start_waiting(now, registry);
    }

    /// To be called when probes have ended.
    pub fn start_waiting(&mut self, now: Instant, registry: &Registry) {
        while self.probes.len() < self.most
            && let Some(portal) = self.waiting.pop_front()
        {
            self.begin(now, portal, registry);
        }
    }

    fn begin(&mut self, now: Instant, portal: PortalId, registry: &Registry) {
        let token = self.next_token;
        self.next_token = token.checked_add(1).unwrap_or(self.first_token);
        let started = begin(&portal).and_then(|mut stream| {
            registry.register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        match started {
            Ok(stream) => {
                self.probes.insert(token, Probe { portal, stream, received: None });
                self.deadlines.set(token, now + CONNECT_TIME);
            }
            Err(error) => self.outcomes.push_back((portal, Err(explain(&error)))),
        }
    }

    /// The socket of a probe is ready.
    pub fn ready(&mut self, now: Instant, token: Token) {
        let Some(probe) = self.probes.get_mut(&token.0) else {
            return;
        };
        let was_connected = probe.received.is_some();
        if let Some(outcome) = probe.advance() {
            self.finish(token.0, outcome);
        } else if !was_connected && probe.received.is_some() {
            self.deadlines.set(token.0, now + ANSWER_TIME);
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    pub fn handle_deadline(&mut self, now: Instant) {
        while let Some(token) = self.deadlines.pop(now) {
            let answers = self.probes.get(&token).is_some_and(|probe| probe.received.is_some());
            let why = match answers {
                false => "nothing answers at that address",
                true => "something accepts connections there but does not answer as an NVMe/TCP controller",
            };
            self.finish(token, Err(why.to_owned()));
        }
    }

    fn finish(&mut self, token: usize, outcome: Result<(), String>) {
        self.deadlines.cancel(&token);
        if let Some(probe) = self.probes.remove(&token) {
            self.outcomes.push_back((probe.portal, outcome));
        }
    }

    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }
}

impl Probe {
    /// `Some` when it is decided.
    fn advance(&mut self) -> Option<Result<(), String>> {
        if self.received.is_none() {
            match self.connected() {
                Ok(false) => return None,
                Ok(true) if self.portal.tls => return Some(Ok(())),
                Ok(true) => {}
                Err(error) => return Some(Err(explain(&error))),
            }
            // The first bytes of a connection: they fit.
            if let Err(error) = self.stream.write_all(&pdu::ic_req()) {
                return Some(Err(explain(&error)));
            }
        }
        self.read_answer()
    }

    fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read_answer(&mut self) -> Option<Result<(), String>> {
        let received = self.received.get_or_insert_default();
        let mut piece = [0; pdu::IC_SIZE];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Some(Err(CLOSED.to_owned())),
                Ok(length) => received.extend_from_slice(piece.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Some(Err(explain(&error))),
            }
            match pdu::answer(received) {
                Answer::Incomplete => {}
                Answer::IcResp => return Some(Ok(())),
                Answer::Terminated(status) => {
                    return Some(Err(format!("the controller refuses connections (fatal error status {status:#x})")));
                }
                Answer::Foreign => return Some(Err("what listens there does not speak NVMe/TCP".to_owned())),
            }
        }
    }
}

/// A connection on its way, bound like the one that the kernel driver would make.
fn begin(portal: &PortalId) -> io::Result<TcpStream> {
    let bad_address = || io::Error::new(ErrorKind::InvalidInput, "not an address");
    let port = portal.trsvcid.parse().map_err(|_| bad_address())?;
    let peer = socket_address(&portal.traddr, port)?.ok_or_else(bad_address)?;
    let family = if peer.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None)?;
    if !portal.host_iface.is_empty() {
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from(&portal.host_iface))?;
    }
    if !portal.host_traddr.is_empty() {
        let source = socket_address(&portal.host_traddr, 0)?.ok_or_else(bad_address)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(source))?;
    }
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(peer)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from_std(socket.into())),
        Err(errno) => Err(errno.into()),
    }
}

/// In the words of the kernel's own connect failures. How a closed connection shows is a matter of chance.
fn explain(error: &io::Error) -> String {
    if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) {
        return CLOSED.to_owned();
    }
    match error.raw_os_error() {
        Some(errno) if errno == Errno::EINVAL as i32 => {
            "that address cannot be reached without an interface: a link-local one needs host-iface (EINVAL)".to_owned()
        }
        Some(errno) => crate::helper::message::Failure::Errno(errno).to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::net::{SocketAddr, TcpListener};

    const FIRST: Token = Token(10);

    fn portal(address: SocketAddr) -> PortalId {
        PortalId {
            traddr: address.ip().to_string(),
            trsvcid: address.port().to_string(),
            host_traddr: String::new(),
            host_iface: String::new(),
            tls: false,
        }
    }

    /// Probes a port behind which `serve` is run on the accepted connection.
    fn probe(portal: PortalId) -> Result<(), String> {
        let mut poll = Poll::new().unwrap();
        let mut probes = Probes::new(FIRST, 1);
        probes.start(Instant::now(), portal, poll.registry());
        let mut events = Events::with_capacity(8);
        loop {
            if let Some((_, outcome)) = probes.poll_outcome() {
                return outcome;
            }
            let now = Instant::now();
            let wait = probes.deadline().map(|at| at.saturating_duration_since(now));
            poll.poll(&mut events, wait).unwrap();
            for event in &events {
                probes.ready(Instant::now(), event.token());
            }
            probes.handle_deadline(Instant::now());
        }
    }

    fn probe_server(answer: Vec<u8>) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 128];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(request, pdu::ic_req());
            // In two pieces, as a network may deliver it.
            let (first, second) = answer.split_at(answer.len() / 2);
            stream.write_all(first).unwrap();
            stream.flush().unwrap();
            stream.write_all(second).unwrap();
        });
        let outcome = probe(portal(address));
        server.join().unwrap();
        outcome
    }

    fn ic_resp() -> Vec<u8> {
        let mut pdu = vec![0; 128];
        pdu[..5].copy_from_slice(&[1, 0, 128, 0, 128]);
        pdu
    }

    #[test]
    fn an_nvme_tcp_controller_is_recognised() {
        assert_eq!(probe_server(ic_resp()), Ok(()));
    }

    #[test]
    fn another_service_is_not_taken_for_one() {
        let answer = b"SSH-2.0-OpenSSH_9.2\r\n".to_vec();
        assert_eq!(probe_server(answer), Err("what listens there does not speak NVMe/TCP".to_owned()));
    }

    #[test]
    fn a_closed_port_is_said_to_be_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(probe(portal(address)).unwrap_err().contains("ECONNREFUSED"));
    }

    #[test]
    fn what_never_answers_runs_out_of_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut poll = Poll::new().unwrap();
        let mut probes = Probes::new(FIRST, 1);
        let start = Instant::now();
        probes.start(start, portal(listener.local_addr().unwrap()), poll.registry());
        poll.poll(&mut Events::with_capacity(8), None).unwrap();
        probes.ready(start, FIRST);
        assert!(probes.poll_outcome().is_none());
        let due = probes.deadline().unwrap();
        assert_eq!(due, start + ANSWER_TIME);
        probes.handle_deadline(due);
        let (_, outcome) = probes.poll_outcome().unwrap();
        assert!(outcome.unwrap_err().starts_with("something accepts connections there"));
        assert!(probes.deadline().is_none());
    }

    #[test]
    fn no_more_than_so_many_at_a_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let poll = Poll::new().unwrap();
        let mut probes = Probes::new(FIRST, 2);
        let start = Instant::now();
        (0..5).for_each(|_| probes.start(start, portal(listener.local_addr().unwrap()), poll.registry()));
        let ends: Vec<usize> = (1..=3)
            .map(|round| {
                let now = start + round * CONNECT_TIME;
                probes.handle_deadline(now);
                probes.start_waiting(now, poll.registry());
                std::iter::from_fn(|| probes.poll_outcome()).count()
            })
            .collect();
        assert_eq!(ends, [2, 2, 1]);
        assert_eq!(probes.deadline(), None);
    }

    #[test]
    fn however_a_connection_is_closed_it_is_the_same_news() {
        for linger in [None, Some(std::time::Duration::ZERO)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                // With a linger time of zero the connection is reset, not closed.
                let linger = nix::libc::linger { l_onoff: linger.is_some().into(), l_linger: 0 };
                setsockopt(&stream, sockopt::Linger, &linger).unwrap();
            });
            assert_eq!(probe(portal(address)), Err(CLOSED.to_owned()));
            server.join().unwrap();
        }
    }

    #[test]
    fn an_address_that_there_may_be_on_every_interface_is_said_to_need_one() {
        // Where there is no IPv6 at all, that is said.
        let why = probe(portal("[fe80::1]:9".parse().unwrap())).unwrap_err();
        assert!(why.contains("a link-local one needs host-iface") || !why.contains("EINVAL"), "{why}");
    }

    #[test]
    fn an_interface_that_does_not_exist_is_an_answer() {
        let portal = PortalId { host_iface: "nosuch0".into(), ..portal("127.0.0.1:9".parse().unwrap()) };
        assert!(probe(portal).is_err());
    }
}
