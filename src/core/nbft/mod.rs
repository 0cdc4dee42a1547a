//! What the firmware's boot tables ask for: who this host is, its interfaces, and the paths to the disks it boots from.
//!
//! [`Nbft::add`] takes the tables one after the other and judges what [`crate::wire::nbft`] only views; what cannot be
//! used is in [`Table::rejected`] with the reason, what is odd and can be used in [`Table::remarks`]. [`Nbft::paths`]
//! is what to connect. Firmware writes several paths to one disk in three ways, and they come out the same: an SSNS
//! with secondary HFIs, several SSNS, several tables. It also writes several SSNS for the namespaces behind one path,
//! which come out as one path.
//!
//! Rules, from the NVM Express Boot Specification and what firmware is seen to do:
//! - An HFI, discovery or security index is the descriptor's own index field, and no place in the list.
//! - An SSNS of the well-known discovery NQN is a boot attempt that found nothing: it is no path, and no reason against
//!   using its discovery descriptor. A discovery descriptor is used only when no other SSNS refers to it.
//! - "Unavailable" is what the firmware saw, then: try anyway.
//! - Security fails closed. A security index that leads nowhere rejects its SSNS or discovery descriptor; a profile
//!   that requires something makes [`Security::key_needed`] true, and who has no key must refuse, loudly.
//! - A DHCP root path has been turned into the SSNS by the firmware already, and is kept for people.
//! - The host id is written in the order of its bytes, as libnvme does: that is what the storage saw the firmware send.
//!   Firmware often makes it of a UUID in the byte order of SMBIOS, so it may look swapped beside the UUID in the host
//!   NQN.

mod build;
mod entries;
mod place;
mod set_up;

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

pub use entries::{Configured, Entries};
pub use place::Obstacle;
pub use set_up::Step;

use crate::core::interface::Mac;
use crate::wire::nbft as wire;

/// The most paths that are made of all tables: far more than firmware writes, and few enough to compare each with each.
const PATHS_MAX: usize = 1024;

/// All tables of this machine.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Nbft {
    pub tables: Vec<Table>,
}

/// What one table asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Table {
    /// As the kernel calls it: `NBFT`, or with a number behind it.
    pub name: String,
    pub revision: String,
    /// OEM id and OEM table id.
    pub oem: String,
    pub host: Option<Host>,
    pub interfaces: Vec<Interface>,
    pub subsystems: Vec<Subsystem>,
    pub discovery: Vec<Discovery>,
    pub rejected: Vec<Rejected>,
    pub remarks: Vec<String>,
}

/// Who the firmware was to the storage; connect as this, for it may know no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Host {
    pub nqn: String,
    /// The administrator chose it, and not the firmware.
    pub nqn_configured: bool,
    /// `None` when it stands for no host (all zeros, all ones).
    pub id: Option<String>,
    pub id_configured: bool,
    pub primary: Primary,
}

/// Which of several tables tells who this machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Primary {
    NotIndicated,
    Unselected,
    Selected,
}

/// A host fabric interface (HFI). It is found by MAC address and VLAN, never by name; two may be one network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Interface {
    /// Its index in the table.
    pub hfi: u8,
    pub mac: Mac,
    /// 1 to 4094.
    pub vlan: Option<u16>,
    /// `SSSS:BB:DD.F`
    pub pci: String,
    /// The firmware's; with DHCP the system may get another one.
    pub address: Option<IpAddr>,
    /// 1 to 32 or 128.
    pub prefix: Option<u8>,
    pub origin: Origin,
    pub gateway: Option<IpAddr>,
    /// The firmware's default route went here.
    pub default_route: bool,
    pub route_metric: Option<u16>,
    pub dns: Vec<IpAddr>,
    pub dhcp_server: Option<IpAddr>,
    pub host_name: Option<String>,
    pub dhcp_client: Option<DhcpClient>,
}

/// Where an interface's address is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    Static,
    Dhcp,
    /// Made by the interface itself: router advertisements.
    Automatic,
}

/// What a DHCP server knows the interface by; bytes in the table's order, which is little-endian, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DhcpClient {
    pub iaid: String,
    pub duid: String,
}

