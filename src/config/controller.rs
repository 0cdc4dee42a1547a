//! A `controller` or `exclude` entry: from its keys to something that can be connected, or matched.
//!
//! A mistake in what identifies a controller, or in a secret, makes the entry useless and it is left out: connecting to
//! something else, or without the authentication that was asked for, would be worse. A mistake in another option leaves the
//! entry with the daemon-wide value.

use std::net::IpAddr;

use crate::config::assemble::is_top_level;
use crate::config::finding::{Report, Severity, quoted};
use crate::config::keys::{ADDRESS, Key, KnownKey, OPTIONS, OWN_OPTIONS, QUEUES, SECRETS, SOURCE, known, set, unknown};
use crate::config::settings::{ConnectOptions, ControllerEntry, Exclusion};
use crate::config::value::Entry;
use crate::core::device::ControllerKind;
use crate::core::tid::{DISCOVERY_NQN, Transport, canonical_address, is_usable_address, parse_ip};

/// An entry while its keys are read.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) transport: Option<Transport>,
    pub(super) traddr: String,
    pub(super) trsvcid: String,
    pub(super) subsysnqn: String,
    pub(super) host_traddr: String,
    pub(super) host_iface: String,
    pub(super) host_nqn: String,
    pub(super) host_id: String,
}

/// The tables whose keys may override daemon-wide connect options. Secrets are apart: see the module text.
const OVERRIDES: [&[Key<ConnectOptions>]; 3] = [OPTIONS, QUEUES, OWN_OPTIONS];

/// Reads a `controller`; `None`, with a finding, if it cannot be used.
pub(super) fn controller(
    kind: ControllerKind,
    fields: &[Entry],
    line: usize,
    report: &mut Report<'_>,
) -> Option<ControllerEntry> {
    let mut draft = Draft::default();
    let mut options = ConnectOptions::default();
    let mut usable = true;
    for field in fields {
        let essential = set(ADDRESS, &mut draft, field)
            .or_else(|| set(SOURCE, &mut draft, field))
            .or_else(|| set(SECRETS, &mut options, field));
        usable &= !matches!(essential, Some(Err(_)));
        match essential.or_else(|| OVERRIDES.iter().find_map(|table| set(table, &mut options, field))) {
            Some(Ok(())) => {}
            Some(Err(why)) => report.mistake(field.line, &field.key, why),
            None => report.mistake(field.line, "controller", unknown_key(field, &controller_keys())),
        }
    }
    if !usable {
        report.mistake(line, "controller", "left out because of what is wrong with it");
        return None;
    }
    let entry = complete(kind, draft, options).map_err(|why| report.mistake(line, "controller", why)).ok()?;
    if kind == ControllerKind::Io && entry.transport == Transport::Tcp && !fields.iter().any(|f| f.key == "trsvcid") {
        let message = "trsvcid is not given: 8009 is used, but I/O controllers mostly listen on 4420";
        report.add(Severity::Info, Some(line), "controller", message.to_owned());
    }
    if entry.transport.is_ip() && entry.host_iface.is_empty() && needs_interface(&entry.traddr) {
        let traddr = &entry.traddr;
        let message = format!(
            "{traddr} is a link-local address: host-iface has to say on which interface, or {traddr}%eth0 does"
        );
        report.warning(line, "controller", message);
    }
    Some(entry)
}

/// Reads an `exclude`; `None`, with a finding, if it cannot be used. A key that is not understood spoils the entry: without
/// it the exclusion would match more than it was meant to, and take storage away.
pub(super) fn exclusion(fields: &[Entry], line: usize, report: &mut Report<'_>) -> Option<Exclusion> {
    let mut draft = Draft::default();
    let (mut given, mut usable) = (0, true);
    for field in fields {
        match set(ADDRESS, &mut draft, field) {
            Some(Ok(())) => given += 1,
            _ if field.key == "host-traddr" => {
                report.warning(field.line, "exclude", "host-traddr is not considered in an exclusion");
            }
            result => {
                usable = false;
                let why = result.and_then(Result::err).unwrap_or_else(|| unknown_key(field, &exclusion_keys()));
                report.mistake(field.line, "exclude", why);
            }
        }
    }
    if !usable {
        report.mistake(line, "exclude", "left out because of what is wrong with it: it excludes nothing");
        return None;
    }
    if given == 0 {
        report.mistake(line, "exclude", "is empty and excludes nothing");
        return None;
    }
    Some(Exclusion {
        transport: draft.transport,
        // Spelling FC addresses by the rule for IP is right too: both end up in lower case.
        traddr: canonical_address(draft.transport.unwrap_or(Transport::Tcp), &draft.traddr),
        trsvcid: draft.trsvcid,
        subsysnqn: draft.subsysnqn,
        host_iface: draft.host_iface,
        host_nqn: draft.host_nqn,
    })
}

