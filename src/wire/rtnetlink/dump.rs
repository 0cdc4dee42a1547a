//! What the kernel answers on a `NETLINK_ROUTE` socket: each link and each address that was asked for, and how a request
//! ended (kernel: include/uapi/linux/{if_link,netlink}.h).

use std::net::IpAddr;

use super::{
    AF_UNSPEC, IFF_RUNNING, IFINFOMSG, IFLA_IFNAME, RTM_NEWADDR, RTM_NEWLINK, find, is_usable, owner_and_ip, raw, text,
    u16_at, u32_at,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Message flag of a list that changed while it was told.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// Message flags of an [`Answer::End`]: the request is not repeated in full; attributes follow it.
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

const IFF_UP: u32 = 0x1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PERM_ADDRESS: u16 = 54;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;

/// A link, with what tells it from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link<'a> {
    pub index: u32,
    pub name: &'a str,
    /// Switched on.
    pub up: bool,
    /// Up, and with a carrier.
    pub running: bool,
    /// Its address; empty where it has none.
    pub address: &'a [u8],
    /// The one that it was made with; empty where it is not known (kernels before 5.6, links that are no hardware).
    pub permanent_address: &'a [u8],
    /// `vlan`, `bond`, `veth`, …; empty for hardware.
    pub kind: &'a str,
    /// The link that it is made on.
    pub below: Option<u32>,
    /// Of a `vlan`.
    pub vlan: Option<u16>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub interface: u32,
    pub ip: IpAddr,
    /// Bits of the network part.
    pub prefix: u8,
    /// May be used as a source.
    pub usable: bool,
}

/// The errno of a list that changed while it was told (EINTR).
pub const INTERRUPTED: i32 = 4;

/// A piece of what the kernel answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    Link(Link<'a>),
    Address(Address),
    /// The request is done; 0 or an errno, and the kernel's own word on it, which may be empty. [`INTERRUPTED`]: ask again.
    End {
        errno: i32,
        word: &'a str,
    },
}

/// The answers in a datagram, in order.
pub fn answers(datagram: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    raw(datagram).filter_map(|(header, body)| match u16_at(header, 4)? {
        RTM_NEWLINK => link(body).map(Answer::Link),
        RTM_NEWADDR => address(body).map(Answer::Address),
        NLMSG_DONE => {
            let is_whole = u16_at(header, 6)? & NLM_F_DUMP_INTR == 0;
            Some(Answer::End { errno: if is_whole { 0 } else { INTERRUPTED }, word: "" })
        }
        NLMSG_ERROR => end(u16_at(header, 6)?, body),
        _ => None,
    })
}

fn link(body: &[u8]) -> Option<Link<'_>> {
    if *body.first()? != AF_UNSPEC {
        return None;
    }
    let (index, flags) = (u32_at(body, 4)?, u32_at(body, 8)?);
    let attributes = body.get(IFINFOMSG..)?;
    let info = find(attributes, IFLA_LINKINFO).unwrap_or_default();
    let kind = find(info, IFLA_INFO_KIND).and_then(text).unwrap_or_default();
    let data = find(info, IFLA_INFO_DATA).filter(|_| kind == "vlan");
    // In another network namespace the index is another link's.
    let is_here = find(attributes, IFLA_LINK_NETNSID).is_none();
    Some(Link {
        index,
        name: text(find(attributes, IFLA_IFNAME)?)?,
        up: flags & IFF_UP != 0,
        running: flags & IFF_RUNNING != 0,
        address: find(attributes, IFLA_ADDRESS).unwrap_or_default(),
        permanent_address: find(attributes, IFLA_PERM_ADDRESS).unwrap_or_default(),
        kind,
        below: find(attributes, IFLA_LINK).and_then(|value| u32_at(value, 0)).filter(|_| is_here),
        vlan: data.and_then(|data| find(data, IFLA_VLAN_ID)).and_then(|value| u16_at(value, 0)),
    })
}

fn address(body: &[u8]) -> Option<Address> {
    let (interface, ip) = owner_and_ip(body)?;
    Some(Address { interface, ip, prefix: *body.get(1)?, usable: is_usable(body)? })
}

