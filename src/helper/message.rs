//! What the daemon asks of the helper process, and what comes back.
//!
//! One message is one packet on a `SOCK_SEQPACKET` pair, so messages of several children never mix.

use std::fmt;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::core::device::Device;

/// Chosen by the daemon, returned with the reply.
pub type RequestId = u64;

/// Something that may block in the kernel. The helper makes each in a child of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Which options this kernel knows: reads `/dev/nvme-fabrics`.
    ReadOptions,
    /// Write a connect string to `/dev/nvme-fabrics`.
    Connect(Box<ConnectRequest>),
    /// Write `delete_controller`, if the controller still is the one described, and unless this host uses what it leads to
    /// and that counts.
    Disconnect { controller: ControllerIdentity, even_if_used: bool },
    /// Register this host with a discovery controller that takes registrations (DIM), if it still is the one described.
    Register(Box<RegisterRequest>),
    /// What a discovery controller can do: Identify, and with `pleo` also Get Log Page 00h, unless it is a central one.
    Inquire { identity: ControllerIdentity, pleo: bool },
    /// Get Log Page 70h of a discovery controller, whole and consistent, if the controller still is the one described:
    /// the page of another one would be wrong evidence.
    ReadLogPage { identity: ControllerIdentity, how: PageRequest },
    /// Find the addresses of a host name.
    Resolve(String),
    /// Have the kernel tell of every port of Fibre Channel targets once more, by uevents that come before the reply.
    AskFcPorts,
    /// Change the network: a row of requests as in `wire::rtnetlink`. To switch an interface on may take its driver seconds.
    ChangeNetwork(Vec<u8>),
    /// Put nvme-cli's udev rule out of force where udev is in use and the rule would be in our way, or put it in force again.
    OverrideRule(bool),
    /// Read the daemon's configuration. Where that is, the helper knows from the start: a path that is asked for could be that
    /// of anything.
    ReadConfiguration,
    /// Read what no program of this host is to connect.
    ReadExclusions,
    /// Make another helper process, to be in reserve.
    Another,
}

/// NQN, address and transport are those of the connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisterRequest {
    pub identity: ControllerIdentity,
    /// A UUID, for kernels that do not show which one the connection has.
    pub hostid: String,
    /// May be empty.
    pub symname: String,
}

/// The fields of a connect string (kernel: `nvmf_parse_options`). Empty strings and `None` are left out; the helper
/// refuses values that could add an option of their own.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectRequest {
    pub nqn: String,
    pub transport: String,
    pub traddr: String,
    pub trsvcid: String,
    pub host_traddr: String,
    pub host_iface: String,
    pub hostnqn: String,
    pub hostid: String,
    /// A discovery controller under an NQN of its own (TP8013).
    pub discovery: bool,
    pub keep_alive_tmo: Option<u32>,
    pub queue_size: Option<u16>,
    pub nr_io_queues: Option<u32>,
    pub nr_write_queues: Option<u32>,
    pub nr_poll_queues: Option<u32>,
    pub reconnect_delay: Option<u32>,
    pub ctrl_loss_tmo: Option<i32>,
    pub fast_io_fail_tmo: Option<i32>,
    pub tos: Option<u8>,
    pub hdr_digest: bool,
    pub data_digest: bool,
    pub disable_sqflow: bool,
    pub duplicate_connect: bool,
    pub tls: bool,
    pub tls_key: String,
    pub keyring: String,
    pub concat: bool,
    /// Keys, or `file://PATH` of one.
    pub dhchap_secret: String,
    pub dhchap_ctrl_secret: String,
}

/// Without the keys, so that no log can have them.
impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("nqn", &self.nqn)
            .field("transport", &self.transport)
            .field("traddr", &self.traddr)
            .field("trsvcid", &self.trsvcid)
            .finish_non_exhaustive()
    }
}

/// Names one kernel controller beyond doubt although `nvmeN` numbers are recycled: sysfs must show all of this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControllerIdentity {
    pub device: String,
    pub transport: String,
    pub traddr: String,
    pub trsvcid: String,
    pub subsysnqn: String,
    pub hostnqn: String,
    /// How the connection is pinned: two paths to one subsystem may differ in nothing else.
    pub host_traddr: String,
    pub host_iface: String,
    /// Whose it was when the request was made, by nvme-cli's registry: not to be taken down if somebody has claimed it since.
    pub owner: Option<String>,
}

