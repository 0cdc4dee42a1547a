//! Every key there is, once: its name in both syntaxes, its INI section, and what it accepts.
//!
//! A key is read by one of the readers of [`Value`], which know the accepted values and say them. Defaults are those of the
//! settings' `Default`; the manual and `etc/stas/` show them to the administrator, and tests/manual.rs holds them together.

use crate::config::controller::Draft;
use crate::config::finding::quoted;
use crate::config::identity::{IdentitySources, check_id};
use crate::config::secret::parse_reference;
use crate::config::settings::{Common, ConnectOptions, ConnectorSettings, FinderSettings, Secret};
use crate::config::value::{Entry, Value};
use crate::core::tid::NQN_MAX;
use crate::suggest;

pub(super) const GLOBAL: &str = "Global";
pub(super) const SERVICE_DISCOVERY: &str = "Service Discovery";
pub(super) const DISCOVERY_MANAGEMENT: &str = "Discovery controller connection management";
pub(super) const IO_MANAGEMENT: &str = "I/O controller connection management";
pub(super) const CONTROLLERS: &str = "Controllers";
pub(super) const HOST: &str = "Host";

/// The sections of the INI dialect, of all three files.
pub(super) const SECTIONS: [&str; 6] =
    [GLOBAL, SERVICE_DISCOVERY, DISCOVERY_MANAGEMENT, IO_MANAGEMENT, CONTROLLERS, HOST];

/// Kernel options of seconds are C integers.
const SECONDS_MAX: u32 = i32::MAX as u32;

/// Longest interface name (kernel: `IFNAMSIZ` less the terminator).
const INTERFACE_NAME_MAX: usize = 15;

/// A key and how its value gets into the settings `S`.
pub(super) struct Key<S: 'static> {
    pub(super) name: &'static str,
    /// Where it stands in INI; empty for what belongs to one controller.
    section: &'static str,
    set: fn(&mut S, &Value) -> Result<(), String>,
}

/// Finds the key of `entry` in `table` and sets it; `None` if the key is not in the table.
pub(super) fn set<S>(table: &[Key<S>], settings: &mut S, entry: &Entry) -> Option<Result<(), String>> {
    let in_section = |key: &Key<S>| entry.section.as_deref().is_none_or(|section| section == key.section);
    let key = table.iter().find(|key| key.name == entry.key && in_section(key))?;
    Some((key.set)(settings, &entry.value))
}

/// A key as the manual has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KnownKey {
    pub name: &'static str,
    /// Where it stands in a file of the nvme-stas dialect; empty for what belongs to one controller.
    pub section: &'static str,
}

/// The keys in `table`.
pub(super) fn known<S>(table: &'static [Key<S>]) -> impl Iterator<Item = KnownKey> {
    table.iter().map(|key| KnownKey { name: key.name, section: key.section })
}

/// What to say of a key that nobody knows: what is meant, or else what there is.
pub(super) fn unknown(key: &str, accepted: &[KnownKey]) -> String {
    let names: Vec<&str> = accepted.iter().map(|key| key.name).collect();
    let meant = suggest::meant(key, names.iter().copied());
    let accepted = if meant.is_empty() { format!("; accepted: {}", names.join(", ")) } else { meant };
    format!("unknown key {}{accepted}", quoted(key))
}

