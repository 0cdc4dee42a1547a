//! What the tables ask for, as if it stood in the configuration.
//!
//! The firmware's is the way, and the configuration's the rest: who names the same controller there gives it keys and
//! other options. A path for which a key is needed and not there is refused.
//!
//! Each path is to leave by its own interface, and to outlive whatever the system does to that interface later. The kernel
//! connects a lost path again by itself, with the words that it was given the first time. Bound to a source address (that of
//! the table, if it is no lease) it goes on when the interface has another name by then, or when a bridge or bond has taken the
//! address over. Bound to an interface by name it fails for ever (kernel: `nvme_tcp_alloc_queue`, ENODEV), and its root is
//! lost. So a path is bound by name only where the routing table might choose another interface: where its target is not in
//! the subnet of its HFI alone. Two HFIs in one subnet are such, and any target behind a gateway, which a default route
//! elsewhere would draw to itself.

use std::net::IpAddr;

use super::{Host, Interface, Nbft, Need, Path, Security};
use crate::config::settings::{Common, ConnectOptions, ControllerEntry};
use crate::core::tid::{Transport, canonical_address};

/// A connection that is lost is tried for by the kernel for ever: root may be on it.
const FOREVER: i32 = -1;

/// What this host has to authenticate with, and what else the configuration says.
#[derive(Debug, Clone, Copy)]
pub struct Configured<'a> {
    pub finder: Option<&'a Common>,
    pub connector: Option<&'a Common>,
    /// The host has a key of its own.
    pub host_key: bool,
}

/// Controllers to connect, and why others are not.
#[derive(Debug, Default)]
pub struct Entries {
    pub discovery: Vec<ControllerEntry>,
    pub io: Vec<ControllerEntry>,
    pub refused: Vec<String>,
}

impl Nbft {
    /// Entries for everything whose interface `name_of` has a name for.
    pub fn entries(&self, name_of: impl Fn(&Interface) -> Option<String>, configured: Configured<'_>) -> Entries {
        let mut entries = Entries::default();
        for path in self.paths() {
            let Some(interface) = name_of(path.interface) else { continue };
            let is_routed = self.is_routed(path.interface, Some(path.subsystem.traddr));
            let place = Place { host: path.host, hfi: path.interface, interface, is_routed, security: path.security };
            let entry = keyed(place.path(&path), path.security, configured.connector, configured.host_key);
            entries.take(|entries| &mut entries.io, entry);
        }
        for (host, hfi, discovery) in self.discovery_controllers() {
            let Some(interface) = name_of(hfi) else { continue };
            let is_routed = self.is_routed(hfi, discovery.traddr.parse().ok());
            let place = Place { host, hfi, interface, is_routed, security: discovery.security.as_ref() };
            let entry = place.entry(&discovery.traddr, discovery.trsvcid, &discovery.subsysnqn);
            let entry = keyed(entry, place.security, configured.finder, configured.host_key);
            entries.take(|entries| &mut entries.discovery, entry);
        }
        entries
    }

    /// Whether a target (`None`: not known yet) is in the subnet of this HFI, and of none on another interface.
    fn is_routed(&self, hfi: &Interface, target: Option<IpAddr>) -> bool {
        let all = self.tables.iter().flat_map(|table| &table.interfaces);
        let mut others = all.filter(|other| (other.mac, other.vlan) != (hfi.mac, hfi.vlan));
        target.is_some_and(|target| hfi.is_near(target) && !others.any(|other| other.is_near(target)))
    }
}

impl Entries {
    fn take(
        &mut self,
        list: impl Fn(&mut Entries) -> &mut Vec<ControllerEntry>,
        entry: Result<ControllerEntry, String>,
    ) {
        match entry {
            Ok(entry) => list(self).push(entry),
            Err(why) => self.refused.push(why),
        }
    }
}

/// From where, and as whom.
struct Place<'a> {
    host: Option<&'a Host>,
    hfi: &'a Interface,
    interface: String,
    /// Nobody needs to say that it is over this interface.
    is_routed: bool,
    security: Option<&'a Security>,
}

