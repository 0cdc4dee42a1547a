//! The network interfaces of this host, as far as it matters which one is meant.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkInterface {
    pub index: u32,
    pub name: String,
    pub mac: Option<Mac>,
    /// The one that the hardware was made with, where the kernel tells.
    pub permanent_mac: Option<Mac>,
    /// `vlan`, `bond`, `veth`, …; empty for hardware.
    pub kind: String,
    /// The interface that it is made on.
    pub below: Option<u32>,
    /// Of a `vlan`.
    pub vlan: Option<u16>,
    /// Switched on.
    pub is_up: bool,
    /// Up, and with a carrier.
    pub is_running: bool,
    pub addresses: Vec<InterfaceAddress>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    pub ip: IpAddr,
    /// An IPv6 address is not while it is looked for in use elsewhere.
    pub is_usable: bool,
}

impl NetworkInterface {
    pub fn has_mac(&self, mac: Mac) -> bool {
        self.mac == Some(mac) || self.permanent_mac == Some(mac)
    }

    pub fn has_address(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.ip == ip)
    }
}
