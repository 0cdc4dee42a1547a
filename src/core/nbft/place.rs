//! Where on this host an HFI is, and what is still missing there.
//!
//! It is found by its MAC address and VLAN. Names are the system's, and differ between firmware, initramfs and system.

use std::fmt;
use std::net::IpAddr;

use super::{Interface, Origin};
use crate::core::interface::NetworkInterface;

/// What a connection over an HFI has to wait for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    NoInterface,
    /// The interface is there, but not the VLAN on it.
    NoVlan {
        below: String,
    },
    /// It is not switched on.
    Down(String),
    /// No cable, or nothing at its other end.
    NoCarrier(String),
    /// `None`: any address.
    NoAddress {
        interface: String,
        address: Option<IpAddr>,
    },
    /// It is still being looked for in use elsewhere.
    Tentative {
        interface: String,
        address: IpAddr,
    },
}

/// As in `waits for a carrier on eth0`.
impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::NoInterface => f.write_str("a network interface with that MAC address"),
            Obstacle::NoVlan { below } => write!(f, "that VLAN to be made on {below}"),
            Obstacle::Down(interface) => write!(f, "{interface} to be switched on"),
            Obstacle::NoCarrier(interface) => write!(f, "a carrier on {interface}"),
            Obstacle::NoAddress { interface, address: Some(ip) } => write!(f, "the address {ip} on {interface}"),
            Obstacle::NoAddress { interface, address: None } => write!(f, "an address on {interface}"),
            Obstacle::Tentative { interface, address } => {
                write!(f, "the kernel to find that nobody else has the address {address} of {interface}")
            }
        }
    }
}

/// As in `HFI 1 (52:54:00:00:00:01, VLAN 100)`.
impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HFI {} ({}", self.hfi, self.mac)?;
        if let Some(vlan) = self.vlan {
            write!(f, ", VLAN {vlan}")?;
        }
        f.write_str(")")
    }
}

impl Interface {
    /// The source address that a connection has to have. What DHCP or a router gave may be another by now.
    pub fn source(&self) -> Option<IpAddr> {
        self.address.filter(|_| self.origin == Origin::Static)
    }