impl Place<'_> {
    fn path(&self, path: &Path<'_>) -> ControllerEntry {
        let subsystem = path.subsystem;
        let mut entry = self.entry(&subsystem.traddr.to_string(), subsystem.trsvcid, &subsystem.subsysnqn);
        entry.options.hdr_digest = path.header_digest.then_some(true);
        entry.options.data_digest = path.data_digest.then_some(true);
        entry
    }

    fn entry(&self, traddr: &str, trsvcid: u16, subsysnqn: &str) -> ControllerEntry {
        let source = self.hfi.source().map(|address| address.to_string()).unwrap_or_default();
        let options = ConnectOptions {
            tls: self.security.filter(|security| security.tls == Need::Required).map(|_| true),
            of_firmware: true,
            ..ConnectOptions::default()
        };
        ControllerEntry {
            transport: Transport::Tcp,
            traddr: self.zoned(traddr),
            trsvcid: trsvcid.to_string(),
            subsysnqn: subsysnqn.to_owned(),
            host_traddr: self.zoned(&source),
            host_iface: if self.is_routed { String::new() } else { self.interface.clone() },
            host_nqn: self.host.map(|host| host.nqn.clone()).unwrap_or_default(),
            host_id: self.host.and_then(|host| host.id.clone()).unwrap_or_default(),
            options,
        }
    }

    /// Link-local addresses mean something on their interface only.
    fn zoned(&self, address: &str) -> String {
        match address.parse() {
            Ok(IpAddr::V6(ip)) if ip.is_unicast_link_local() => format!("{address}%{}", self.interface),
            _ => address.to_owned(),
        }
    }
}

/// With what the configuration adds, if there is the key that is needed.
fn keyed(
    entry: ControllerEntry,
    security: Option<&Security>,
    configured: Option<&Common>,
    host_key: bool,
) -> Result<ControllerEntry, String> {
    let same = configured.and_then(|common| common.controllers.iter().find(|other| is_same(&entry, other)));
    let mut options = match same {
        Some(same) => entry.options.or(&same.options),
        None => entry.options.clone(),
    };
    let fallback = configured.map(|common| &common.options);
    let ctrl_loss_tmo = fallback.and_then(|options| options.ctrl_loss_tmo);
    options.ctrl_loss_tmo = options.ctrl_loss_tmo.or(ctrl_loss_tmo).or(Some(FOREVER));
    let has_key =
        host_key || options.dhchap_secret.is_some() || fallback.is_some_and(|all| all.dhchap_secret.is_some());
    if security.is_some_and(|security| security.authentication == Need::Required) && !has_key {
        let ControllerEntry { traddr, trsvcid, subsysnqn, .. } = &entry;
        return Err(format!(
            "{traddr} port {trsvcid} {subsysnqn} is not connected: the firmware's table requires authentication, and there \
             is no key; give this host one (sys.conf), or name the controller in the configuration with its dhchap-secret"
        ));
    }
    Ok(ControllerEntry { options, ..entry })
}

