//! What the state machines want done.

use std::rc::Rc;

use crate::config::settings::ConnectOptions;
use crate::core::device::Device;
use crate::core::links::LinkId;
use crate::core::note::Note;
use crate::core::portal::PortalId;
use crate::core::tid::TransportId;
use crate::helper::message::PageRequest;

/// Tells requests apart.
pub type Ticket = u64;

/// Something to be done.
#[derive(Debug)]
pub enum Action {
    Probe(PortalId),
    Connect {
        ticket: Ticket,
        id: LinkId,
        options: Rc<ConnectOptions>,
        /// Goes with the host NQN of `id`.
        host_id: String,
    },
    Disconnect {
        ticket: Ticket,
        device: Box<Device>,
    },
    /// Register this host with a discovery controller, if that takes registrations.
    Register {
        ticket: Ticket,
        device: String,
    },
    /// Ask what a discovery controller can do; with `pleo`, also whether it can list the entries of one port only.
    Inquire {
        ticket: Ticket,
        device: String,
        pleo: bool,
    },
    ReadLogPage {
        ticket: Ticket,
        device: String,
        how: PageRequest,
    },
    /// Find the addresses of a host name.
    Resolve {
        ticket: Ticket,
        name: Rc<str>,
    },
    /// Answer with `Event::DevicesRead`.
    ReadDevices,
    /// Have the kernel tell of every port of Fibre Channel targets: `Event::FcPort` each, then `Event::FcPortsTold`.
    AskFcPorts,
    /// Clients want to know.
    Publish(Change),
    /// What must outlive the process changed.
    Save,
    Note(Note),
}

/// A change that clients are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    LogPage {
        tid: Rc<TransportId>,
        device: String,
    },
    DiscoveryControllerRemoved,
    /// A wanted controller, of either kind, is connected: just now, again, or by somebody else before.
    Up {
        id: LinkId,
        device: String,
    },
    /// It is not any more, or is no longer wanted. One follows each `Up`.
    Down {
        id: LinkId,
        device: String,
    },
}
