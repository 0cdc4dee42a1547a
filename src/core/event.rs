//! What the state machines are told.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::config::settings::{ConnectorSettings, FinderSettings};
use crate::core::Ticket;
use crate::core::announcement::Announcement;
use crate::core::device::Device;
use crate::core::evidence::Testimony;
use crate::core::exclusion::HostExclusion;
use crate::core::finder::Origin;
use crate::core::host::HostIds;
use crate::core::network::NetworkChange;
use crate::core::portal::PortalId;
use crate::core::tid::TransportId;
use crate::helper::message::{Capabilities, Failure};

/// Something that happened.
///
/// What the kernel said before the helper sent a reply has to be handed in before that reply: device names are recycled
/// at once, and a late removal would be taken for that of the new controller. Answers to what was not asked are
/// ignored.
#[derive(Debug)]
pub enum Event {
    /// The settings in force, at start and after each reload; of the roles that this process has.
    Configured {
        host_nqn: String,
        /// The name under which this host registers; may be empty.
        symname: String,
        finder: Option<Box<FinderSettings>>,
        connector: Option<Box<ConnectorSettings>>,
    },
    /// The names of this host; before [`Event::Configured`].
    HostNamed(HostIds),
    /// What no program of this host is to connect of its own accord.
    HostExcludes(Vec<HostExclusion>),
    /// The kernel can be asked to connect, or can no longer be.
    FabricsReady(bool),
    /// All of `/sys/class/nvme`: at start, before [`Event::Configured`], and after events were lost.
    DevicesRead(Vec<Device>),
    /// `NVME_EVENT=connected`: a controller is connected, or connected again.
    DeviceUp(Device),
    DeviceRemoved(String),
    /// `NVME_AEN=0x70f002`: the log page of this discovery controller changed.
    LogChanged(String),
    /// Answers `Action::Probe`.
    Probed {
        portal: PortalId,
        outcome: Result<(), String>,
    },
    /// Answers `Action::Connect`; without a device if it is gone again already.
    Connected {
        ticket: Ticket,
        outcome: Result<Option<Device>, Failure>,
    },
    /// Answers `Action::Disconnect`.
    Disconnected {
        ticket: Ticket,
        outcome: Result<(), Failure>,
    },
    /// Answers `Action::Register`; `false` if the controller takes no registrations.
    Registered {
        ticket: Ticket,
        outcome: Result<bool, Failure>,
    },
    /// Answers `Action::Inquire`.
    Inquired {
        ticket: Ticket,
        outcome: Result<Capabilities, Failure>,
    },
    /// Answers `Action::Resolve`; `Err` says in words what is wrong.
    Resolved {
        ticket: Ticket,
        outcome: Result<Vec<String>, String>,
    },
    /// Answers `Action::ReadLogPage`.
    PageRead {
        ticket: Ticket,
        outcome: Result<Box<[u8]>, String>,
    },
    /// What a finder in another process knows: all of its discovery controllers.
    FinderReports(Vec<Report>),
    /// What a finder in another process knows, perhaps not all: one that does not tell whether its pages are current
    /// may have started just now, and be about to find the others.
    FinderMentions(Vec<Report>),
    /// There is no finder any more. That says nothing about storage.
    FinderGone,
    /// What this host uses (mounts, swap, device mapper) has changed.
    UsesChanged,
    /// All discovery controllers that announce themselves now. What is missing here and was there before is withdrawn.
    Announced(BTreeSet<Announcement>),
    /// The network of this host changed. Of interest only while `Machine::waits_for_network`.
    NetworkChanged(NetworkChange),
    /// The kernel tells of a port of a Fibre Channel target.
    FcPort(Announcement),
    /// Answers `Action::AskFcPorts`: all that the kernel told in answer has been handed in, if it could be asked.
    FcPortsTold {
        answered: bool,
    },
    /// The daemon is asked to stop. No connect is started any more.
    Stop,
}

/// What a finder in another process says about one of its discovery controllers.
#[derive(Debug)]
pub struct Report {
    pub source: Rc<TransportId>,
    pub testimony: Testimony,
    /// The discovery controllers that its page refers to.
    pub referrals: BTreeSet<Rc<TransportId>>,
    pub origin: Origin,
    pub connected: bool,
}
