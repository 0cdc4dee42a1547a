//! From the view of a table to what it asks for.

use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr};

use super::{
    DhcpClient, Discovery, Host, Interface, Namespace, Need, Origin, Primary, Reason, Rejected, Security, Subsystem,
    Table,
};
use crate::core::interface::Mac;
use crate::core::page::is_nqn;
use crate::core::tid::{DISCOVERY_NQN, Transport, is_usable_address};
use crate::wire::nbft as wire;

/// IANA's port of NVMe/TCP, for an SSNS without one.
const TCP_PORT: u16 = 4420;
const VLAN_MAX: u16 = 4094;

type Verdict<T> = Result<T, Reason>;

pub(super) fn table(name: &str, view: &wire::Table<'_>) -> Table {
    let (major, minor) = view.revision();
    let (oem, oem_table) = view.oem();
    let mut table = Table {
        name: name.to_owned(),
        revision: format!("{major}.{minor}"),
        oem: format!("{oem} {oem_table}").trim().to_owned(),
        host: None,
        interfaces: Vec::new(),
        subsystems: Vec::new(),
        discovery: Vec::new(),
        rejected: Vec::new(),
        remarks: Vec::new(),
    };
    table.host = match view.host() {
        Some(view) => table.sound(view).and_then(|view| host(&view).map_err(|why| table.reject("host", why)).ok()),
        None => None,
    };
    if table.host.is_none() {
        table.remarks.push("the table does not tell who this host is".to_owned());
    }
    for view in view.hfis() {
        let Some(view) = table.sound(view) else { continue };
        table.note_flaw("HFI", view.index(), view.flaw());
        match interface(&view) {
            Ok(interface) if table.interface(interface.hfi).is_none() => table.interfaces.push(interface),
            Ok(interface) => table.reject(format!("HFI {}", interface.hfi), Reason::IndexTwice),
            Err(why) => table.reject(format!("HFI {}", view.index()), why),
        }
    }
    let profiles = profiles(view, &mut table);
    // Indices of discovery descriptors that something to connect, or to refuse, came from.
    let mut references = Vec::new();
    for view in view.ssns() {
        let Some(view) = table.sound(view) else { continue };
        table.note_flaw("SSNS", view.index(), view.flaw());
        let verdict = subsystem(&view, &mut table, &profiles);
        if matches!(verdict, Ok(_) | Err(Reason::NoSecurityProfile(_))) {
            references.push(view.discovery_index());
        }
        match verdict {
            Ok(subsystem) => table.subsystems.push(subsystem),
            Err(why) => table.reject(format!("SSNS {}", view.index()), why),
        }
    }
    for view in view.discovery() {
        let Some(view) = table.sound(view) else { continue };
        match discovery(&view, &table, &profiles, &references) {
            Ok(discovery) => table.discovery.push(discovery),
            Err(why) => table.reject(format!("discovery {}", view.index()), why),
        }
    }
    table
}

impl Table {
    fn reject(&mut self, what: impl Into<String>, why: Reason) {
        self.rejected.push(Rejected { what: what.into(), why });
    }

    /// The view, unless it is damaged: that is noted.
    fn sound<T>(&mut self, view: Result<T, wire::Damage>) -> Option<T> {
        let damaged = |damage: wire::Damage| {
            let what = match damage.descriptor {
                wire::Descriptor::Host => damage.descriptor.to_string(),
                kind => format!("{kind} {}", damage.index),
            };
            self.reject(what, Reason::Damaged(damage));
        };
        view.map_err(damaged).ok()
    }

    fn note_flaw(&mut self, kind: &str, index: impl Display, flaw: Option<wire::Damage>) {
        if let Some(damage) = flaw {
            self.remarks.push(format!("{kind} {index}: {damage}; the rest of it is used"));
        }
    }
}

fn host(view: &wire::Host<'_>) -> Verdict<Host> {
    let id = view.id();
    Ok(Host {
        nqn: nqn(view.nqn())?,
        nqn_configured: view.nqn_configured(),
        id: (id != [0; 16] && id != [0xff; 16]).then(|| uuid(&id)),
        id_configured: view.id_configured(),
        primary: match view.primary() {
            2 => Primary::Selected,
            1 => Primary::Unselected,
            _ => Primary::NotIndicated,
        },
    })
}

fn nqn(text: &str) -> Verdict<String> {
    if is_nqn(text) { Ok(text.to_owned()) } else { Err(Reason::Nqn(text.to_owned())) }
}

