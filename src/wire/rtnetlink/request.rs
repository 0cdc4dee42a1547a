//! Requests to the network layer, in the kernel's words: ask for all links and addresses, switch a link on, make a VLAN, give
//! an interface an address, add a route (kernel: include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h).
//!
//! Several requests are one row of bytes; the kernel answers each with [`Answer::End`](super::dump::Answer).

use std::net::IpAddr;

use super::{AF_INET, AF_INET6, HEADER, IFLA_IFNAME, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTN_UNICAST, aligned};

const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const IFF_UP: u32 = 0x1;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTNH_F_ONLINK: u32 = 4;
/// So that whoever looks knows whose it is not: RTPROT_BOOT, as of `ip route add`.
const RTPROT_BOOT: u8 = 3;

/// A way to `destination`, through a gateway behind an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// `None`: to everywhere.
    pub destination: Option<IpAddr>,
    pub gateway: IpAddr,
    /// The gateway is behind the interface, although no address of the interface says so.
    pub on_link: bool,
    pub interface: u32,
    /// Of several routes to one destination, the smallest is taken.
    pub metric: u32,
}

/// Asks for all links; then ask for [`all_addresses`].
pub fn all_links() -> Vec<u8> {
    message(RTM_GETLINK, NLM_F_DUMP, &[0; 16], &[])
}

/// Asks for all addresses.
pub fn all_addresses() -> Vec<u8> {
    message(RTM_GETADDR, NLM_F_DUMP, &[0; 8], &[])
}

/// Switches a link on.
pub fn switch_on(interface: u32) -> Vec<u8> {
    message(RTM_NEWLINK, NLM_F_ACK, &link_header(interface), &[])
}

/// Makes a VLAN on a link, switched on. Its name has at most 15 bytes.
pub fn make_vlan(below: u32, id: u16, name: &str) -> Vec<u8> {
    let data = attribute(IFLA_INFO_DATA, &attribute(IFLA_VLAN_ID, &id.to_ne_bytes()));
    let info = [attribute(IFLA_INFO_KIND, b"vlan\0"), data].concat();
    let attributes = [
        attribute(IFLA_LINK, &below.to_ne_bytes()),
        attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat()),
        attribute(IFLA_LINKINFO, &info),
    ];
    message(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &link_header(0), &attributes)
}

/// Gives an interface an address in a network of so many bits.
pub fn add_address(interface: u32, ip: IpAddr, prefix: u8) -> Vec<u8> {
    let (family, bytes) = family_and_bytes(ip);
    let header = [&[family, prefix, 0, 0][..], &interface.to_ne_bytes()].concat();
    let mut attributes = vec![attribute(IFA_LOCAL, &bytes), attribute(IFA_ADDRESS, &bytes)];
    if let (IpAddr::V4(ip), 0..31) = (ip, prefix) {
        let broadcast = ip.to_bits() | u32::MAX.checked_shr(prefix.into()).unwrap_or_default();
        attributes.push(attribute(IFA_BROADCAST, &broadcast.to_be_bytes()));
    }
    message(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &header, &attributes)
}

/// Adds a route.
pub fn add_route(route: &Route) -> Vec<u8> {
    let (family, gateway) = family_and_bytes(route.gateway);
    let destination = route.destination.map(|ip| family_and_bytes(ip).1);
    let bits = destination.as_ref().map_or(0, |bytes| bytes.len().saturating_mul(8));
    let flags = if route.on_link { RTNH_F_ONLINK } else { 0 };
    let bits = u8::try_from(bits).unwrap_or_default();
    let kind = [family, bits, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST];
    let header = [&kind[..], &flags.to_ne_bytes()].concat();
    let mut attributes = vec![
        attribute(RTA_GATEWAY, &gateway),
        attribute(RTA_OIF, &route.interface.to_ne_bytes()),
        attribute(RTA_PRIORITY, &route.metric.to_ne_bytes()),
    ];
    attributes.extend(destination.map(|bytes| attribute(RTA_DST, &bytes)));
    message(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &header, &attributes)
}

