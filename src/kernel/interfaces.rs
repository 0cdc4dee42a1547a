//! The network interfaces of this host, asked of the kernel and set up by it: rtnetlink(7). What the bytes say is for
//! [`crate::wire::rtnetlink`].

use std::fmt;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, sendmsg, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::core::interface::{InterfaceAddress, Mac, NetworkInterface};
use crate::wire::rtnetlink::dump::{Address, Answer, INTERRUPTED, Link, answers};
use crate::wire::rtnetlink::request;

/// The kernel fills datagrams up to this size (kernel: `netlink_dump`).
const DATAGRAM_MAX: usize = 32 << 10;

/// The kernel answers within the call that asks, unless a driver holds it up.
const PATIENCE: i64 = 30;

/// Where interfaces come and go, a list of them may not be had in one piece at once.
const ATTEMPTS: u32 = 5;

/// More than any host has; what comes after is left out.
const INTERFACES_MAX: usize = 4096;

/// Why the kernel did not do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    errno: Errno,
    /// The kernel's own explanation; may be empty.
    word: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.word.is_empty() { self.errno.desc() } else { &self.word };
        write!(f, "{word} ({:?})", self.errno)
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        Refusal { errno, word: String::new() }
    }
}

/// Every interface with its addresses.
///
/// # Errors
/// The kernel cannot be asked, or the list changes again and again while it tells.
pub fn read() -> Result<Vec<NetworkInterface>, Refusal> {
    let interrupted = |refusal: &Refusal| refusal.errno as i32 == INTERRUPTED;
    let mut outcome = try_read();
    for _ in 1..ATTEMPTS {
        if !outcome.as_ref().is_err_and(interrupted) {
            break;
        }
        outcome = try_read();
    }
    outcome
}

fn try_read() -> Result<Vec<NetworkInterface>, Refusal> {
    let socket = Socket::open()?;
    let mut interfaces: Vec<NetworkInterface> = Vec::new();
    socket.ask(&request::all_links(), |answer| {
        if let (Answer::Link(link), 0..INTERFACES_MAX) = (answer, interfaces.len()) {
            interfaces.push(interface(&link));
        }
    })?;
    socket.ask(&request::all_addresses(), |answer| {
        if let Answer::Address(Address { interface, ip, usable, .. }) = answer
            && let Some(owner) = interfaces.iter_mut().find(|one| one.index == interface)
        {
            owner.addresses.push(InterfaceAddress { ip: ip.to_canonical(), is_usable: usable });
        }
    })?;
    Ok(interfaces)
}

/// Carries out requests of [`request`] one after the other; what is so already is no error. To switch an interface on may
/// take seconds.
///
/// # Errors
/// The first one that the kernel refuses; those after it are not made.
pub fn change(requests: &[u8]) -> Result<(), Refusal> {
    let socket = Socket::open()?;
    request::split(requests).try_for_each(|request| match socket.ask(request, |_| {}) {
        Err(Refusal { errno: Errno::EEXIST, .. }) => Ok(()),
        outcome => outcome,
    })
}

fn interface(link: &Link<'_>) -> NetworkInterface {
    let mac = |bytes: &[u8]| bytes.try_into().ok().map(Mac).filter(|mac| *mac != Mac([0; 6]));
    NetworkInterface {
        index: link.index,
        name: link.name.to_owned(),
        mac: mac(link.address),
        permanent_mac: mac(link.permanent_address),
        kind: link.kind.to_owned(),
        below: link.below,
        vlan: link.vlan,
        is_up: link.up,
        is_running: link.running,
        addresses: Vec::new(),
    }
}

struct Socket(OwnedFd);

impl Socket {
    fn open() -> nix::Result<Socket> {
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        want_words(&socket);
        Ok(Socket(socket))
    }

    /// Makes one request, and hands on what comes until it is done.
    fn ask(&self, request: &[u8], mut take: impl FnMut(Answer<'_>)) -> Result<(), Refusal> {
        let kernel = NetlinkAddr::new(0, 0);
        sendmsg(self.0.as_raw_fd(), &[IoSlice::new(request)], &[], MsgFlags::empty(), Some(&kernel))?;
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            let (length, sender) = recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut buffer)?;
            // Anybody may send to a netlink socket.
            if sender.is_none_or(|sender| sender.pid() != 0) {
                continue;
            }
            for answer in answers(buffer.get(..length).unwrap_or_default()) {
                match answer {
                    Answer::End { errno: 0, .. } => return Ok(()),
                    Answer::End { errno, word } => {
                        return Err(Refusal { errno: Errno::from_raw(errno), word: word.to_owned() });
                    }
                    answer => take(answer),
                }
            }
        }
    }
}

/// Has the kernel explain its refusals, and not repeat what was refused (NETLINK_EXT_ACK, NETLINK_CAP_ACK). Where it cannot,
/// the errno has to do.
fn want_words(socket: &OwnedFd) {
    let on: libc::c_int = 1;
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        // SAFETY: the option value is an integer of the given size, which the call copies.
        #[allow(unsafe_code)]
        unsafe {
            let size = size_of_val(&on) as libc::socklen_t;
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_hosts_interfaces_can_be_read() {
        let interfaces = read().unwrap();
        let loopback = interfaces.iter().find(|interface| interface.name == "lo").unwrap();
        assert_eq!((loopback.mac, loopback.vlan, loopback.below), (None, None, None));
        if loopback.is_up {
            assert!(loopback.has_address("127.0.0.1".parse().unwrap()), "{loopback:?}");
        }
    }

    #[test]
    fn a_refusal_is_an_error() {
        assert!(change(&request::switch_on(0x7fff_fff0)).is_err());
        assert!(change(&[]).is_ok());
    }
}