/// A namespace and its subsystem (SSNS): one controller to connect for each interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Subsystem {
    /// Its index in the table.
    pub ssns: u16,
    /// HFI indices, each of one of [`Table::interfaces`]; the first is the primary one. Never empty, none twice.
    pub hfis: Vec<u8>,
    pub traddr: IpAddr,
    pub trsvcid: u16,
    pub subsysnqn: String,
    pub header_digest: bool,
    pub data_digest: bool,
    pub namespace: Namespace,
    pub security: Option<Security>,
    /// It was found by a discovery controller, and not configured.
    pub discovered: bool,
    /// The index of that discovery controller.
    pub discovery: Option<u8>,
    /// Not to boot from, but needed later in the boot.
    pub non_bootable: bool,
    /// Advice only.
    pub unavailable: bool,
    /// Why the firmware could not use it, in words.
    pub diagnostics: Vec<String>,
    /// The controller that the firmware was connected to.
    pub cntlid: Option<u16>,
    /// Size of the admin queue, where the administrator chose it.
    pub asqsz: Option<u16>,
    pub dhcp_root_path: Option<String>,
}

/// Which disk is meant. Both are `None` where the whole subsystem is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Namespace {
    pub nsid: Option<u32>,
    /// As in the kernel's `wwid`: `uuid.…`, `eui.…`.
    pub wwid: Option<String>,
}

/// Whether something is wanted of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    NotSupported,
    NotRequired,
    /// Also where it says something that nobody has defined.
    Required,
}

/// A security profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Security {
    pub index: u8,
    /// DH-HMAC-CHAP.
    pub authentication: Need,
    pub tls: Need,
    /// Where the firmware has the key: a URI (Redfish). No key itself.
    pub keypath: Option<String>,
}

impl Security {
    /// Nothing may be connected without a key.
    pub fn key_needed(&self) -> bool {
        self.authentication == Need::Required || self.tls == Need::Required
    }
}

/// As in `TLS and authentication required`.
impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.tls == Need::Required, self.authentication == Need::Required) {
            (true, true) => "TLS and authentication required",
            (true, false) => "TLS required",
            (false, true) => "authentication required",
            (false, false) => "nothing required",
        })
    }
}

/// A discovery controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Discovery {
    /// Its index in the table.
    pub index: u8,
    /// The index of one of [`Table::interfaces`].
    pub hfi: u8,
    /// An address or a host name.
    pub traddr: String,
    pub trsvcid: u16,
    pub subsysnqn: String,
    pub security: Option<Security>,
    /// A subsystem of the table has been found by it: it need not be asked.
    pub referenced: bool,
}

/// A descriptor that is not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// As in `SSNS 3`.
    pub what: String,
    #[serde(serialize_with = "as_text")]
    pub why: Reason,
}

/// Why something in a table is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    Damaged(wire::Damage),
    /// Another descriptor of its kind has its index.
    IndexTwice,
    Vlan(u16),
    /// None of its interfaces is in the table; the primary one's index.
    NoInterface(u8),
    Address(IpAddr),
    /// Its port.
    Service(String),
    Nqn(String),
    /// A boot attempt that found nothing. Nothing is wrong with that.
    DiscoveryNqn,
    /// Its security profile is not in the table.
    NoSecurityProfile(u8),
    Uri(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Damaged(damage) => write!(f, "{damage}"),
            Reason::IndexTwice => write!(f, "an earlier one has the same index"),
            Reason::Vlan(vlan) => write!(f, "there is no VLAN {vlan}"),
            Reason::NoInterface(hfi) => write!(f, "no usable HFI has the index {hfi} that it refers to"),
            Reason::Address(address) => write!(f, "nothing can be connected at {address}"),
            Reason::Service(port) => write!(f, "{port:?} is no port"),
            Reason::Nqn(nqn) => write!(f, "{nqn:?} is not an NQN"),
            Reason::DiscoveryNqn => write!(f, "the firmware looked there and found no subsystem"),
            Reason::NoSecurityProfile(index) => {
                write!(
                    f,
                    "no usable security profile has the index {index} that it refers to, and without one is no access"
                )
            }
            Reason::Uri(uri) => write!(f, "{uri:?} is not of the form nvme+tcp://ADDRESS:PORT/"),
        }
    }
}

fn as_text<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(reason)
}

impl Table {
    pub fn interface(&self, hfi: u8) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.hfi == hfi)
    }
}

