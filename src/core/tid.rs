//! Transport ids: what tells one NVMe-oF controller from another.
//!
//! A [`TransportId`] is canonical from the moment it is made: IP addresses are compared as addresses (an IPv4-mapped
//! IPv6 address equals the IPv4 one, a zone is kept), FC and loop addresses without case. So `==`, `Ord` and map
//! look-ups on transport ids mean "the same controller as asked for", and no other place needs to know how addresses
//! are spelled.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

/// The NQN that every discovery subsystem answers to (NVM Express Base Specification, "NVMe Qualified Names").
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// Longest NQN in bytes, terminator not counted (kernel: `NVMF_NQN_SIZE` less one).
pub const NQN_MAX: usize = 223;

/// Size of an interface name with its terminator (kernel: include/uapi/linux/if.h).
const IFNAMSIZ: usize = 16;

/// A fabric that the Linux host driver can speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Transport {
    Tcp,
    Rdma,
    Fc,
    Loop,
}

impl Transport {
    /// The kernel's and the configuration's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Rdma => "rdma",
            Transport::Fc => "fc",
            Transport::Loop => "loop",
        }
    }

    /// Case does not matter; `None` for anything that is not a fabric (`pcie` among them).
    pub fn parse(word: &str) -> Option<Transport> {
        [Transport::Tcp, Transport::Rdma, Transport::Fc, Transport::Loop]
            .into_iter()
            .find(|transport| word.eq_ignore_ascii_case(transport.as_str()))
    }

    /// Whether addresses of this transport are IP addresses with a port.
    pub fn is_ip(self) -> bool {
        matches!(self, Transport::Tcp | Transport::Rdma)
    }

    /// The port of a discovery controller where none is given (NVMe/TCP and NVMe/RDMA transport specifications).
    pub fn default_discovery_trsvcid(self) -> &'static str {
        match self {
            Transport::Tcp => "8009",
            Transport::Rdma => "4420",
            Transport::Fc | Transport::Loop => "",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identifies a controller together with the way to reach it. An empty string means "not given". Ordered by transport,
/// address, service id and NQN, and then by the way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TransportId {
    transport: Transport,
    place: Place,
    /// Thousands that one log page lists have this in common.
    way: Rc<Way>,
}

/// Address, service id and NQN in one piece of memory, so that one comparison does for all three: the first two end with a
/// NUL, which none of them contains.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    text: Box<str>,
    trsvcid_at: usize,
    subsysnqn_at: usize,
}

impl Place {
    fn new(traddr: &str, trsvcid: &str, subsysnqn: &str) -> Place {
        let trsvcid_at = traddr.len() + 1;
        let subsysnqn_at = trsvcid_at + trsvcid.len() + 1;
        let mut text = String::with_capacity(subsysnqn_at + subsysnqn.len());
        [traddr, "\0", trsvcid, "\0", subsysnqn].iter().for_each(|part| text.push_str(part));
        Place { text: text.into(), trsvcid_at, subsysnqn_at }
    }

    fn part(&self, begin: usize, end: usize) -> &str {
        self.text.get(begin..end).unwrap_or_default()
    }
}

impl Ord for TransportId {
    fn cmp(&self, other: &TransportId) -> Ordering {
        let places = || self.place.text.cmp(&other.place.text);
        let ways = || if Rc::ptr_eq(&self.way, &other.way) { Ordering::Equal } else { self.way.cmp(&other.way) };
        self.transport.cmp(&other.transport).then_with(places).then_with(ways)
    }
}

impl PartialOrd for TransportId {
    fn partial_cmp(&self, other: &TransportId) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// From where and as whom a controller is reached.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    host_traddr: Box<str>,
    host_iface: Box<str>,
    host_nqn: Box<str>,
}

/// The parts of a [`TransportId`] as somebody spelled them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spelling<'a> {
    pub traddr: &'a str,
    pub trsvcid: &'a str,
    pub subsysnqn: &'a str,
    pub host_traddr: &'a str,
    pub host_iface: &'a str,
    pub host_nqn: &'a str,
}

impl TransportId {
    /// Brings a spelling into canonical form. Does not judge whether the address makes sense: see
    /// [`is_usable_address`].
    pub fn new(transport: Transport, spelling: Spelling<'_>) -> TransportId {
        let Spelling { traddr, trsvcid, subsysnqn, host_traddr, host_iface, host_nqn } = spelling;
        let traddr = canonical_address(transport, traddr);
        let trsvcid = canonical_service(transport, trsvcid);
        let way = Rc::new(Way {
            host_traddr: canonical_address(transport, host_traddr).into(),
            host_iface: host_iface.trim().into(),
            host_nqn: host_nqn.trim().into(),
        });
        let [traddr, trsvcid, subsysnqn] = [&traddr, &trsvcid, subsysnqn.trim()].map(|part| part.replace('\0', ""));
        TransportId { transport, place: Place::new(&traddr, &trsvcid, &subsysnqn), way }
    }

