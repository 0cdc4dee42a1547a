//! Discovery controllers that announce themselves: in the local network, by mDNS and DNS-SD (NVM Express TP8009), or on
//! a Fibre Channel fabric, of which the kernel tells.

use std::fmt;
use std::net::IpAddr;

use crate::core::page::is_nqn;
use crate::core::tid::{
    DISCOVERY_NQN, Spelling, Transport, TransportId, canonical_address, is_usable_address, parse_ip,
};

/// One announcement, checked: whoever is in the network can make one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Announcement {
    transport: Transport,
    traddr: String,
    trsvcid: String,
    subsysnqn: String,
    /// Of Fibre Channel only: our port that sees it.
    host_traddr: String,
    /// Of the local network only.
    interface: String,
}

/// What an announcement says, as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Claims<'a> {
    /// TXT key `p`.
    pub protocol: Option<&'a [u8]>,
    /// TXT key `nqn`.
    pub subsysnqn: Option<&'a [u8]>,
    pub address: &'a str,
    pub port: u16,
    /// The name of the interface that it arrived on.
    pub interface: &'a str,
}

impl Announcement {
    /// # Errors
    /// Says what is wrong, in words that are safe to log.
    pub fn new(claims: Claims<'_>) -> Result<Announcement, String> {
        let transport = transport(claims.protocol)?;
        let traddr = address(claims.address, claims.interface)?;
        let subsysnqn = match claims.subsysnqn {
            None | Some(b"") => DISCOVERY_NQN,
            Some(bytes) => str::from_utf8(bytes)
                .ok()
                .filter(|text| is_nqn(text))
                .ok_or_else(|| format!("nqn={} is not an NQN", quoted(bytes)))?,
        };
        if claims.port == 0 {
            return Err("port 0".to_owned());
        }
        Ok(Announcement {
            transport,
            traddr,
            trsvcid: claims.port.to_string(),
            subsysnqn: subsysnqn.to_owned(),
            host_traddr: String::new(),
            interface: claims.interface.to_owned(),
        })
    }

    /// A port of a Fibre Channel target, as our port `host_traddr` sees it. `None` for nonsense.
    pub fn fc_port(traddr: &str, host_traddr: &str) -> Option<Announcement> {
        let transport = Transport::Fc;
        let [traddr, host_traddr] = [traddr, host_traddr].map(|address| canonical_address(transport, address));
        let is_usable = is_usable_address(transport, &traddr) && is_usable_address(transport, &host_traddr);
        is_usable.then(|| Announcement {
            transport,
            traddr,
            trsvcid: String::new(),
            subsysnqn: DISCOVERY_NQN.to_owned(),
            host_traddr,
            interface: String::new(),
        })
    }

    /// The controller that it stands for. A TCP connection is bound to the interface that the announcement arrived on,
    /// if `bind`; for RDMA the kernel knows no such binding.
    pub fn transport_id(&self, bind: bool, host_nqn: &str) -> TransportId {
        self.seen_via(if bind && self.transport == Transport::Tcp { &self.interface } else { "" }, host_nqn)
    }

    /// The same with the interface in any case: as exclusions see it.
    pub fn place(&self, host_nqn: &str) -> TransportId {
        self.seen_via(&self.interface, host_nqn)
    }

    fn seen_via(&self, host_iface: &str, host_nqn: &str) -> TransportId {
        TransportId::new(
            self.transport,
            Spelling {
                traddr: &self.traddr,
                trsvcid: &self.trsvcid,
                subsysnqn: &self.subsysnqn,
                host_traddr: &self.host_traddr,
                host_iface,
                host_nqn,
            },
        )
    }

    /// Canonical; with a zone if it is link-local.
    pub fn traddr(&self) -> &str {
        &self.traddr
    }

    pub fn interface(&self) -> &str {
        &self.interface
    }
}

impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.transport_id(false, ""), self.interface)
    }
}