    /// The interface of this host that it is. What is made of others has the MAC address of one of them (bonds, bridges), so
    /// who has the IP address comes first, then hardware, then what is part of nothing else.
    pub fn find<'a>(&self, interfaces: &'a [NetworkInterface]) -> Option<&'a NetworkInterface> {
        let candidates = interfaces.iter().filter(|one| match self.vlan {
            Some(vlan) => one.vlan == Some(vlan) && self.is_on(one, interfaces),
            None => one.vlan.is_none() && one.has_mac(self.mac),
        });
        let lacks_address = |one: &NetworkInterface| !self.address.is_some_and(|ip| one.has_address(ip));
        candidates.min_by_key(|one| (lacks_address(one), !one.kind.is_empty(), one.index))
    }

    /// A VLAN may have been given a MAC address of its own.
    fn is_on(&self, vlan: &NetworkInterface, interfaces: &[NetworkInterface]) -> bool {
        let below = vlan.below.and_then(|index| interfaces.iter().find(|one| one.index == index));
        vlan.has_mac(self.mac) || below.is_some_and(|below| below.has_mac(self.mac))
    }

    /// The interface that its VLAN is to be made on; itself if it has none.
    pub fn find_below<'a>(&self, interfaces: &'a [NetworkInterface]) -> Option<&'a NetworkInterface> {
        Interface { vlan: None, ..self.clone() }.find(interfaces)
    }

    /// Its interface, if a connection can be made over it by now.
    ///
    /// # Errors
    /// What is missing.
    pub fn ready<'a>(&self, interfaces: &'a [NetworkInterface]) -> Result<&'a NetworkInterface, Obstacle> {
        let Some(found) = self.find(interfaces) else {
            return Err(match self.vlan.and_then(|_| self.find_below(interfaces)) {
                Some(below) => Obstacle::NoVlan { below: below.name.clone() },
                None => Obstacle::NoInterface,
            });
        };
        let interface = found.name.clone();
        if !found.is_up {
            return Err(Obstacle::Down(interface));
        }
        if !found.is_running {
            return Err(Obstacle::NoCarrier(interface));
        }
        // Every interface has a link-local IPv6 address; that is none to reach anybody by, unless it is asked for.
        let is_global = |ip: IpAddr| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let fits = |ip: IpAddr| match (self.source(), self.address) {
            (Some(source), _) => ip == source,
            (None, Some(firmwares)) => ip == firmwares || (ip.is_ipv4() == firmwares.is_ipv4() && is_global(ip)),
            (None, None) => is_global(ip),
        };
        let fitting = || found.addresses.iter().filter(|address| fits(address.ip));
        match fitting().find(|address| address.is_usable).or_else(|| fitting().next()) {
            Some(address) if address.is_usable => Ok(found),
            Some(address) => Err(Obstacle::Tentative { interface, address: address.ip }),
            None => Err(Obstacle::NoAddress { interface, address: self.source() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::interface::{InterfaceAddress, Mac};
    use crate::core::nbft::tests::only;
    use crate::wire::nbft::made::{self, Hfi, NO_ADDRESS, ip};

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

    fn hfi(hfi: Hfi) -> Interface {
        only(made::Table { hfis: vec![hfi], ..made::Table::default() }).interfaces.remove(0)
    }

    fn card(index: u32) -> NetworkInterface {
        NetworkInterface {
            index,
            name: format!("eth{index}"),
            mac: Some(MAC),
            permanent_mac: None,
            kind: String::new(),
            below: None,
            vlan: None,
            is_up: true,
            is_running: true,
            addresses: vec![],
        }
    }

    fn with(interface: NetworkInterface, address: &str) -> NetworkInterface {
        let address = InterfaceAddress { ip: ip(address), is_usable: true };
        NetworkInterface { addresses: [interface.addresses, vec![address]].concat(), ..interface }
    }

    fn vlan(index: u32, below: u32, id: u16) -> NetworkInterface {
        let name = format!("eth{below}.{id}");
        NetworkInterface { name, kind: "vlan".into(), below: Some(below), vlan: Some(id), ..card(index) }
    }

    #[test]
    fn it_is_found_by_mac_and_vlan() {
        let other = NetworkInterface { mac: Some(Mac([2; 6])), ..card(2) };
        let index = |hfi: &Interface, all: &[NetworkInterface]| hfi.find(all).map(|found| found.index);
        let plain = hfi(Hfi::default());
        assert_eq!(index(&plain, &[other.clone(), vlan(3, 4, 100), card(4)]), Some(4));
        assert_eq!(index(&plain, &[other.clone(), vlan(3, 4, 100)]), None);
        let renumbered = NetworkInterface { permanent_mac: Some(MAC), ..other.clone() };
        assert_eq!(index(&plain, &[renumbered]), Some(2), "it has another address by now");

        let tagged = hfi(Hfi { vlan: 100, ..Hfi::default() });
        assert_eq!(index(&tagged, &[card(1), vlan(2, 1, 7), vlan(3, 1, 100)]), Some(3));
        assert_eq!(index(&tagged, &[card(1), vlan(2, 1, 7)]), None);
        let own = NetworkInterface { mac: Some(Mac([2; 6])), ..vlan(3, 1, 100) };
        assert_eq!(index(&tagged, &[card(1), own.clone()]), Some(3), "the VLAN has a MAC address of its own");
        assert_eq!(index(&tagged, &[other, own]), None);
    }

    #[test]
    fn a_bond_that_has_the_address_is_meant_and_not_its_parts() {
        let bond = NetworkInterface { kind: "bond".into(), ..card(9) };
        let table = hfi(Hfi::default());
        let all = [card(1), card(2), with(bond.clone(), "192.0.2.10")];
        assert_eq!(table.find(&all).map(|found| found.index), Some(9));
        assert_eq!(table.find(&[bond, card(2)]).map(|found| found.index), Some(2));
    }

    #[test]
    fn what_is_missing_is_named() {
        let table = hfi(Hfi::default());
        let waits = |interface: NetworkInterface| table.ready(&[interface]).unwrap_err().to_string();
        assert_eq!(table.ready(&[]).unwrap_err(), Obstacle::NoInterface);
        assert_eq!(waits(NetworkInterface { is_up: false, is_running: false, ..card(1) }), "eth1 to be switched on");
        assert_eq!(waits(NetworkInterface { is_running: false, ..card(1) }), "a carrier on eth1");
        assert_eq!(waits(with(card(1), "192.0.2.11")), "the address 192.0.2.10 on eth1");
        assert!(table.ready(&[with(card(1), "192.0.2.10")]).is_ok());
        let mut tentative = with(card(1), "192.0.2.10");
        tentative.addresses[0].is_usable = false;
        assert!(waits(tentative).contains("nobody else has"));
        let tagged = hfi(Hfi { vlan: 100, ..Hfi::default() });
        assert_eq!(tagged.ready(&[card(1)]).unwrap_err().to_string(), "that VLAN to be made on eth1");
    }

    #[test]
    fn with_dhcp_any_address_of_the_family_will_do() {
        let dhcp = hfi(Hfi { flags: 1 | 4, ..Hfi::default() });
        assert_eq!(dhcp.source(), None);
        assert!(dhcp.ready(&[with(card(1), "192.0.2.77")]).is_ok());
        assert!(dhcp.ready(&[with(with(card(1), "fe80::1"), "2001:db8::1")]).is_err());
        let unknown = hfi(Hfi { address: NO_ADDRESS, ..Hfi::default() });
        assert!(unknown.ready(&[with(card(1), "fe80::1")]).is_err());
        assert!(unknown.ready(&[with(card(1), "2001:db8::1")]).is_ok());
    }
}