/// An errno is followed by the header of the request, or by all of it.
fn end(flags: u16, body: &[u8]) -> Option<Answer<'_>> {
    let errno = u32_at(body, 0)?.cast_signed().checked_neg()?;
    let request = match flags & NLM_F_CAPPED {
        0 => usize::try_from(u32_at(body, 4)?).ok()?,
        _ => super::HEADER,
    };
    let word = match flags & NLM_F_ACK_TLVS {
        0 => None,
        _ => body.get(super::aligned(request).checked_add(4)?..).and_then(|tlvs| find(tlvs, NLMSGERR_ATTR_MSG)),
    };
    Some(Answer::End { errno, word: word.and_then(text).unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{attribute, message};
    use super::*;

    fn header(flags: u32) -> Vec<u8> {
        [&[0, 0, 1, 0][..], &7u32.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]].concat()
    }

    fn only(datagram: &[u8]) -> Answer<'_> {
        let mut all = answers(datagram);
        let first = all.next().unwrap();
        assert_eq!(all.next(), None);
        first
    }

    #[test]
    fn a_vlan_is_told_with_what_it_is_made_on() {
        let data = attribute(IFLA_INFO_DATA, &attribute(IFLA_VLAN_ID, &100u16.to_ne_bytes()));
        let info = attribute(IFLA_LINKINFO, &[attribute(IFLA_INFO_KIND, b"vlan\0"), data].concat());
        let below = attribute(IFLA_LINK, &3u32.to_ne_bytes());
        let mac = attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]);
        let name = attribute(IFLA_IFNAME, b"eth0.100\0");
        let body = [header(0x1003), name, mac, below.clone(), info].concat();
        let datagram = message(RTM_NEWLINK, &body);
        let expected = Link {
            index: 7,
            name: "eth0.100",
            up: true,
            running: false,
            address: &[2, 0, 0, 0, 0, 1],
            permanent_address: &[],
            kind: "vlan",
            below: Some(3),
            vlan: Some(100),
        };
        assert_eq!(only(&datagram), Answer::Link(expected));
        // A veth whose other end is elsewhere.
        let elsewhere = attribute(IFLA_LINK_NETNSID, &[0; 4]);
        let body = [header(0x1043), attribute(IFLA_IFNAME, b"a\0"), below, elsewhere].concat();
        let datagram = message(RTM_NEWLINK, &body);
        let Answer::Link(Link { running: true, below: None, vlan: None, kind: "", .. }) = only(&datagram) else {
            panic!("{:?}", only(&datagram))
        };
        for end in 0..datagram.len() {
            assert_eq!(answers(&datagram[..end]).count(), 0, "{end}");
        }
    }

    #[test]
    fn an_address_is_told_with_its_prefix() {
        let body = [&[2, 24, 0x80, 0][..], &7u32.to_ne_bytes(), &attribute(2, &[192, 0, 2, 1])].concat();
        let ip = "192.0.2.1".parse().unwrap();
        let expected = Address { interface: 7, ip, prefix: 24, usable: true };
        assert_eq!(only(&message(RTM_NEWADDR, &body)), Answer::Address(expected));
    }

    #[test]
    fn a_refusal_comes_with_the_kernels_word() {
        let request = [&20u32.to_ne_bytes()[..], &[0; 16]].concat();
        let word = attribute(NLMSGERR_ATTR_MSG, b"Nexthop has invalid gateway\0");
        let refused = (-22i32).to_ne_bytes();
        let mut datagram = message(NLMSG_ERROR, &[&refused[..], &request, &word].concat());
        assert_eq!(only(&datagram), Answer::End { errno: 22, word: "" }, "there is no flag that says so");
        datagram[6..8].copy_from_slice(&NLM_F_ACK_TLVS.to_ne_bytes());
        assert_eq!(only(&datagram), Answer::End { errno: 22, word: "Nexthop has invalid gateway" });
        let capped = message(NLMSG_ERROR, &[&refused[..], &request[..16], &word].concat());
        let mut capped = capped;
        capped[6..8].copy_from_slice(&(NLM_F_ACK_TLVS | NLM_F_CAPPED).to_ne_bytes());
        assert_eq!(only(&capped), Answer::End { errno: 22, word: "Nexthop has invalid gateway" });
        assert_eq!(only(&message(NLMSG_DONE, &[0; 4])), Answer::End { errno: 0, word: "" });
        let mut interrupted = message(NLMSG_DONE, &[0; 4]);
        interrupted[6..8].copy_from_slice(&NLM_F_DUMP_INTR.to_ne_bytes());
        assert_eq!(only(&interrupted), Answer::End { errno: INTERRUPTED, word: "" });
        let lies = message(NLMSG_ERROR, &[&i32::MIN.to_ne_bytes()[..], &[0xff; 16]].concat());
        assert_eq!(answers(&lies).count(), 0);
    }
}