impl From<&Device> for ControllerIdentity {
    fn from(device: &Device) -> ControllerIdentity {
        ControllerIdentity {
            device: device.name.clone(),
            transport: device.transport.as_str().to_owned(),
            traddr: device.traddr.clone(),
            trsvcid: device.trsvcid.clone(),
            subsysnqn: device.subsysnqn.clone(),
            hostnqn: device.host_nqn.clone(),
            host_traddr: device.host_traddr.clone(),
            host_iface: device.host_iface.clone(),
            owner: device.owner.clone(),
        }
    }
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// The option names of this kernel, as `/dev/nvme-fabrics` lists them (without `=%s` and `=%d`).
    Options(Vec<String>),
    Connected {
        /// The N of `nvmeN`.
        instance: u32,
        cntlid: u16,
    },
    Disconnected,
    FcPortsTold,
    NetworkChanged,
    /// Whether the rule is out of force now, and what went wrong, for the log.
    RuleOverridden(bool, Option<String>),
    /// Its socket comes with this message.
    Another {
        pid: i32,
    },
    /// `false`: the controller does not take registrations.
    Registered(bool),
    Capabilities(Capabilities),
    /// The page is in the sealed memory file that comes with this message.
    LogPage {
        bytes: u64,
    },
    /// A [`Configuration`](crate::config::Configuration) or its [`Exclusions`](crate::config::Exclusions), in a sealed memory
    /// file likewise.
    Long {
        bytes: u64,
    },
    /// Addresses of the name that was asked for, some with a zone: at least one, in no particular order.
    Resolved(Vec<String>),
    Failed(Failure),
}

/// How to ask for a discovery log page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRequest {
    /// Only the entries of the port in use.
    pub port_local: bool,
    /// [`Capabilities::piece`].
    pub piece: u32,
}

/// What a discovery controller can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// It tells when its log page changes.
    pub notices: bool,
    /// It can be asked for the entries of the port in use only; `None`: it did not say, or was not asked.
    pub pleo: Option<bool>,
    /// So many bytes of a log page can be asked for at once; 0: not known.
    pub piece: u32,
}

/// Why a request failed. `Display` is meant to follow "cannot connect …: ".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// A system call's errno; from a connect the kernel's verdict on the connection.
    Errno(i32),
    /// NVMe status (status field without the phase bit, as the passthrough ioctl returns it).
    NvmeStatus(u16),
    /// There is no controller under that name any more.
    Gone,
    /// The controller exists, but is not connected at the moment.
    NotReady,
    /// The connection was lost while the controller had the command, or it did not answer in time.
    Interrupted,
    /// The generation counter changed during each of so many reads.
    Inconsistent { attempts: u32 },
    /// The controller's page is none: a claim that cannot be followed, or fewer bytes than were asked for.
    BadPage(String),
    /// sysfs shows another controller under that name by now.
    NotThatController,
    /// The controller is the last way to something that this host uses; says what, and how.
    InUse(String),
    /// A field that must not go into an option string.
    BadField(String),
    /// A key that was asked for is not there, or cannot be used.
    NoKey(String),
    /// The errno of a connect with TLS, where it means something else there.
    Tls(i32),
    /// The kernel lacks an option that must not be left out.
    NoSuchOption(String),
    /// The connect succeeded, but the kernel's answer could not be understood.
    BadReply,
    /// The kernel would not, in its own words.
    Refused(String),
    /// Nobody knows an address of that name, or nobody could be asked.
    Unresolved(String),
    /// The helper could not make a process for the call.
    NoChild(i32),
    /// The child ended without an answer.
    ChildDied,
}

impl Failure {
    /// The kernel's verdict on a connection with TLS.
    pub fn of_tls(failure: Failure) -> Failure {
        match failure {
            Failure::Errno(errno) if tls_meaning(Errno::from_raw(errno)).is_some() => Failure::Tls(errno),
            failure => failure,
        }
    }

    /// The kernel has that controller already (EALREADY).
    pub fn is_already_connected(&self) -> bool {
        *self == Failure::Errno(Errno::EALREADY as i32)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Errno(errno) => explain(Errno::from_raw(*errno), f),
            Failure::NvmeStatus(status) => {
                write!(f, "the controller answered with NVMe status {status:#x}{}", explain_status(*status))
            }
            Failure::Gone => f.write_str("the controller does not exist any more"),
            Failure::NotReady => f.write_str("the controller is not connected at the moment"),
            Failure::Interrupted => f.write_str("the connection was lost, or the controller did not answer in time"),
            Failure::Inconsistent { attempts } => {
                write!(f, "the discovery log page changed during each of {attempts} attempts to read it")
            }
            Failure::BadPage(why) | Failure::Unresolved(why) => f.write_str(why),
            Failure::NotThatController => f.write_str("the kernel uses that device name for another controller by now"),
            Failure::BadField(why) | Failure::InUse(why) | Failure::NoKey(why) | Failure::Refused(why) => {
                f.write_str(why)
            }
            Failure::Tls(errno) => explain_tls(Errno::from_raw(*errno), f),
            Failure::NoSuchOption(option) => write!(f, "this kernel's nvme-fabrics has no option {option}"),
            Failure::BadReply => f.write_str("the kernel's answer could not be understood"),
            Failure::NoChild(errno) => {
                let errno = Errno::from_raw(*errno);
                write!(f, "the helper could not make a process for it: {} ({errno:?})", errno.desc())
            }
            Failure::ChildDied => f.write_str("the process that made the kernel call died"),
        }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure::Errno(errno as i32)
    }
}