    /// One whose parts are canonical, reached in whatever way.
    pub fn unpinned(transport: Transport, traddr: &str, trsvcid: &str, subsysnqn: &str) -> TransportId {
        let [host_traddr, host_iface, host_nqn] = Default::default();
        let way = Rc::new(Way { host_traddr, host_iface, host_nqn });
        TransportId { transport, place: Place::new(traddr, trsvcid, subsysnqn), way }
    }

    /// One whose parts have been looked at already: all are printable.
    pub fn at_address(address: &Address<'_>, trsvcid: &str, subsysnqn: &str, way: Rc<Way>) -> TransportId {
        let transport = address.transport;
        TransportId { transport, place: Place::new(&address.canonical(), &service(transport, trsvcid), subsysnqn), way }
    }

    pub fn transport(&self) -> Transport {
        self.transport
    }

    pub fn traddr(&self) -> &str {
        self.place.part(0, self.place.trsvcid_at.saturating_sub(1))
    }

    pub fn trsvcid(&self) -> &str {
        self.place.part(self.place.trsvcid_at, self.place.subsysnqn_at.saturating_sub(1))
    }

    pub fn subsysnqn(&self) -> &str {
        self.place.part(self.place.subsysnqn_at, self.place.text.len())
    }

    pub fn host_traddr(&self) -> &str {
        &self.way.host_traddr
    }

    pub fn host_iface(&self) -> &str {
        &self.way.host_iface
    }

    pub fn host_nqn(&self) -> &str {
        &self.way.host_nqn
    }

    /// Whether both are reached at the same address and port, whatever they are called there and whatever the way to
    /// it.
    pub fn is_same_address(&self, other: &TransportId) -> bool {
        self.transport == other.transport && self.traddr() == other.traddr() && self.trsvcid() == other.trsvcid()
    }

    /// The same controller, bound to another interface; to none if that is empty.
    pub fn via(&self, host_iface: &str) -> TransportId {
        TransportId { way: self.way(self.host_traddr(), host_iface), ..self.clone() }
    }

    /// The way to it, but from this address and through this interface.
    pub fn way(&self, host_traddr: &str, host_iface: &str) -> Rc<Way> {
        if (host_traddr, host_iface) == (self.host_traddr(), self.host_iface()) {
            return self.way.clone();
        }
        let host_nqn = self.way.host_nqn.clone();
        Rc::new(Way { host_traddr: host_traddr.into(), host_iface: host_iface.into(), host_nqn })
    }

    /// Whether a host name is in the place of the address.
    pub fn is_name(&self) -> bool {
        self.transport.is_ip() && self.ip().is_none()
    }

    /// The same controller at another address.
    pub fn at(&self, traddr: &str) -> TransportId {
        let place = Place::new(&canonical_address(self.transport, traddr), self.trsvcid(), self.subsysnqn());
        TransportId { place, ..self.clone() }
    }

    /// The address as an IP address, without its zone; `None` for other transports and for host names.
    pub fn ip(&self) -> Option<IpAddr> {
        if self.transport.is_ip() { parse_ip(self.traddr()).map(|(ip, _)| ip) } else { None }
    }
}

/// How a controller is called in logs: `tcp 192.0.2.1:8009 nqn.…`, with the interface where it is pinned.
impl fmt::Display for TransportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.transport)?;
        let (traddr, trsvcid) = (self.traddr(), self.trsvcid());
        match (traddr.contains(':'), trsvcid.is_empty()) {
            (_, true) => f.write_str(traddr)?,
            (true, false) => write!(f, "[{traddr}]:{trsvcid}")?,
            (false, false) => write!(f, "{traddr}:{trsvcid}")?,
        }
        if !self.host_iface().is_empty() {
            write!(f, " via {}", self.host_iface())?;
        }
        if !self.host_traddr().is_empty() {
            write!(f, " from {}", self.host_traddr())?;
        }
        write!(f, " {}", self.subsysnqn())
    }
}

/// Splits `fe80::1%eth0` into address and zone; IPv4-mapped addresses come out as IPv4.
pub fn parse_ip(text: &str) -> Option<(IpAddr, Option<&str>)> {
    let parse = |text: &str| text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    if let Some(ip) = parse(text) {
        return Some((ip, None));
    }
    let (address, zone) = text.split_once('%').filter(|(_, zone)| is_interface_name(zone))?;
    Some((parse(address)?, Some(zone)))
}

/// Two world wide names: `nn-0x…:pn-0x…` (kernel: `nvme_fc_parse_traddr`).
fn is_fc_address(traddr: &str) -> bool {
    let is_wwn = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let names = traddr.strip_prefix("nn-0x").and_then(|rest| rest.split_once(":pn-0x"));
    names.is_some_and(|(node, port)| is_wwn(node) && is_wwn(port))
}

/// What the kernel takes for an interface name (`dev_valid_name`), without what would end an option of a connect
/// string.
fn is_interface_name(text: &str) -> bool {
    (1..IFNAMSIZ).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b',' | b'%'))
}

/// The one spelling of a service id by which it is stored and compared: a port is a number.
pub fn canonical_service(transport: Transport, spelling: &str) -> String {
    service(transport, spelling.trim()).into_owned()
}

