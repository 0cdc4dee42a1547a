//! The settings as the rest of the program sees them, whatever file and syntax they came from.
//!
//! Plain data: no parsing here, no defaults that hide in code elsewhere.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::tid::Transport;

/// A DH-HMAC-CHAP key, or `file://PATH` of one: then the key is not kept, but read for each connect. Neither `Debug` nor
/// anything else prints it; serialized it goes between helper and daemon, and nowhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: String) -> Secret {
        Secret(value)
    }

    /// The key itself or where it is, for the connect request and nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The file that has the key, if it is in one of its own.
    pub fn file(&self) -> Option<&Path> {
        path_of(&self.0).map(Path::new)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The path in `file://PATH`.
pub fn path_of(source: &str) -> Option<&str> {
    source.strip_prefix("file://")
}

/// Options of a connection (kernel: `drivers/nvme/host/fabrics.c`, `opt_tokens`). `None` leaves the kernel's default, or,
/// in a per-controller section, the daemon-wide value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConnectOptions {
    pub hdr_digest: Option<bool>,
    pub data_digest: Option<bool>,
    /// Keep alive timeout in seconds; 0 turns keep alive off.
    pub kato: Option<u32>,
    /// 16 to 1024 entries.
    pub queue_size: Option<u16>,
    pub nr_io_queues: Option<u32>,
    /// 0 is none, for a controller where the daemon-wide value is another.
    pub nr_write_queues: Option<u32>,
    /// Likewise.
    pub nr_poll_queues: Option<u32>,
    /// Seconds.
    pub reconnect_delay: Option<u32>,
    /// Seconds; -1 means for ever.
    pub ctrl_loss_tmo: Option<i32>,
    /// Seconds; -1 means off.
    pub fast_io_fail_tmo: Option<i32>,
    pub disable_sqflow: Option<bool>,
    pub tos: Option<u8>,
    pub tls: Option<bool>,
    /// Serial number of a key, or its description in the keyring. Never the key itself.
    pub tls_key: Option<String>,
    /// Serial number or name.
    pub keyring: Option<String>,
    /// Secure channel concatenation: TLS with a key that authentication yields.
    pub concat: Option<bool>,
    pub duplicate_connect: Option<bool>,
    pub dhchap_secret: Option<Secret>,
    pub dhchap_ctrl_secret: Option<Secret>,
    /// No option of the kernel's: the firmware's boot table asks for the connection, so it is never taken down, and noted
    /// as its own where programs note who manages what.
    pub of_firmware: bool,
}

impl ConnectOptions {
    /// These options, with `fallback` where they say nothing.
    pub fn or(&self, fallback: &ConnectOptions) -> ConnectOptions {
        let (a, b) = (self, fallback);
        ConnectOptions {
            hdr_digest: a.hdr_digest.or(b.hdr_digest),
            data_digest: a.data_digest.or(b.data_digest),
            kato: a.kato.or(b.kato),
            queue_size: a.queue_size.or(b.queue_size),
            nr_io_queues: a.nr_io_queues.or(b.nr_io_queues),
            nr_write_queues: a.nr_write_queues.or(b.nr_write_queues),
            nr_poll_queues: a.nr_poll_queues.or(b.nr_poll_queues),
            reconnect_delay: a.reconnect_delay.or(b.reconnect_delay),
            ctrl_loss_tmo: a.ctrl_loss_tmo.or(b.ctrl_loss_tmo),
            fast_io_fail_tmo: a.fast_io_fail_tmo.or(b.fast_io_fail_tmo),
            disable_sqflow: a.disable_sqflow.or(b.disable_sqflow),
            tos: a.tos.or(b.tos),
            tls: a.tls.or(b.tls),
            tls_key: a.tls_key.clone().or_else(|| b.tls_key.clone()),
            keyring: a.keyring.clone().or_else(|| b.keyring.clone()),
            concat: a.concat.or(b.concat),
            duplicate_connect: a.duplicate_connect.or(b.duplicate_connect),
            dhchap_secret: a.dhchap_secret.clone().or_else(|| b.dhchap_secret.clone()),
            dhchap_ctrl_secret: a.dhchap_ctrl_secret.clone().or_else(|| b.dhchap_ctrl_secret.clone()),
            of_firmware: a.of_firmware,
        }
    }
}

impl ConnectOptions {
    /// Whether TLS comes before NVMe. Who names a key wants it used: without `tls` the kernel would ignore it.
    pub fn wants_tls(&self) -> bool {
        self.tls.unwrap_or(self.tls_key.is_some())
    }

    /// The keys of this controller alone.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        [&self.dhchap_secret, &self.dhchap_ctrl_secret].into_iter().flatten()
    }
}

