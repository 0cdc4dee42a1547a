//! Listens to the kernel about the network, as long as somebody waits for something to become reachable: with
//! everything connected, no container that comes or goes wakes us up.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::net::if_::if_indextoname;

use crate::core::network::NetworkChange;
use crate::kernel::netlink::{KernelSocket, MESSAGE_MAX, Received};
use crate::kernel::rtnetlink;
use crate::wire::rtnetlink::{Message, messages};

#[derive(Debug)]
pub struct Network {
    token: Token,
    socket: Option<KernelSocket>,
    /// It cannot be had; not tried again before the next time that somebody begins to wait.
    failed: bool,
    /// That was said.
    complained: bool,
    seen: Seen,
}

/// What was told so far: the kernel repeats itself whenever anything else about a link or an address changes.
#[derive(Debug, Default)]
struct Seen {
    running: BTreeMap<u32, String>,
    addresses: BTreeSet<(u32, IpAddr)>,
}

impl Network {
    pub fn new(token: Token) -> Network {
        Network { token, socket: None, failed: false, complained: false, seen: Seen::default() }
    }

    /// Listens, or does not, by whether somebody waits. Whether it begins to listen.
    pub fn listen(&mut self, somebody_waits: bool, registry: &Registry) -> bool {
        if !somebody_waits {
            // Closing it takes it out of the poll.
            self.socket = None;
            self.failed = false;
        } else if self.socket.is_none() && !self.failed {
            self.seen = Seen::default();
            match self.open(registry) {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => self.fail(&error),
            }
            return true;
        }
        false
    }

    fn open(&self, registry: &Registry) -> io::Result<KernelSocket> {
        let socket = rtnetlink::open()?;
        registry.register(&mut SourceFd(&socket.as_raw_fd()), self.token, Interest::READABLE)?;
        Ok(socket)
    }

    fn fail(&mut self, error: &io::Error) {
        self.socket = None;
        self.failed = true;
        if !std::mem::replace(&mut self.complained, true) {
            log::warn!(
                "netlink: {error}; links that come up are not noticed, what is unreachable is tried again by time"
            );
        }
    }

    /// The socket is readable: what changed.
    pub fn ready(&mut self) -> Vec<NetworkChange> {
        let mut changes = Vec::new();
        let mut buffer = [0; MESSAGE_MAX];
        while let Some(socket) = &self.socket {
            match socket.recv(&mut buffer) {
                Ok(Received::Nothing) => break,
                Ok(Received::Overflow | Received::Truncated) => {
                    self.seen = Seen::default();
                    changes.push(NetworkChange::Anything);
                }
                Ok(Received::Forged) => {}
                Ok(Received::Event(datagram)) => {
                    let name = |index| if_indextoname(index).ok()?.into_string().ok();
                    changes.extend(messages(datagram).filter_map(|message| self.seen.news(message, name)));
                }
                Err(error) => {
                    self.fail(&error);
                    changes.push(NetworkChange::Anything);
                }
            }
        }
        changes
    }
}

impl Seen {
    /// What a message says that was not so before.
    fn news(&mut self, message: Message<'_>, name_of: impl Fn(u32) -> Option<String>) -> Option<NetworkChange> {
        match message {
            Message::Link { interface, name, running: true } => {
                let before = self.running.insert(interface, name.to_owned());
                (before.as_deref() != Some(name)).then(|| NetworkChange::Link(name.to_owned()))
            }
            Message::Link { interface, .. } => {
                self.running.remove(&interface);
                None
            }
            Message::LinkGone { interface } => {
                self.running.remove(&interface);
                self.addresses.retain(|(of, _)| *of != interface);
                None
            }
            Message::Address { interface, ip, usable: true } => {
                // Without a name it is gone again already.
                let is_new = self.addresses.insert((interface, ip));
                is_new.then(|| name_of(interface)).flatten().map(|interface| NetworkChange::Address { interface, ip })
            }
            Message::Address { interface, ip, .. } | Message::AddressGone { interface, ip } => {
                self.addresses.remove(&(interface, ip));
                None
            }
            Message::DefaultRoute => Some(NetworkChange::Anything),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_is_told() {
        let mut seen = Seen::default();
        let name = |index| Some(format!("eth{index}"));
        let link = |running| Message::Link { interface: 1, name: "eth1", running };
        let up = Some(NetworkChange::Link("eth1".into()));
        assert_eq!(seen.news(link(true), name), up);
        assert_eq!(seen.news(link(true), name), None, "something else about it changed");
        assert_eq!(seen.news(link(false), name), None);
        assert_eq!(seen.news(link(true), name), up);

        let ip: IpAddr = "fe80::1".parse().unwrap();
        let address = |usable| Message::Address { interface: 1, ip, usable };
        let new = Some(NetworkChange::Address { interface: "eth1".into(), ip });
        assert_eq!(seen.news(address(false), name), None);
        assert_eq!(seen.news(address(true), name), new);
        assert_eq!(seen.news(address(true), name), None, "a router renewed its lifetime");
        assert_eq!(seen.news(Message::AddressGone { interface: 1, ip }, name), None);
        assert_eq!(seen.news(address(true), name), new);
        assert_eq!(seen.news(Message::LinkGone { interface: 1 }, name), None);
        assert_eq!((seen.running.len(), seen.addresses.len()), (0, 0));
    }

    #[test]
    fn the_socket_can_be_had_and_is_quiet() {
        let poll = mio::Poll::new().unwrap();
        let mut network = Network::new(Token(1));
        network.listen(true, poll.registry());
        assert!(network.socket.is_some());
        network.ready();
        network.listen(false, poll.registry());
        assert!(network.socket.is_none() && network.ready().is_empty());
    }
}