fn service(transport: Transport, text: &str) -> Cow<'_, str> {
    let is_odd = transport.is_ip() && matches!(text.as_bytes(), [b'0' | b'+', ..]);
    match is_odd.then(|| text.parse::<u16>()) {
        Some(Ok(port)) => port.to_string().into(),
        _ => text.into(),
    }
}

/// The one spelling of an address by which it is stored and compared.
pub fn canonical_address(transport: Transport, spelling: &str) -> String {
    Address::new(transport, spelling.trim()).canonical().into_owned()
}

/// See [`Address::is_usable`].
pub fn is_usable_address(transport: Transport, traddr: &str) -> bool {
    Address::new(transport, traddr).is_usable()
}

/// An address as somebody spelled it, looked at once.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    transport: Transport,
    text: &'a str,
    /// With its zone; `None` for other transports and for what is none.
    ip: Option<(IpAddr, Option<&'a str>)>,
}

impl<'a> Address<'a> {
    pub fn new(transport: Transport, text: &'a str) -> Address<'a> {
        Address { transport, text, ip: if transport.is_ip() { parse_ip(text) } else { None } }
    }

    /// See [`canonical_address`].
    fn canonical(&self) -> Cow<'a, str> {
        match self.ip {
            Some((ip, Some(zone))) => format!("{ip}%{zone}").into(),
            // An IPv4 address has one spelling only, unless it is written as an IPv6 address.
            Some((IpAddr::V4(_), None)) if !self.text.as_bytes().contains(&b':') => self.text.into(),
            Some((ip, None)) => ip.to_string().into(),
            None => self.text.to_ascii_lowercase().into(),
        }
    }

    /// Whether a controller can be reached there at all: not empty, not the unspecified address (`0.0.0.0`, `::`) that some
    /// discovery controllers list, no multicast, and an IP address where the transport wants one.
    pub fn is_usable(&self) -> bool {
        match self.transport {
            Transport::Loop => self.text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b','),
            Transport::Fc => is_fc_address(self.text),
            Transport::Tcp | Transport::Rdma => {
                self.ip.is_some_and(|(ip, _)| !ip.is_unspecified() && !ip.is_multicast())
            }
        }
    }

    /// Whether it is an address on one link only.
    pub fn is_link_local(&self) -> bool {
        matches!(self.ip, Some((IpAddr::V6(ip), _)) if ip.is_unicast_link_local())
    }

    pub fn zone(&self) -> Option<&'a str> {
        self.ip.and_then(|(_, zone)| zone)
    }

    /// The same address on the link of another interface.
    pub fn in_zone(self, interface: &'a str) -> Address<'a> {
        let ip = self.ip.filter(|_| is_interface_name(interface));
        Address { ip: ip.map(|(ip, _)| (ip, Some(interface))), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(traddr: &str) -> TransportId {
        TransportId::new(
            Transport::Tcp,
            Spelling { traddr, trsvcid: "4420", subsysnqn: "nqn.x", ..Spelling::default() },
        )
    }

    #[test]
    fn two_spellings_of_an_address_are_one_controller() {
        assert_eq!(tcp("::ffff:192.0.2.1"), tcp("192.0.2.1"));
        assert_eq!(tcp("FE80:0:0::1%eth0"), tcp("fe80::1%eth0"));
        assert_eq!(tcp(" 192.0.2.1 "), tcp("192.0.2.1"));
        assert_ne!(tcp("fe80::1%eth0"), tcp("fe80::1%eth1"));
        assert_ne!(tcp("fe80::1"), tcp("fe80::1%eth1"));
    }

    #[test]
    fn fc_addresses_compare_without_case() {
        let fc = |traddr| TransportId::new(Transport::Fc, Spelling { traddr, ..Spelling::default() });
        assert_eq!(
            fc("NN-0x10001100AB000001:PN-0x20001100AB000001"),
            fc("nn-0x10001100ab000001:pn-0x20001100ab000001")
        );
    }

    #[test]
    fn nonsense_addresses_are_not_usable() {
        for bad in [
            "",
            "0.0.0.0",
            "::",
            "::ffff:0.0.0.0",
            "224.0.0.1",
            "ff02::1",
            "fe80::1%",
            "fe80::1%eth0,nqn=x",
            "1.2.3",
            "\u{fffd}",
        ] {
            assert!(!is_usable_address(Transport::Tcp, bad), "{bad}");
        }
        assert!(is_usable_address(Transport::Tcp, "fe80::1%eth0"));
        assert!(is_usable_address(Transport::Rdma, "10.0.0.1"));
        assert!(is_usable_address(Transport::Fc, "nn-0x10001100ab000001:pn-0x20001100ab000001"));
        for bad in ["10.0.0.1", "nn-0x10", "nn-0x10:pn-0x", "nn-0x10:pn-0x20,nqn=x"] {
            assert!(!is_usable_address(Transport::Fc, bad), "{bad}");
        }
    }

    #[test]
    fn displayed_as_an_administrator_writes_it() {
        assert_eq!(tcp("192.0.2.1").to_string(), "tcp 192.0.2.1:4420 nqn.x");
        assert_eq!(tcp("2001:db8::1").to_string(), "tcp [2001:db8::1]:4420 nqn.x");
    }
}