/// Fills in defaults and refuses what cannot be connected.
fn complete(kind: ControllerKind, draft: Draft, options: ConnectOptions) -> Result<ControllerEntry, String> {
    let Some(transport) = draft.transport else {
        return Err("transport is missing; accepted: tcp, rdma, fc, loop".to_owned());
    };
    check_address("traddr", transport, &draft.traddr)?;
    check_source(transport, &draft.host_traddr)?;
    if draft.host_nqn.is_empty() && !draft.host_id.is_empty() {
        return Err("host-id goes with a host-nqn; those of this host are in sys.conf".to_owned());
    }
    let subsysnqn = match kind {
        ControllerKind::Discovery if draft.subsysnqn.is_empty() => DISCOVERY_NQN.to_owned(),
        ControllerKind::Io if draft.subsysnqn.is_empty() => {
            return Err("nqn is missing: an I/O controller is named by the NQN of its subsystem".to_owned());
        }
        _ => draft.subsysnqn,
    };
    Ok(ControllerEntry {
        transport,
        traddr: draft.traddr,
        trsvcid: complete_trsvcid(transport, draft.trsvcid)?,
        subsysnqn,
        host_traddr: draft.host_traddr,
        host_iface: draft.host_iface,
        host_nqn: draft.host_nqn,
        host_id: draft.host_id,
        options,
    })
}

/// nvme-stas, and the kernel, take the discovery port for I/O controllers too where none is given.
fn complete_trsvcid(transport: Transport, trsvcid: String) -> Result<String, String> {
    if !transport.is_ip() {
        return Ok(String::new());
    }
    if trsvcid.is_empty() {
        return Ok(transport.default_discovery_trsvcid().to_owned());
    }
    match trsvcid.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port.to_string()),
        _ => Err(format!("trsvcid: {} is not a port; accepted: 1 to 65535", quoted(&trsvcid))),
    }
}

fn check_address(key: &str, transport: Transport, address: &str) -> Result<(), String> {
    let accepted = match transport {
        Transport::Loop => return Ok(()),
        Transport::Fc => "nn-0x0123456789abcdef:pn-0x0123456789abcdef",
        Transport::Tcp | Transport::Rdma => {
            "an IPv4 or IPv6 address, without brackets, or a host name; the port is trsvcid"
        }
    };
    if address.is_empty() {
        return Err(format!("{key} is missing; accepted: {accepted}"));
    }
    let canonical = canonical_address(transport, address);
    let is_name = transport.is_ip() && is_host_name(&canonical);
    if is_name || is_usable_address(transport, &canonical) {
        return Ok(());
    }
    Err(format!("{key}: {} is not an address of a controller; accepted: {accepted}", quoted(address)))
}

/// Fibre Channel cannot do without it (kernel: `nvme_fc_transport`, required options).
fn check_source(transport: Transport, host_traddr: &str) -> Result<(), String> {
    match transport {
        Transport::Fc => check_address("host-traddr", transport, host_traddr),
        Transport::Tcp | Transport::Rdma if !host_traddr.is_empty() && parse_ip(host_traddr).is_none() => {
            Err(format!("host-traddr: {} is not an IPv4 or IPv6 address", quoted(host_traddr)))
        }
        _ => Ok(()),
    }
}

/// Whether there may be such an address on every interface, and none is named.
fn needs_interface(address: &str) -> bool {
    matches!(parse_ip(address), Some((IpAddr::V6(ip), None)) if ip.is_unicast_link_local())
}

/// RFC 1123, with the underscore that is seen in practice. A last label of digits alone belongs to a mistyped address.
fn is_host_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last_is_number = name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= 253 && !last_is_number && name.split('.').all(is_label)
}

/// All keys of a `controller`.
pub(super) fn controller_keys() -> Vec<KnownKey> {
    let options = OVERRIDES.iter().flat_map(|table| known(table));
    known(ADDRESS).chain(known(SOURCE)).chain(known(SECRETS)).chain(options).collect()
}

/// All keys of an `exclude`.
pub(super) fn exclusion_keys() -> Vec<KnownKey> {
    known(ADDRESS).collect()
}

fn unknown_key(field: &Entry, accepted: &[KnownKey]) -> String {
    match is_top_level(&field.key) {
        true => format!("{} is no key of a table; top-level keys stand before the first table", quoted(&field.key)),
        false => unknown(&field.key, accepted),
    }
}
