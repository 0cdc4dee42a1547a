//! How an interface gets to be as the firmware had it, step by step, each by what there is by now.
//!
//! Of DHCP the lease is used as it was: the firmware has it, and nobody else asks for that address. Where a gateway leads on,
//! each target gets a route of its own over its own interface, and a default route is made only where the firmware's went
//! there. All of them have metrics that nobody else has: two interfaces with the same gateway are not in each other's way, for
//! connections that go through one are bound to their interface, and whoever sets up the network later comes first.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::{Interface, Origin};
use crate::core::interface::NetworkInterface;
use crate::wire::rtnetlink::request::{Route, add_address, add_route, make_vlan, switch_on};

/// Added to the number of the HFI.
const METRIC: u32 = 20_000;

/// More targets behind a gateway than firmware writes; for what they are too many, there is the default route.
const ROUTES_MAX: usize = 64;

/// The longest name of an interface, in bytes.
const NAME_MAX: usize = 15;

/// A change of the network, for the helper to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    SwitchOn {
        interface: u32,
        name: String,
    },
    MakeVlan {
        below: u32,
        id: u16,
        name: String,
    },
    /// With the routes that the address makes possible.
    AddAddress {
        interface: u32,
        name: String,
        address: IpAddr,
        prefix: u8,
        is_lease: bool,
        routes: Vec<Route>,
    },
}