fn interface(view: &wire::Hfi<'_>) -> Verdict<Interface> {
    if view.vlan() > VLAN_MAX {
        return Err(Reason::Vlan(view.vlan()));
    }
    let (segment, bus, device, function) = view.pci();
    let address = ip(view.address());
    let longest = if address.is_some_and(|address| address.is_ipv4()) { 32 } else { 128 };
    // Firmware leaves anything in the field for the origin where a flag tells it.
    let origin = match view.ip_origin() {
        _ if view.dhcp() => Origin::Dhcp,
        _ if view.autoconf() => Origin::Automatic,
        3 => Origin::Dhcp,
        4 => Origin::Automatic,
        _ => Origin::Static,
    };
    Ok(Interface {
        hfi: view.index(),
        mac: Mac(view.mac()),
        vlan: not_zero(view.vlan()),
        pci: format!("{segment:04x}:{bus:02x}:{device:02x}.{function}"),
        address,
        prefix: Some(view.prefix()).filter(|prefix| (1..=longest).contains(prefix)),
        origin,
        gateway: ip(view.gateway()),
        default_route: view.global_route(),
        route_metric: not_zero(view.route_metric()),
        dns: [view.primary_dns(), view.secondary_dns()].into_iter().filter_map(ip).collect(),
        dhcp_server: ip(view.dhcp_server()).filter(|_| view.dhcp()),
        host_name: not_empty(view.host_name()),
        dhcp_client: view.client_id().map(|id| DhcpClient { iaid: hex(id.iaid), duid: hex(id.duid) }),
    })
}

fn profiles(view: &wire::Table<'_>, table: &mut Table) -> Vec<Security> {
    let mut profiles: Vec<Security> = Vec::new();
    for view in view.security() {
        let Some(view) = table.sound(view) else { continue };
        if profiles.iter().any(|earlier| earlier.index == view.index()) {
            table.reject(format!("security profile {}", view.index()), Reason::IndexTwice);
            continue;
        }
        let need = |value| match value {
            0 => Need::NotSupported,
            1 => Need::NotRequired,
            _ => Need::Required,
        };
        profiles.push(Security {
            index: view.index(),
            authentication: need(view.authentication()),
            tls: need(view.channel()),
            keypath: not_empty(view.keypath()),
        });
    }
    profiles
}

fn profile(profiles: &[Security], index: u8) -> Verdict<Option<Security>> {
    let found = profiles.iter().find(|profile| profile.index == index);
    found.cloned().map(Some).ok_or(Reason::NoSecurityProfile(index))
}

fn subsystem(view: &wire::Ssns<'_>, table: &mut Table, profiles: &[Security]) -> Verdict<Subsystem> {
    if view.nqn() == DISCOVERY_NQN {
        return Err(Reason::DiscoveryNqn);
    }
    let security = if view.secured() { profile(profiles, view.security_index())? } else { None };
    let subsysnqn = nqn(view.nqn())?;
    let traddr = Ipv6Addr::from(view.traddr()).to_canonical();
    if !is_usable_address(Transport::Tcp, &traddr.to_string()) {
        return Err(Reason::Address(traddr));
    }
    let trsvcid = match view.trsvcid() {
        "" => TCP_PORT,
        text => port(text).ok_or_else(|| Reason::Service(text.to_owned()))?,
    };
    let hfis = hfis(view, table)?;
    let (nidt, nid) = view.nid();
    Ok(Subsystem {
        ssns: view.index(),
        hfis,
        traddr,
        trsvcid,
        subsysnqn,
        header_digest: view.header_digest(),
        data_digest: view.data_digest(),
        namespace: Namespace { nsid: not_zero(view.nsid()), wwid: wwid(nidt, &nid) },
        security,
        discovered: view.discovered(),
        discovery: not_zero(view.discovery_index()),
        non_bootable: view.non_bootable(),
        unavailable: view.unavailable(),
        diagnostics: view.diagnostics().map(diagnostics).unwrap_or_default(),
        cntlid: not_zero(view.cntlid()),
        asqsz: not_zero(view.admin_asqsz()),
        dhcp_root_path: not_empty(view.dhcp_root_path()),
    })
}

/// The interfaces that there are: the primary one first, none twice.
fn hfis(view: &wire::Ssns<'_>, table: &mut Table) -> Verdict<Vec<u8>> {
    let mut hfis = Vec::new();
    let mut missing = Vec::new();
    // Some firmware fills the list up with 0, which no HFI has.
    let secondary = view.secondary_hfis().iter().filter(|hfi| **hfi != 0);
    for hfi in [view.primary_hfi()].iter().chain(secondary) {
        let into = if table.interface(*hfi).is_some() { &mut hfis } else { &mut missing };
        if !into.contains(hfi) {
            into.push(*hfi);
        }
    }
    if hfis.is_empty() {
        return Err(Reason::NoInterface(view.primary_hfi()));
    }
    for hfi in missing {
        table.remarks.push(format!("SSNS {}: no usable HFI has the index {hfi}; its others are used", view.index()));
    }
    Ok(hfis)
}