/// One connection that the tables ask for.
#[derive(Debug, Clone)]
pub struct Path<'a> {
    pub host: Option<&'a Host>,
    pub interface: &'a Interface,
    /// For some SSNS it is the primary interface. Where it is not, the boot does not need to wait for it.
    pub primary: bool,
    /// The first SSNS that asks for it.
    pub subsystem: &'a Subsystem,
    /// Of all of them.
    pub namespaces: Vec<&'a Namespace>,
    /// One of them wants it.
    pub header_digest: bool,
    pub data_digest: bool,
    /// The first that needs a key, or else the first.
    pub security: Option<&'a Security>,
    /// All of them were, when the firmware tried.
    pub unavailable: bool,
}

impl Path<'_> {
    /// What makes two of them the same connection.
    fn is_same(&self, other: &Path<'_>) -> bool {
        let (mine, others) = (self.interface, other.interface);
        self.subsystem.traddr == other.subsystem.traddr
            && self.subsystem.trsvcid == other.subsystem.trsvcid
            && self.subsystem.subsysnqn == other.subsystem.subsysnqn
            && (mine.mac, mine.vlan, mine.address) == (others.mac, others.vlan, others.address)
            && self.host.map(|host| &host.nqn) == other.host.map(|host| &host.nqn)
    }

    fn absorb(&mut self, other: Self) {
        self.primary |= other.primary;
        self.header_digest |= other.header_digest;
        self.data_digest |= other.data_digest;
        self.unavailable &= other.unavailable;
        if !self.security.is_some_and(Security::key_needed) {
            self.security =
                other.security.filter(|security| security.key_needed()).or(self.security).or(other.security);
        }
        self.namespaces.extend(other.namespaces);
    }
}

impl Nbft {
    /// Takes one more table.
    pub fn add(&mut self, name: &str, table: &wire::Table<'_>) {
        self.tables.push(build::table(name, table));
    }

    /// Who this machine is: by the table that says that it knows, or else by the first that does not say that it does
    /// not.
    pub fn host(&self) -> Option<&Host> {
        let hosts = || self.tables.iter().filter_map(|table| table.host.as_ref());
        let with = |primary| hosts().find(|host| host.primary == primary);
        with(Primary::Selected).or_else(|| with(Primary::NotIndicated)).or_else(|| with(Primary::Unselected))
    }

    /// All connections that the tables ask for, each once, `PATHS_MAX` at most; those over a primary interface first.
    pub fn paths(&self) -> Vec<Path<'_>> {
        let mut paths: Vec<Path<'_>> = Vec::new();
        for (table, subsystem, hfi, primary) in self.wanted() {
            let Some(interface) = table.interface(hfi) else { continue };
            let path = Path {
                host: table.host.as_ref(),
                interface,
                primary,
                subsystem,
                namespaces: vec![&subsystem.namespace],
                header_digest: subsystem.header_digest,
                data_digest: subsystem.data_digest,
                security: subsystem.security.as_ref(),
                unavailable: subsystem.unavailable,
            };
            let full = paths.len() >= PATHS_MAX;
            match paths.iter_mut().find(|earlier| earlier.is_same(&path)) {
                Some(earlier) => earlier.absorb(path),
                None if full => {}
                None => paths.push(path),
            }
        }
        paths
    }

    fn wanted(&self) -> impl Iterator<Item = (&Table, &Subsystem, u8, bool)> {
        [true, false].into_iter().flat_map(move |primary| {
            let subsystems =
                self.tables.iter().flat_map(|table| table.subsystems.iter().map(move |ssns| (table, ssns)));
            subsystems.flat_map(move |(table, ssns)| {
                let (first, others) = ssns.hfis.split_at(ssns.hfis.len().min(1));
                let hfis = if primary { first } else { others };
                hfis.iter().map(move |hfi| (table, ssns, *hfi, primary))
            })
        })
    }

    /// The discovery controllers to ask, with their hosts and interfaces: those that have led to no subsystem yet.
    pub fn discovery_controllers(&self) -> impl Iterator<Item = (Option<&Host>, &Interface, &Discovery)> {
        self.tables.iter().flat_map(|table| {
            let unreferenced = table.discovery.iter().filter(|discovery| !discovery.referenced);
            unreferenced.filter_map(|discovery| Some((table.host.as_ref(), table.interface(discovery.hfi)?, discovery)))
        })
    }
}

#[cfg(test)]
mod tests;