/// The names in `table`.
pub(super) fn names<S>(table: &'static [Key<S>]) -> impl Iterator<Item = &'static str> {
    table.iter().map(|key| key.name)
}

const fn global<S>(name: &'static str, set: fn(&mut S, &Value) -> Result<(), String>) -> Key<S> {
    Key { name, section: GLOBAL, set }
}

const fn in_section<S>(
    section: &'static str,
    name: &'static str,
    set: fn(&mut S, &Value) -> Result<(), String>,
) -> Key<S> {
    Key { name, section, set }
}

const fn of_controller<S>(name: &'static str, set: fn(&mut S, &Value) -> Result<(), String>) -> Key<S> {
    Key { name, section: "", set }
}

/// Of both daemons.
pub(super) const COMMON: &[Key<Common>] = &[
    global("tron", |s, v| v.boolean().map(|on| s.tron = on)),
    global("ip-family", |s, v| v.ip_family().map(|family| s.ip_family = family)),
    global("ignore-iface", |s, v| v.boolean().map(|on| s.ignore_iface = on)),
    global("sources", |s, v| v.paths().map(|paths| s.sources = paths)),
];

pub(super) const FINDER: &[Key<FinderSettings>] = &[
    global("pleo", |s, v| v.enabled().map(|on| s.pleo = on)),
    in_section(SERVICE_DISCOVERY, "zeroconf", |s, v| v.enabled().map(|on| s.zeroconf = on)),
    in_section(DISCOVERY_MANAGEMENT, "persistent-connections", |s, v| {
        v.boolean().map(|on| s.persistent_connections = on)
    }),
    in_section(DISCOVERY_MANAGEMENT, "zeroconf-connections-persistence", |s, v| {
        v.persistence().map(|span| s.zeroconf_persistence = span)
    }),
    in_section(DISCOVERY_MANAGEMENT, "persistent", |s, v| v.persistent().map(|how| s.persistent = how)),
    in_section(DISCOVERY_MANAGEMENT, "polling-interval", |s, v| v.interval().map(|span| s.polling_interval = span)),
];

pub(super) const CONNECTOR: &[Key<ConnectorSettings>] = &[
    in_section(IO_MANAGEMENT, "disconnect-scope", |s, v| v.disconnect_scope().map(|scope| s.disconnect_scope = scope)),
    in_section(IO_MANAGEMENT, "disconnect-trtypes", |s, v| v.transports().map(|list| s.disconnect_trtypes = list)),
    in_section(IO_MANAGEMENT, "disconnect-in-use", |s, v| v.boolean().map(|on| s.disconnect_in_use = on)),
    in_section(IO_MANAGEMENT, "connect-attempts-on-ncc", |s, v| {
        // The first attempt may fail for no reason: 1 means 2.
        v.integer(0..=u32::MAX).map(|n| s.connect_attempts_on_ncc = (n > 0).then_some(n.max(2)))
    }),
];

/// Connect options that may stand globally, and in a controller to override that.
pub(super) const OPTIONS: &[Key<ConnectOptions>] = &[
    global("hdr-digest", |o, v| v.boolean().map(|on| o.hdr_digest = Some(on))),
    global("data-digest", |o, v| v.boolean().map(|on| o.data_digest = Some(on))),
    global("kato", |o, v| v.integer(0..=SECONDS_MAX).map(|n| o.kato = Some(n))),
    global("queue-size", |o, v| v.integer(16..=1024).map(|n| o.queue_size = Some(n))),
    global("reconnect-delay", |o, v| v.integer(1..=SECONDS_MAX).map(|n| o.reconnect_delay = Some(n))),
    global("ctrl-loss-tmo", |o, v| v.integer(-1..=i32::MAX).map(|n| o.ctrl_loss_tmo = Some(n))),
    global("fast-io-fail-tmo", |o, v| v.integer(-1..=i32::MAX).map(|n| o.fast_io_fail_tmo = Some(n))),
    global("disable-sqflow", |o, v| v.boolean().map(|on| o.disable_sqflow = Some(on))),
    global("tos", |o, v| v.integer(0..=u8::MAX).map(|n| o.tos = Some(n))),
    global("tls", |o, v| v.boolean().map(|on| o.tls = Some(on))),
    global("tls-key", |o, v| tls_key(v).map(|key| o.tls_key = Some(key))),
    global("keyring", |o, v| key_name(v).map(|ring| o.keyring = Some(ring))),
    global("concat", |o, v| v.boolean().map(|on| o.concat = Some(on))),
];

/// Globally of the connector only: discovery controllers have no I/O queues. In a controller accepted from both.
pub(super) const QUEUES: &[Key<ConnectOptions>] = &[
    global("nr-io-queues", |o, v| v.integer(1..=SECONDS_MAX).map(|n| o.nr_io_queues = Some(n))),
    global("nr-write-queues", |o, v| v.integer(0..=SECONDS_MAX).map(|n| o.nr_write_queues = Some(n))),
    global("nr-poll-queues", |o, v| v.integer(0..=SECONDS_MAX).map(|n| o.nr_poll_queues = Some(n))),
];

/// Of `sys.conf`. An empty value means "not given".
pub(super) const IDENTITY: &[Key<IdentitySources>] = &[
    in_section(HOST, "nqn", |s, v| v.text().map(|text| s.nqn = text.to_owned())),
    in_section(HOST, "id", |s, v| v.text().map(|text| s.id = text.to_owned())),
    in_section(HOST, "key", |s, v| v.text().map(|text| s.key = Secret::new(text.to_owned()))),
    in_section(HOST, "symname", |s, v| v.text().map(|text| s.symname = text.to_owned())),
];

/// Connect options that make sense for one controller only.
pub(super) const OWN_OPTIONS: &[Key<ConnectOptions>] =
    &[of_controller("duplicate-connect", |o, v| v.boolean().map(|on| o.duplicate_connect = Some(on)))];

/// Keys (in the cryptographic sense) of one controller.
pub(super) const SECRETS: &[Key<ConnectOptions>] = &[
    of_controller("dhchap-secret", |o, v| dhchap(v).map(|secret| o.dhchap_secret = Some(secret))),
    of_controller("dhchap-ctrl-secret", |o, v| dhchap(v).map(|secret| o.dhchap_ctrl_secret = Some(secret))),
];

/// Which controller: of `controller` and `exclude`.
pub(super) const ADDRESS: &[Key<Draft>] = &[
    of_controller("transport", |d, v| v.transport().map(|transport| d.transport = Some(transport))),
    of_controller("traddr", |d, v| v.word().map(|address| d.traddr = address.to_owned())),
    of_controller("trsvcid", |d, v| v.service_id().map(|id| d.trsvcid = id)),
    of_controller("nqn", |d, v| nqn(v).map(|nqn| d.subsysnqn = nqn)),
    of_controller("subsysnqn", |d, v| nqn(v).map(|nqn| d.subsysnqn = nqn)),
    of_controller("host-iface", |d, v| interface(v).map(|name| d.host_iface = name)),
    of_controller("host-nqn", |d, v| nqn(v).map(|nqn| d.host_nqn = nqn)),
];

/// Of `controller` only: an exclusion does not look at it.
pub(super) const SOURCE: &[Key<Draft>] = &[
    of_controller("host-traddr", |d, v| v.word().map(|address| d.host_traddr = address.to_owned())),
    of_controller("host-id", |d, v| check_id(v.text()?).map(|id| d.host_id = id)),
];

fn dhchap(value: &Value) -> Result<Secret, String> {
    parse_reference(value.text()?)
}

/// Targets exist whose NQNs do not begin with `nqn.`; the kernel takes them, so only what it refuses is refused here.
fn nqn(value: &Value) -> Result<String, String> {
    let word = value.word()?;
    if word.len() > NQN_MAX {
        return Err(format!("the NQN has {} bytes; accepted: at most {NQN_MAX}", word.len()));
    }
    Ok(word.to_owned())
}

fn interface(value: &Value) -> Result<String, String> {
    let word = value.word()?;
    if word.len() > INTERFACE_NAME_MAX || word.contains('/') {
        return Err(format!("{} is not the name of an interface", quoted(word)));
    }
    Ok(word.to_owned())
}

/// The kernel takes the serial number of a key in a keyring, never the key itself.
fn tls_key(value: &Value) -> Result<String, String> {
    if matches!(value, Value::Bare(text) | Value::Text(text) if text.starts_with("NVMeTLSkey-1:")) {
        return Err(
            "the key itself must not stand here; accepted: its serial number or description in a keyring".to_owned()
        );
    }
    key_name(value)
}

/// A serial number, or what a key or keyring is called: a description has spaces in it.
fn key_name(value: &Value) -> Result<String, String> {
    if let Value::Integer(_) = value {
        return value.integer(1..=i32::MAX).map(|serial| serial.to_string());
    }
    let text = value.text()?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("is not the serial number or description of a key".to_owned());
    }
    Ok(text.to_owned())
}