/// A controller named in a configuration file. Addresses are as written there; an empty string means "not given".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerEntry {
    pub transport: Transport,
    /// An address, or a host name for IP transports.
    pub traddr: String,
    /// Never empty for IP transports: the default is filled in. Always empty for the others.
    pub trsvcid: String,
    /// Never empty: for discovery controllers the default, the well-known NQN, is filled in.
    pub subsysnqn: String,
    pub host_traddr: String,
    pub host_iface: String,
    pub host_nqn: String,
    /// Goes with `host_nqn`.
    pub host_id: String,
    pub options: ConnectOptions,
}

/// What must not be connected: matches a controller when every key that is given equals the controller's.
/// At least one is given, and the address is canonical.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exclusion {
    pub transport: Option<Transport>,
    pub traddr: String,
    pub trsvcid: String,
    pub subsysnqn: String,
    pub host_iface: String,
    pub host_nqn: String,
}

/// Which IP address families may be used, and which is preferred where a name has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum IpFamily {
    Ipv4,
    Ipv6,
    #[default]
    Ipv4Ipv6,
    Ipv6Ipv4,
}

/// What both daemons have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Common {
    /// Trace on: debug messages in the log.
    pub tron: bool,
    pub ip_family: IpFamily,
    /// Do not bind connections to the interface that the controller was found on.
    pub ignore_iface: bool,
    /// Further files that name controllers.
    pub sources: Vec<PathBuf>,
    pub options: ConnectOptions,
    pub controllers: Vec<ControllerEntry>,
    pub exclusions: Vec<Exclusion>,
}

impl Common {
    fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.controllers.iter().flat_map(|controller| controller.options.secrets())
    }

    /// The files that hold keys of controllers.
    pub fn key_files(&self) -> impl Iterator<Item = &Path> {
        self.secrets().filter_map(Secret::file)
    }

    /// Whether the file these settings came from holds a key in plain text.
    pub fn holds_secrets(&self) -> bool {
        self.secrets().any(|secret| secret.file().is_none())
    }
}

/// How long something outlives its last sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Persistence {
    For(Duration),
    Forever,
}

/// Whether a connection to a discovery controller stays, once its log page has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Persistent {
    No,
    /// Unless the controller says that it does not support that.
    #[default]
    Auto,
    Force,
}

/// `stafd.conf`.
///
/// Discovery controllers get a keep alive timeout of 30 s by default: unlike an I/O controller, whose loss the next I/O
/// shows, nothing else tells that one is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinderSettings {
    pub common: Common,
    /// Ask a direct discovery controller for port-local entries only, if it supports that.
    pub pleo: bool,
    pub zeroconf: bool,
    /// Keep discovery connections when the daemon stops.
    pub persistent_connections: bool,
    pub zeroconf_persistence: Persistence,
    pub persistent: Persistent,
    /// How often those are read again that do not tell when something changes. At least a second.
    pub polling_interval: Duration,
}

impl Default for FinderSettings {
    fn default() -> FinderSettings {
        let options = ConnectOptions { kato: Some(30), ..ConnectOptions::default() };
        FinderSettings {
            common: Common { options, ..Common::default() },
            pleo: true,
            zeroconf: true,
            persistent_connections: true,
            zeroconf_persistence: Persistence::For(Duration::from_secs(72 * 3600)),
            persistent: Persistent::Auto,
            polling_interval: Duration::from_secs(15 * 60),
        }
    }
}

/// What the connector may take down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum DisconnectScope {
    #[default]
    OnlyStasConnections,
    AllConnectionsMatchingDisconnectTrtypes,
    NoDisconnect,
}

/// `stacd.conf`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectorSettings {
    pub common: Common,
    pub disconnect_scope: DisconnectScope,
    pub disconnect_trtypes: Vec<Transport>,
    /// Disconnect even what this host uses.
    pub disconnect_in_use: bool,
    /// Stop after that many attempts while a controller's Not Connected to CDC bit is set; `None`: never stop.
    pub connect_attempts_on_ncc: Option<u32>,
}

impl Default for ConnectorSettings {
    fn default() -> ConnectorSettings {
        ConnectorSettings {
            common: Common::default(),
            disconnect_scope: DisconnectScope::default(),
            disconnect_trtypes: vec![Transport::Tcp],
            disconnect_in_use: false,
            connect_attempts_on_ncc: None,
        }
    }
}

/// `sys.conf`: who this host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIdentity {
    pub nqn: String,
    /// A UUID with hyphens, in lower case.
    pub id: String,
    pub key: Option<Secret>,
    pub symname: Option<String>,
}