/// As in `switches eth0 on`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::SwitchOn { name, .. } => write!(f, "switches {name} on"),
            Step::MakeVlan { id, name, .. } => write!(f, "makes VLAN {id}, {name}"),
            Step::AddAddress { name, address, prefix, is_lease, routes, .. } => {
                let lease = if *is_lease { " of the firmware's DHCP lease" } else { "" };
                write!(f, "gives {name} the address {address}/{prefix}{lease}")?;
                match routes.first() {
                    Some(route) => write!(f, ", with the gateway {}", route.gateway),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Step {
    /// For the kernel.
    pub fn requests(&self) -> Vec<u8> {
        match self {
            Step::SwitchOn { interface, .. } => switch_on(*interface),
            Step::MakeVlan { below, id, name } => make_vlan(*below, *id, name),
            Step::AddAddress { interface, address, prefix, routes, .. } => {
                let routes: Vec<u8> = routes.iter().flat_map(add_route).collect();
                [add_address(*interface, *address, *prefix), routes].concat()
            }
        }
    }
}

impl Interface {
    /// What is to be done next so that `targets` can be reached over it; `None` when there is nothing, or nothing that helps.
    /// `number`: of all HFIs in use, which one it is.
    pub fn next_step(
        &self,
        interfaces: &[NetworkInterface],
        targets: &BTreeSet<IpAddr>,
        number: usize,
    ) -> Option<Step> {
        let switched_on = |one: &NetworkInterface| match one.is_up {
            true => None,
            false => Some(Step::SwitchOn { interface: one.index, name: one.name.clone() }),
        };
        let found = match (self.find(interfaces), self.vlan) {
            (Some(found), _) => found,
            (None, Some(id)) => {
                let below = self.find_below(interfaces)?;
                let vlan = || Step::MakeVlan { below: below.index, id, name: vlan_name(&below.name, id) };
                return switched_on(below).or_else(|| Some(vlan()));
            }
            (None, None) => return None,
        };
        let below = found.below.and_then(|index| interfaces.iter().find(|one| one.index == index));
        let address = self.address.filter(|address| !found.has_address(*address));
        below.filter(|_| self.vlan.is_some()).and_then(switched_on).or_else(|| switched_on(found)).or_else(|| {
            let (interface, name, is_lease) = (found.index, found.name.clone(), self.origin == Origin::Dhcp);
            let (address, prefix) = (address?, self.prefix_or_longest(address?));
            let routes = self.routes(interface, targets, number);
            Some(Step::AddAddress { interface, name, address, prefix, is_lease, routes })
        })
    }

    fn prefix_or_longest(&self, address: IpAddr) -> u8 {
        self.prefix.unwrap_or(if address.is_ipv4() { 32 } else { 128 })
    }

    fn routes(&self, interface: u32, targets: &BTreeSet<IpAddr>, number: usize) -> Vec<Route> {
        let Some(gateway) = self.gateway else {
            return Vec::new();
        };
        let metric = u32::try_from(number).unwrap_or_default().saturating_add(METRIC);
        let on_link = !self.is_near(gateway);
        let route = |destination| Route { destination, gateway, on_link, interface, metric };
        let far = targets.iter().filter(|target| target.is_ipv4() == gateway.is_ipv4() && !self.is_near(**target));
        let mut routes: Vec<Route> = far.take(ROUTES_MAX).map(|target| route(Some(*target))).collect();
        routes.extend(self.default_route.then(|| route(None)));
        routes
    }

    /// Whether its network leads there without a gateway.
    pub(super) fn is_near(&self, other: IpAddr) -> bool {
        let Some(own) = self.address else {
            return false;
        };
        let prefix = u32::from(self.prefix_or_longest(own));
        match (own, other) {
            (_, IpAddr::V6(other)) if other.is_unicast_link_local() => true,
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(32_u32.saturating_sub(prefix)).unwrap_or_default() == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(128_u32.saturating_sub(prefix)).unwrap_or_default() == 0
            }
            _ => false,
        }
    }
}

/// As everybody calls it, where there is room for that.
fn vlan_name(below: &str, id: u16) -> String {
    let usual = format!("{below}.{id}");
    if usual.len() <= NAME_MAX { usual } else { format!("vlan{id}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::interface::{InterfaceAddress, Mac};
    use crate::core::nbft::tests::only;
    use crate::wire::nbft::made::{self, Hfi, ip};
    use crate::wire::rtnetlink::request::split;

    fn hfi(hfi: Hfi) -> Interface {
        only(made::Table { hfis: vec![hfi], ..made::Table::default() }).interfaces.remove(0)
    }

    fn card(name: &str) -> NetworkInterface {
        NetworkInterface {
            index: 1,
            name: name.into(),
            mac: Some(Mac([0x52, 0x54, 0, 0, 0, 1])),
            permanent_mac: None,
            kind: String::new(),
            below: None,
            vlan: None,
            is_up: false,
            is_running: false,
            addresses: vec![],
        }
    }

    fn steps(hfi: &Interface, targets: &[&str], interfaces: &[NetworkInterface]) -> Option<String> {
        let targets = targets.iter().map(|target| ip(target)).collect();
        hfi.next_step(interfaces, &targets, 3).map(|step| step.to_string())
    }

    #[test]
    fn a_vlan_is_made_step_by_step() {
        let hfi = hfi(Hfi { vlan: 100, flags: 1 | 4, ..Hfi::default() });
        assert_eq!(steps(&hfi, &[], &[]), None, "there is no such card");
        let mut card = card("enp65s0f0np0");
        assert_eq!(steps(&hfi, &[], &[card.clone()]).as_deref(), Some("switches enp65s0f0np0 on"));
        card.is_up = true;
        assert_eq!(steps(&hfi, &[], &[card.clone()]).as_deref(), Some("makes VLAN 100, vlan100"), "no room");
        card.name = "eth0".into();
        assert_eq!(steps(&hfi, &[], &[card.clone()]).as_deref(), Some("makes VLAN 100, eth0.100"));
        let (name, kind) = ("eth0.100".into(), "vlan".into());
        let mut vlan = NetworkInterface { index: 2, name, kind, below: Some(1), vlan: Some(100), ..card.clone() };
        let address = "gives eth0.100 the address 192.0.2.10/24 of the firmware's DHCP lease";
        assert_eq!(steps(&hfi, &[], &[card.clone(), vlan.clone()]).as_deref(), Some(address));
        card.is_up = false;
        assert_eq!(steps(&hfi, &[], &[card.clone(), vlan.clone()]).as_deref(), Some("switches eth0 on"));
        card.is_up = true;
        vlan.addresses.push(InterfaceAddress { ip: ip("192.0.2.10"), is_usable: false });
        assert_eq!(steps(&hfi, &[], &[card, vlan]), None, "the rest is waiting");
    }

    #[test]
    fn a_target_behind_the_gateway_gets_a_route_of_its_own() {
        let card = NetworkInterface { is_up: true, ..card("eth0") };
        let routes = |hfi: &Interface, targets: &[&str]| {
            let targets = targets.iter().map(|target| ip(target)).collect();
            match hfi.next_step(std::slice::from_ref(&card), &targets, 3) {
                Some(step @ Step::AddAddress { .. }) => {
                    let count = split(&step.requests()).count();
                    let Step::AddAddress { routes, .. } = step else { unreachable!() };
                    assert_eq!(count, 1 + routes.len());
                    routes
                }
                other => panic!("{other:?}"),
            }
        };
        let near = hfi(Hfi { gateway: ip("192.0.2.1"), ..Hfi::default() });
        let route = |destination: Option<&str>, gateway: &str, on_link| Route {
            destination: destination.map(ip),
            gateway: ip(gateway),
            on_link,
            interface: 1,
            metric: 20_003,
        };
        let targets = ["192.0.2.7", "198.51.100.1", "2001:db8::1"];
        assert_eq!(routes(&near, &targets), [route(Some("198.51.100.1"), "192.0.2.1", false)]);
        // The firmware's default route went there, by a gateway outside of the network.
        let far = hfi(Hfi { gateway: ip("10.0.0.1"), flags: 1 | 2, prefix: 0, ..Hfi::default() });
        let expected = [route(Some("198.51.100.1"), "10.0.0.1", true), route(None, "10.0.0.1", true)];
        assert_eq!(routes(&far, &["198.51.100.1"]), expected);
        let v6 = hfi(Hfi { address: ip("2001:db8::10"), prefix: 64, gateway: ip("fe80::1"), ..Hfi::default() });
        let targets = ["2001:db8::1", "2001:db8:0:1::1", "198.51.100.1"];
        assert_eq!(routes(&v6, &targets), [route(Some("2001:db8:0:1::1"), "fe80::1", false)]);
        let none = hfi(Hfi::default());
        assert_eq!(routes(&none, &["198.51.100.1"]), []);
    }
}