fn transport(protocol: Option<&[u8]>) -> Result<Transport, String> {
    const KNOWN: [(&str, Transport); 4] =
        [("tcp", Transport::Tcp), ("roce", Transport::Rdma), ("iwarp", Transport::Rdma), ("rdma", Transport::Rdma)];
    let protocol = protocol.ok_or("its TXT record has no p=, the transport")?;
    let known = KNOWN.iter().find(|(word, _)| protocol.eq_ignore_ascii_case(word.as_bytes()));
    known
        .map(|(_, transport)| *transport)
        .ok_or_else(|| format!("p={} in its TXT record is none of tcp, roce, iwarp and rdma", quoted(protocol)))
}

/// Link-local IPv6 addresses mean something on one interface only, which becomes their zone.
fn address(text: &str, interface: &str) -> Result<String, String> {
    let refused = |why| format!("address {} {why}", quoted(text.as_bytes()));
    match parse_ip(text) {
        None => Err(refused("is not an IP address")),
        Some((_, Some(_))) => Err(refused("has a zone")),
        Some((ip, None)) if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() => {
            Err(refused("is not that of another machine"))
        }
        Some((IpAddr::V6(ip), None)) if ip.is_unicast_link_local() => Ok(format!("{ip}%{interface}")),
        Some((ip, None)) => Ok(ip.to_string()),
    }
}

/// Bytes from the network, fit for a log line: escaped and short.
pub fn quoted(bytes: &[u8]) -> String {
    const LONGEST: usize = 64;
    let start = bytes.get(..LONGEST).unwrap_or(bytes);
    let more = if start.len() < bytes.len() { "…" } else { "" };
    format!("\"{}{more}\"", start.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: Claims<'static> =
        Claims { protocol: Some(b"tcp"), subsysnqn: None, address: "192.0.2.1", port: 8009, interface: "eth0" };

    #[test]
    fn becomes_a_transport_id() {
        let tcp = Announcement::new(CLAIMS).unwrap();
        assert_eq!(tcp.to_string(), format!("tcp 192.0.2.1:8009 {DISCOVERY_NQN} on eth0"));
        assert_eq!(tcp.transport_id(true, "nqn.h").host_iface(), "eth0");
        assert_eq!(tcp.transport_id(false, "nqn.h").host_iface(), "");
        for protocol in ["RoCE", "iwarp", "rdma"] {
            let claims = Claims { protocol: Some(protocol.as_bytes()), subsysnqn: Some(b"nqn.dc"), ..CLAIMS };
            let tid = Announcement::new(claims).unwrap().transport_id(true, "nqn.h");
            assert_eq!((tid.transport(), tid.host_iface(), tid.subsysnqn()), (Transport::Rdma, "", "nqn.dc"));
        }
    }

    #[test]
    fn a_link_local_address_gets_its_zone() {
        let traddr = |address| Announcement::new(Claims { address, ..CLAIMS }).unwrap().traddr;
        assert_eq!(traddr("FE80::1"), "fe80::1%eth0");
        assert_eq!(traddr("2001:db8::1"), "2001:db8::1");
        assert_eq!(traddr("::ffff:192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn nonsense_is_refused_in_printable_words() {
        let long = [b'n'; 300];
        let hostile = [
            Claims { protocol: None, ..CLAIMS },
            Claims { protocol: Some(b""), ..CLAIMS },
            Claims { protocol: Some(b"fc\x1b[2J\n"), ..CLAIMS },
            Claims { subsysnqn: Some(b"nqn.a,hostnqn=b"), ..CLAIMS },
            Claims { subsysnqn: Some(b"nqn.a\n"), ..CLAIMS },
            Claims { subsysnqn: Some(b"nqn.\xff"), ..CLAIMS },
            Claims { subsysnqn: Some(&long), ..CLAIMS },
            Claims { address: "", ..CLAIMS },
            Claims { address: "0.0.0.0", ..CLAIMS },
            Claims { address: "127.0.0.1", ..CLAIMS },
            Claims { address: "::1", ..CLAIMS },
            Claims { address: "224.0.0.1", ..CLAIMS },
            Claims { address: "fe80::1%eth1", ..CLAIMS },
            Claims { address: "target.local", ..CLAIMS },
            Claims { port: 0, ..CLAIMS },
        ];
        for claims in hostile {
            let why = Announcement::new(claims).unwrap_err();
            assert!(why.len() < 400 && !why.contains(char::is_control), "{why:?}");
        }
    }
}
