//! What the kernel says about the network: links, addresses and routes, as they arrive on a `NETLINK_ROUTE` socket.
//!
//! A datagram is a row of messages, each a header, a fixed part by its type, and attributes; all in the byte order of this
//! machine, everything aligned to 4 bytes (kernel: include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h). Only what may
//! make something reachable is of interest here; the rest, and what is cut short, is passed over. `dump` has all that an
//! answer to a question says, `request` makes what the kernel will read.

pub mod dump;
pub mod request;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
pub const RTM_NEWROUTE: u16 = 24;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const HEADER: usize = 16;
const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;
const RTMSG: usize = 12;

const IFF_RUNNING: u32 = 0x40;
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_OPTIMISTIC: u32 = 0x04;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;
const RTN_UNICAST: u8 = 1;

/// The bits of an attribute's type that are not flags.
const ATTRIBUTE_TYPE: u16 = 0x3fff;

/// Something about the network. `interface` is its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// The state of a link: `running` if it is up and has a carrier.
    Link {
        interface: u32,
        name: &'a str,
        running: bool,
    },
    LinkGone {
        interface: u32,
    },
    /// `usable`: may be used as a source; an IPv6 address is not while it is looked for in use elsewhere.
    Address {
        interface: u32,
        ip: IpAddr,
        usable: bool,
    },
    AddressGone {
        interface: u32,
        ip: IpAddr,
    },
    /// There is a default route.
    DefaultRoute,
}

/// The messages of a datagram that are of interest, in order.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    raw(datagram).filter_map(|(header, body)| parse(u16_at(header, 4)?, body))
}

/// All messages of a datagram: header and body of each.
fn raw(datagram: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let message = rest.get(..length)?.split_at_checked(HEADER)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

fn parse(kind: u16, body: &[u8]) -> Option<Message<'_>> {
    match kind {
        RTM_NEWLINK | RTM_DELLINK => link(kind, body),
        RTM_NEWADDR | RTM_DELADDR => address(kind, body),
        RTM_NEWROUTE => route(body),
        _ => None,
    }
}

fn link(kind: u16, body: &[u8]) -> Option<Message<'_>> {
    // Bridges tell of their ports under a family of their own.
    if *body.first()? != AF_UNSPEC {
        return None;
    }
    let (interface, flags) = (u32_at(body, 4)?, u32_at(body, 8)?);
    if kind == RTM_DELLINK {
        return Some(Message::LinkGone { interface });
    }
    let name = text(find(body.get(IFINFOMSG..)?, IFLA_IFNAME)?)?;
    Some(Message::Link { interface, name, running: flags & IFF_RUNNING != 0 })
}

fn address(kind: u16, body: &[u8]) -> Option<Message<'_>> {
    let (interface, ip) = owner_and_ip(body)?;
    Some(match kind {
        RTM_DELADDR => Message::AddressGone { interface, ip },
        _ => Message::Address { interface, ip, usable: is_usable(body)? },
    })
}

fn owner_and_ip(body: &[u8]) -> Option<(u32, IpAddr)> {
    let (family, interface) = (*body.first()?, u32_at(body, 4)?);
    let attributes = body.get(IFADDRMSG..)?;
    // Where both are there, IFA_ADDRESS is the peer's (rtnetlink(7)).
    let bytes = find(attributes, IFA_LOCAL).or_else(|| find(attributes, IFA_ADDRESS))?;
    let ip = match family {
        AF_INET => IpAddr::from(<[u8; 4]>::try_from(bytes).map(Ipv4Addr::from).ok()?),
        AF_INET6 => IpAddr::from(<[u8; 16]>::try_from(bytes).map(Ipv6Addr::from).ok()?),
        _ => return None,
    };
    Some((interface, ip))
}

/// Of an address: whether it may be used as a source.
fn is_usable(body: &[u8]) -> Option<bool> {
    // The header has room for the lower eight flags only.
    let all_flags = find(body.get(IFADDRMSG..)?, IFA_FLAGS).and_then(|bytes| u32_at(bytes, 0));
    let flags = all_flags.unwrap_or(u32::from(*body.get(2)?));
    let tentative = flags & IFA_F_TENTATIVE != 0 && flags & IFA_F_OPTIMISTIC == 0;
    Some(!tentative && flags & IFA_F_DADFAILED == 0)
}

