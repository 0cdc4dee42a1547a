//! What the daemon asks of the helper process, and what comes back.
//!
//! One message is one packet on a `SOCK_SEQPACKET` pair, so messages of several children never mix.

use serde::{Deserialize, Serialize};

/// Chosen by the daemon, returned with the reply.
pub type RequestId = u64;

/// Something that may block in the kernel. The helper makes each in a child of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Which options this kernel knows: reads `/dev/nvme-fabrics`.
    ReadOptions,
    /// Write a connect string to `/dev/nvme-fabrics`.
    Connect(Box<ConnectRequest>),
    /// Write `delete_controller`, if the controller still is the one described.
    Disconnect(ControllerIdentity),
    /// Get Log Page 70h of a discovery controller, whole and consistent.
    ReadLogPage { device: String },
}

/// The fields of a connect string (kernel: `nvmf_parse_options`). Empty strings and `None` are left out; the helper
/// refuses values that could add an option of their own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    pub dhchap_secret: String,
    pub dhchap_ctrl_secret: String,
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
    /// The page is in the sealed memory file that comes with this message.
    LogPage {
        bytes: u64,
    },
    Failed(Failure),
}

/// Why a request failed, in the kernel's or the controller's words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Failure {
    /// A system call's errno.
    Errno(i32),
    /// An NVMe status (status field without the phase bit, as the passthrough ioctl returns it).
    NvmeStatus(u16),
    /// The generation counter changed during each of so many reads.
    Inconsistent { attempts: u32 },
    /// The header makes a claim that cannot be followed (record count, record format).
    BadPage(String),
    /// sysfs shows another controller under that name by now.
    NotThatController,
    /// A field that must not go into an option string.
    BadField(String),
    /// The kernel connected the controller and removed it again at once.
    GoneAtOnce,
    /// The child ended without an answer.
    ChildDied,
}

impl Failure {
    /// The kernel has that controller already (EALREADY).
    pub fn is_already_connected(&self) -> bool {
        matches!(self, Failure::Errno(errno) if *errno == nix::errno::Errno::EALREADY as i32)
    }
}