fn discovery(
    view: &wire::Discovery<'_>,
    table: &Table,
    profiles: &[Security],
    references: &[u8],
) -> Verdict<Discovery> {
    let security = match view.security_index() {
        0 => None,
        index => profile(profiles, index)?,
    };
    if table.interface(view.hfi_index()).is_none() {
        return Err(Reason::NoInterface(view.hfi_index()));
    }
    let (traddr, port) = parse_uri(view.uri()).ok_or_else(|| Reason::Uri(view.uri().to_owned()))?;
    Ok(Discovery {
        index: view.index(),
        hfi: view.hfi_index(),
        traddr,
        trsvcid: port,
        subsysnqn: if view.nqn().is_empty() { DISCOVERY_NQN.to_owned() } else { nqn(view.nqn())? },
        security,
        referenced: references.contains(&view.index()),
    })
}

/// Address or host name, and port, of `nvme+tcp://ADDRESS[:PORT][/…]` (NVM Express Boot Specification, "NVMe-oF URI").
pub(super) fn parse_uri(uri: &str) -> Option<(String, u16)> {
    let (scheme, rest) = uri.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("nvme+tcp") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, service) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match service {
        "" => port(Transport::Tcp.default_discovery_trsvcid())?,
        service => port(service.strip_prefix(':')?)?,
    };
    let address = host.parse::<IpAddr>().map(|address| address.to_canonical().to_string());
    let is_name = !authority.starts_with('[')
        && (1..=253).contains(&host.len())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        && host.bytes().any(|byte| byte.is_ascii_alphabetic());
    match address {
        Ok(address) => is_usable_address(Transport::Tcp, &address).then_some((address, port)),
        Err(_) => is_name.then(|| (host.to_owned(), port)),
    }
}

fn port(text: &str) -> Option<u16> {
    let port = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    port.filter(|port| *port != 0)
}

/// Nothing when it is all zeros, as IPv6 or as mapped IPv4.
fn ip(bytes: [u8; 16]) -> Option<IpAddr> {
    Some(Ipv6Addr::from(bytes).to_canonical()).filter(|address| !address.is_unspecified())
}

fn not_zero<T: Default + PartialEq>(number: T) -> Option<T> {
    Some(number).filter(|number| *number != T::default())
}

fn not_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn uuid(bytes: &[u8; 16]) -> String {
    let dash = |at| if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
    (0..).zip(bytes).map(|(at, byte)| format!("{}{byte:02x}", dash(at))).collect()
}

/// As the kernel spells it (`wwid_show`).
fn wwid(nidt: u8, nid: &[u8; 16]) -> Option<String> {
    match nidt {
        _ if *nid == [0; 16] => None,
        wire::NIDT_UUID => Some(format!("uuid.{}", uuid(nid))),
        wire::NIDT_NGUID => Some(format!("eui.{}", hex(nid))),
        wire::NIDT_EUI64 => nid.first_chunk::<8>().map(|eui| format!("eui.{}", hex(eui))),
        _ => None,
    }
}

/// The codes that say something, in words.
fn diagnostics(codes: &wire::Diagnostics) -> Vec<String> {
    let word = |kind: &str, code: u8, text: Option<&str>| match (code, text) {
        (0, _) => None,
        (_, Some(text)) => Some(text.to_owned()),
        (code, None) => Some(format!("{kind} code {code}")),
    };
    let mut words = vec![
        word("availability", codes.naed(), availability(codes.naed())),
        word("connect", codes.cipeec(), connect(codes.cipeec())),
        word("network", codes.nceec(), network(codes.nceec())),
    ];
    // How long it waited means nothing where it does not say that it failed.
    let failed = words.iter().any(Option::is_some);
    words.push((failed && !matches!(codes.cto(), 0 | 0xffff)).then(|| format!("waited {} s", codes.cto())));
    words.into_iter().flatten().collect()
}

fn availability(code: u8) -> Option<&'static str> {
    Some(match code {
        1 => "network error",
        2 => "connection failure",
        3 => "connect: invalid parameters",
        4 => "connect: invalid host",
        5 => "connection timeout",
        6 => "discovery log page timeout",
        7 => "namespace missing",
        8 => "namespace not ready",
        9 => "no key from Redfish",
        0x10 => "secure channel negotiation failed",
        0x11 => "authentication failed",
        0x12 => "authentication required",
        0x13 => "DHCP failed",
        0x14 => "DHCP root path unusable",
        _ => return None,
    })
}

fn connect(code: u8) -> Option<&'static str> {
    Some(match code {
        1 => "parameters refused",
        2 => "invalid attributes in the response",
        3 => "Diffie-Hellman mismatch",
        4 => "invalid controller id",
        5 => "I/O controller disabled",
        _ => return None,
    })
}

fn network(code: u8) -> Option<&'static str> {
    Some(match code {
        1 => "link error",
        2 => "no carrier",
        3 => "connection refused",
        4 => "no route to host",
        5 => "fragmentation error",
        6 => "MTU mismatch",
        7 => "name resolution failed",
        _ => return None,
    })
}