fn is_same(one: &ControllerEntry, other: &ControllerEntry) -> bool {
    let address = |entry: &ControllerEntry| canonical_address(entry.transport, &entry.traddr);
    one.transport == other.transport
        && address(one) == address(other)
        && one.trsvcid == other.trsvcid
        && one.subsysnqn == other.subsysnqn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Secret;
    use crate::core::nbft::tests::nbft;
    use crate::wire::nbft::made::{self, Discovery, Hfi, Ssns, ip};

    fn keyless<'a>() -> Configured<'a> {
        Configured { finder: None, connector: None, host_key: false }
    }

    fn entries(table: made::Table, configured: Configured<'_>) -> Entries {
        nbft(&[table]).entries(|hfi| Some(format!("eth{}", hfi.hfi)), configured)
    }

    #[test]
    fn a_path_is_bound_to_its_address_and_to_a_name_only_where_routing_may_err() {
        let hfi = |index: u8, address: &str| Hfi {
            index,
            mac: [2, 0, 0, 0, 0, index],
            address: ip(address),
            ..Hfi::default()
        };
        let ssns =
            |index: u8, traddr: &str| Ssns { index: index.into(), hfi: index, traddr: ip(traddr), ..Ssns::default() };
        let bindings = |hfis: [Hfi; 2], targets: [&str; 2]| -> Vec<(String, String)> {
            let ssns = vec![ssns(1, targets[0]), ssns(2, targets[1])];
            let table = made::Table { hfis: hfis.into(), ssns, ..made::Table::default() };
            entries(table, keyless()).io.into_iter().map(|entry| (entry.host_iface, entry.host_traddr)).collect()
        };
        let bound = |interface: &str, address: &str| (interface.to_owned(), address.to_owned());
        let [one, two] = [hfi(1, "192.0.2.10"), hfi(2, "198.51.100.10")];
        let apart = bindings([one.clone(), two.clone()], ["192.0.2.1", "198.51.100.1"]);
        assert_eq!(apart, [bound("", "192.0.2.10"), bound("", "198.51.100.10")]);
        let in_one_subnet = bindings([one.clone(), hfi(2, "192.0.2.11")], ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(in_one_subnet, [bound("eth1", "192.0.2.10"), bound("eth2", "192.0.2.11")]);
        let behind_a_gateway = bindings([one.clone(), two.clone()], ["203.0.113.1", "192.0.2.1"]);
        assert_eq!(behind_a_gateway, [bound("eth1", "192.0.2.10"), bound("eth2", "198.51.100.10")]);
        // Two addresses of one network card are not in each other's way; a lease may be another by now.
        let leased = Hfi { mac: one.mac, flags: 1 | 4, ..hfi(2, "192.0.2.11") };
        assert_eq!(bindings([one, leased], ["192.0.2.1", "192.0.2.2"]), [bound("", "192.0.2.10"), bound("", "")]);
    }

    #[test]
    fn a_path_is_as_the_table_says() {
        let ssns = Ssns { trflags: 1 | 2, ..Ssns::default() };
        let mut found = entries(made::Table { ssns: vec![ssns], ..made::Table::default() }, keyless());
        let entry = found.io.remove(0);
        assert_eq!(&*entry.trsvcid, "4420");
        assert_eq!(
            (entry.host_nqn, &*entry.host_id),
            (made::Host::default().nqn, "a1b2c3d4-e5f6-4708-890a-0b0c0d0e0f10")
        );
        let options = entry.options;
        assert!(options.of_firmware && options.hdr_digest == Some(true) && options.data_digest.is_none());
        assert_eq!((options.ctrl_loss_tmo, options.tls), (Some(-1), None));
        let absent = nbft(&[made::Table::default()]).entries(|_| None, keyless());
        assert!(absent.io.is_empty() && absent.refused.is_empty());
    }

    #[test]
    fn link_local_addresses_get_the_zone_of_their_interface() {
        let hfis = vec![Hfi { address: ip("fe80::10"), prefix: 64, ..Hfi::default() }];
        let ssns = vec![Ssns { traddr: ip("fe80::1"), ..Ssns::default() }];
        let entry = entries(made::Table { hfis, ssns, ..made::Table::default() }, keyless()).io.remove(0);
        assert_eq!((&*entry.traddr, &*entry.host_traddr), ("fe80::1%eth1", "fe80::10%eth1"));
    }

    #[test]
    fn who_needs_a_key_and_has_none_is_refused() {
        let secured = |flags| made::Table {
            ssns: vec![Ssns { security: 1, ..Ssns::default() }],
            security: vec![made::Security { flags, ..made::Security::default() }],
            ..made::Table::default()
        };
        const AUTHENTICATION: u16 = 1 | 4;
        let found = entries(secured(AUTHENTICATION), keyless());
        assert!(found.io.is_empty() && found.refused[0].contains("192.0.2.1 port 4420"), "{:?}", found.refused);
        assert_eq!(entries(secured(AUTHENTICATION), Configured { host_key: true, ..keyless() }).io.len(), 1);

        // Whoever names the controller gives it its key, and more.
        let mut named = entries(made::Table::default(), keyless()).io.remove(0);
        (named.host_iface, named.host_traddr) = (String::new(), String::new());
        let secret = Some(Secret::new("DHHC-1:00:x:".into()));
        named.options = ConnectOptions { dhchap_secret: secret, ctrl_loss_tmo: Some(60), ..Default::default() };
        let common = Common { controllers: vec![named], ..Common::default() };
        let found = entries(secured(AUTHENTICATION), Configured { connector: Some(&common), ..keyless() });
        let options = &found.io[0].options;
        assert!(options.of_firmware && options.dhchap_secret.is_some() && options.ctrl_loss_tmo == Some(60));

        // TLS without a key is for the kernel to refuse: it has the keyring.
        assert_eq!(entries(secured(1 | 0x40), keyless()).io[0].options.tls, Some(true));
    }

    #[test]
    fn discovery_controllers_are_asked_where_they_have_led_to_nothing() {
        let discovery = vec![Discovery { uri: "nvme+tcp://dc.example/".into(), ..Discovery::default() }];
        let found = entries(made::Table { ssns: vec![], discovery, ..made::Table::default() }, keyless());
        let [entry] = &found.discovery[..] else { panic!("{found:?}") };
        assert_eq!((&*entry.traddr, &*entry.trsvcid, &*entry.host_iface), ("dc.example", "8009", "eth1"));
    }
}