/// The requests in a row of them.
pub fn split(requests: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lengths = super::raw(requests).map(|(header, body)| aligned(header.len().saturating_add(body.len())));
    lengths.scan(requests, |rest, length| {
        let (request, after) = rest.split_at_checked(length)?;
        *rest = after;
        Some(request)
    })
}

fn link_header(interface: u32) -> Vec<u8> {
    [&[0; 4][..], &interface.to_ne_bytes(), &IFF_UP.to_ne_bytes(), &IFF_UP.to_ne_bytes()].concat()
}

fn family_and_bytes(ip: IpAddr) -> (u8, Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    }
}

fn message(kind: u16, flags: u16, header: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    let body = [header, &attributes.concat()].concat();
    let length = u32::try_from(HEADER.saturating_add(body.len())).unwrap_or_default();
    let flags = flags | NLM_F_REQUEST;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], &body].concat();
    bytes.resize(aligned(bytes.len()), 0);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len().saturating_add(4)).unwrap_or_default();
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(aligned(bytes.len()), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::dump::{Address, Answer, answers};
    use super::super::{Message, find, messages, raw};
    use super::*;

    /// What we ask for is what the kernel would tell, so our own views read it.
    #[test]
    fn a_vlan_and_an_address_read_as_what_they_are() {
        let bytes = [make_vlan(3, 100, "eth0.100"), add_address(7, "192.0.2.10".parse().unwrap(), 24)].concat();
        let read: Vec<Answer<'_>> = answers(&bytes).collect();
        let [Answer::Link(link), Answer::Address(address)] = read[..] else { panic!("{read:?}") };
        assert_eq!((link.name, link.kind, link.below, link.vlan), ("eth0.100", "vlan", Some(3), Some(100)));
        assert!(link.up);
        assert_eq!(address, Address { interface: 7, ip: "192.0.2.10".parse().unwrap(), prefix: 24, usable: true });
        let broadcast = |prefix| {
            let bytes = add_address(7, "192.0.2.10".parse().unwrap(), prefix);
            let (_, body) = raw(&bytes).next().unwrap();
            find(&body[8..], IFA_BROADCAST).map(<[u8]>::to_vec)
        };
        assert_eq!(broadcast(24), Some(vec![192, 0, 2, 255]));
        assert_eq!([broadcast(31), broadcast(32)], [None, None]);
        let v6 = add_address(7, "2001:db8::1".parse().unwrap(), 64);
        assert!(matches!(answers(&v6).next(), Some(Answer::Address(Address { prefix: 64, .. }))));
    }

    #[test]
    fn a_route_has_its_gateway_and_its_metric() {
        let everywhere = Route {
            destination: None,
            gateway: "192.0.2.1".parse().unwrap(),
            on_link: true,
            interface: 7,
            metric: 20001,
        };
        let bytes = add_route(&everywhere);
        assert_eq!(messages(&bytes).collect::<Vec<_>>(), [Message::DefaultRoute]);
        let (_, body) = raw(&bytes).next().unwrap();
        assert_eq!(body[..12], [&[2, 0, 0, 0, 254, 3, 0, 1][..], &4u32.to_ne_bytes()].concat());
        assert_eq!(find(&body[12..], RTA_GATEWAY), Some(&[192, 0, 2, 1][..]));
        assert_eq!(find(&body[12..], RTA_PRIORITY), Some(&20001u32.to_ne_bytes()[..]));
        assert_eq!(find(&body[12..], RTA_DST), None);
        let host = Route { destination: Some("198.51.100.1".parse().unwrap()), on_link: false, ..everywhere };
        let bytes = add_route(&host);
        let (_, body) = raw(&bytes).next().unwrap();
        assert_eq!((body[1], find(&body[12..], RTA_DST)), (32, Some(&[198, 51, 100, 1][..])));
    }

    #[test]
    fn every_request_is_whole_and_aligned() {
        let all = [all_links(), all_addresses(), switch_on(3), make_vlan(3, 1, "v")];
        for bytes in &all {
            assert_eq!(bytes.len() % 4, 0);
        }
        assert_eq!(split(&all.concat()).collect::<Vec<_>>(), all);
    }
}