fn route(body: &[u8]) -> Option<Message<'_>> {
    let (header, _) = body.split_at_checked(RTMSG)?;
    let (destination_bits, kind) = (*header.get(1)?, *header.get(7)?);
    (destination_bits == 0 && kind == RTN_UNICAST).then_some(Message::DefaultRoute)
}

/// The value of the first attribute of a type.
fn find(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    loop {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & ATTRIBUTE_TYPE;
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(aligned(length)..)?;
    }
}

/// A string that ends in NUL.
fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(b"\0").unwrap_or(value)).ok()
}

fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = (HEADER + body.len()) as u32;
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat();
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = (4 + value.len()) as u16;
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn link_body(family: u8, flags: u32) -> Vec<u8> {
        let header = [&[family, 0, 1, 0][..], &7u32.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]].concat();
        [header, attribute(4, &[0; 4]), attribute(IFLA_IFNAME, b"eth0\0")].concat()
    }

    fn address_body(family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        [vec![family, 24, 0x80, 0], 7u32.to_ne_bytes().into(), attributes.concat()].concat()
    }

    fn only(datagram: &[u8]) -> Option<Message<'_>> {
        let mut all = messages(datagram);
        let first = all.next();
        assert_eq!(all.next(), None);
        first
    }

    #[test]
    fn a_link_is_told_with_its_state() {
        for (flags, running) in [(0x1043, true), (0x1003, false)] {
            let datagram = message(RTM_NEWLINK, &link_body(AF_UNSPEC, flags));
            assert_eq!(only(&datagram), Some(Message::Link { interface: 7, name: "eth0", running }));
        }
        assert_eq!(only(&message(RTM_DELLINK, &link_body(AF_UNSPEC, 0))), Some(Message::LinkGone { interface: 7 }));
        assert_eq!(only(&message(RTM_NEWLINK, &link_body(7, 0x1043))), None, "a bridge about its port");
    }

    #[test]
    fn an_address_is_usable_once_it_is_no_longer_tentative() {
        let ip = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
        let peer = attribute(IFA_ADDRESS, &[192, 0, 2, 2]);
        let body = address_body(AF_INET, &[peer, attribute(IFA_LOCAL, &[192, 0, 2, 1])]);
        assert_eq!(only(&message(RTM_NEWADDR, &body)), Some(Message::Address { interface: 7, ip, usable: true }));
        assert_eq!(only(&message(RTM_DELADDR, &body)), Some(Message::AddressGone { interface: 7, ip }));
        let link_local = "fe80::1".parse::<Ipv6Addr>().unwrap();
        for (flags, usable) in [(0x80u32, true), (0x40, false), (0x44, true), (0x48, false), (0x08, false)] {
            let attributes = [attribute(IFA_ADDRESS, &link_local.octets()), attribute(IFA_FLAGS, &flags.to_ne_bytes())];
            let datagram = message(RTM_NEWADDR, &address_body(AF_INET6, &attributes));
            let expected = Message::Address { interface: 7, ip: link_local.into(), usable };
            assert_eq!(only(&datagram), Some(expected), "{flags:#x}");
        }
    }

    #[test]
    fn of_routes_only_the_default_one_counts() {
        let route = |bits, kind| message(RTM_NEWROUTE, &[AF_INET, bits, 0, 0, 254, 3, 0, kind, 0, 0, 0, 0]);
        assert_eq!(only(&route(0, RTN_UNICAST)), Some(Message::DefaultRoute));
        assert_eq!(only(&route(24, RTN_UNICAST)), None);
        assert_eq!(only(&route(0, 7)), None, "unreachable");
    }

    #[test]
    fn several_messages_come_in_order_and_a_cut_one_ends_them() {
        let link = message(RTM_NEWLINK, &link_body(AF_UNSPEC, 0x1043));
        let route = message(RTM_NEWROUTE, &[AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0]);
        let both = [&link[..], &message(3, &[]), &route].concat();
        assert_eq!(messages(&both).count(), 2);
        for end in 0..both.len() {
            assert!(messages(&both[..end]).count() < 2, "{end}");
        }
        assert_eq!(messages(&[0; 64]).count(), 0, "a length of zero");
    }
}