/// The names of statuses that discovery controllers refuse commands with (NVM Express Base Specification, "Status Code").
fn explain_status(status: u16) -> &'static str {
    // Without More, Do Not Retry and Command Retry Delay.
    match status & 0x7ff {
        0x01 => " (Invalid Command Opcode: it does not know this command)",
        0x02 => " (Invalid Field in Command)",
        0x06 => " (Internal Error)",
        0x0c => " (Command Sequence Error)",
        0x15 => " (Operation Denied)",
        0x22 => " (Command Interrupted)",
        0x109 => " (Invalid Log Page)",
        0x12f => " (Invalid Discovery Information)",
        0x132 => " (Insufficient Discovery Resources)",
        0x133 => " (Requested Function Disabled)",
        0x190 => " (Discover Restart)",
        0x191 => " (Authentication Required)",
        _ => "",
    }
}

/// What an errno of a connect means, as measured on Linux 6.1 and 6.12, and its name for whoever searches for it.
fn explain(errno: Errno, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let meaning = match errno {
        Errno::ECONNREFUSED => "nothing listens at that address and port",
        Errno::ETIMEDOUT => "nothing answers at that address",
        Errno::ENETUNREACH | Errno::EHOSTUNREACH => "no route to that address",
        Errno::ECONNRESET => "the controller dropped the connection; it may demand TLS",
        Errno::EAGAIN => "what listens there did not answer as an NVMe/TCP controller",
        Errno::EIO => {
            "the controller refused the connection (is the subsystem there, and is this host allowed? the kernel log has \
             its status), or stopped answering (as some do for a wrong key)"
        }
        Errno::EALREADY => "the kernel already has this connection",
        Errno::EINVAL => {
            "the kernel rejected the options (an address, an unknown transport or option, or a host NQN in use with \
             another host ID); the kernel log says which"
        }
        Errno::ENOMEM => {
            "out of memory, or a discovery controller with an NQN of its own was taken for an I/O controller"
        }
        Errno::ENODEV => "no such network interface",
        Errno::EADDRNOTAVAIL => "the source address is not an address of this host",
        Errno::ENOKEY => {
            "the controller demands authentication, and no key is configured (dhchap-secret, or key in sys.conf)"
        }
        Errno::EKEYREJECTED => {
            "authentication failed: the keys here and at the controller differ (dhchap-secret, dhchap-ctrl-secret, or key in sys.conf)"
        }
        Errno::EACCES | Errno::EPERM => "no permission",
        Errno::ENOENT | Errno::ENXIO => "no such device; is the nvme-fabrics module loaded?",
        Errno::ESRCH => "TLS needs the tlshd service, which does not run",
        Errno::EBUSY => "the controller is still being set up",
        _ => errno.desc(),
    };
    write!(f, "{meaning} ({errno:?})")
}

/// The same for a connection with TLS, as measured on Linux 6.12 with tlshd.
fn tls_meaning(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::ENOKEY => {
            "the keyring has no pre-shared key for this host and this controller; `nvme check-tls-key` puts it in"
        }
        Errno::ETIMEDOUT => "no TLS handshake: what listens there does not speak TLS, or tlshd of this host hangs",
        Errno::EACCES | Errno::EKEYREJECTED => {
            "the TLS handshake failed: the other side has another key, or none for this host"
        }
        _ => return None,
    })
}

fn explain_tls(errno: Errno, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{} ({errno:?})", tls_meaning(errno).unwrap_or(errno.desc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_printed() {
        let request = ConnectRequest {
            dhchap_secret: "DHHC-1:00:secret:".into(),
            traddr: "192.0.2.1".into(),
            ..Default::default()
        };
        let text = format!("{:?}", Request::Connect(Box::new(request)));
        assert!(text.contains("192.0.2.1") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn an_errno_is_explained_and_named() {
        let text = |errno: Errno| Failure::from(errno).to_string();
        assert_eq!(text(Errno::ECONNREFUSED), "nothing listens at that address and port (ECONNREFUSED)");
        assert_eq!(text(Errno::EXFULL), "Exchange full (EXFULL)");
    }

    #[test]
    fn a_status_is_named_whatever_its_flags() {
        let text = Failure::NvmeStatus(0x4132).to_string();
        assert_eq!(text, "the controller answered with NVMe status 0x4132 (Insufficient Discovery Resources)");
        assert_eq!(Failure::NvmeStatus(0x7ff).to_string(), "the controller answered with NVMe status 0x7ff");
    }
}
