//! One link: a controller that somebody wants connected, and how far it has come.

use std::rc::Rc;
use std::time::Instant;

use crate::config::settings::ConnectOptions;
use crate::core::device::{ControllerKind, Device};
use crate::core::links::turns::Turn;
use crate::core::portal::PortalId;
use crate::core::tid::{DISCOVERY_NQN, TransportId};

/// A wanted controller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId {
    pub kind: ControllerKind,
    pub tid: Rc<TransportId>,
}

impl LinkId {
    /// Whether two links could end up at the same kernel controller, differing only in their pinning or in the name by
    /// which they ask for a discovery controller.
    pub fn is_same_place(&self, other: &LinkId) -> bool {
        self.is_same_address(other)
            && (self.kind == ControllerKind::Discovery || self.tid.subsysnqn() == other.tid.subsysnqn())
    }

    /// Whether two links of the same kind ask at the same address, for whatever subsystem.
    pub fn is_same_address(&self, other: &LinkId) -> bool {
        self.kind == other.kind && self.tid.is_same_address(&other.tid)
    }

    /// Whether this can be the controller that came of connecting the link. A discovery controller counts by whatever name
    /// it reports: the kernel would connect it again and again for whoever insists on the one that was asked for.
    pub fn may_have_become(&self, device: &Device) -> bool {
        let is_misnamed = || {
            let reported = LinkId { kind: self.kind, ..LinkId::of_device(device) };
            self.kind == ControllerKind::Discovery && reported.is_same_place(self)
        };
        device.serves(&self.tid, self.kind) || is_misnamed()
    }

    /// The first, in order, of the links at the same place as this one: there the search for the others begins.
    pub fn first_of_place(&self) -> LinkId {
        let subsysnqn = match self.kind {
            ControllerKind::Io => self.tid.subsysnqn(),
            ControllerKind::Discovery => "",
        };
        let tid = TransportId::unpinned(self.tid.transport(), self.tid.traddr(), self.tid.trsvcid(), subsysnqn);
        LinkId { kind: self.kind, tid: Rc::new(tid) }
    }

    /// The link that asks for just this kernel controller, without pinning.
    pub fn of_device(device: &Device) -> LinkId {
        let tid = TransportId::unpinned(device.transport, &device.traddr, &device.trsvcid, &device.subsysnqn);
        LinkId { kind: device.kind, tid: Rc::new(tid) }
    }
}

/// Whether a discovery controller is asked for by a name of its own (TP8013), which the kernel has to be told.
pub fn needs_discovery_option(id: &LinkId) -> bool {
    id.kind == ControllerKind::Discovery && id.tid.subsysnqn() != DISCOVERY_NQN
}

/// What happened to a link. Every `Up` is followed by one `Down`.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkChange {
    Up {
        id: LinkId,
        device: String,
    },
    Down {
        id: LinkId,
        device: String,
    },
    /// It could not be connected; told of alternates only ([`Links::set_alternates`](super::Links::set_alternates)).
    Failed {
        id: LinkId,
    },
}

/// What becomes of the connection when its link is no longer wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposal {
    /// Disconnected if it is ours.
    Disconnect,
    /// The same, but only when that is said: what replaces it is not connected yet.
    Postpone,
    Keep,
}

/// How often a connect may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// For ever.
    Free,
    /// So often, since the last success: the discovery controller does not reach the subsystem either.
    Attempts(u32),
    /// Never: only TLS will do, and the administrator has turned it off.
    NoTls,
}

/// Why a wanted controller must not be tried (any more).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bar {
    /// So many attempts failed, and that was all its [`Leave`].
    Attempts(u32),
    /// [`Leave::NoTls`].
    NoTls,
    /// The host's administrator excludes it; where it says so.
    Excluded(String),
}

/// Why a controller that is to be disconnected is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    /// The kernel would not.
    Failed,
    /// Something on this host uses its disks.
    InUse,
    /// [`Disposal::Postpone`].
    Postponed,
}

#[derive(Debug)]
pub(super) struct Link {
    pub state: State,
    pub options: Rc<ConnectOptions>,
    pub leave: Leave,
    /// `None` if its transport cannot be probed.
    pub portal: Option<PortalId>,
    /// `Err` once the link is unwanted but the kernel is not done with it.
    pub wanted: Result<(), Disposal>,
    /// Failures in a row. A connection has to last for a while before they are forgotten.
    pub failures: u32,
    /// Announced, and never connected so far: nobody else expects anything there.
    pub tentative: bool,
    /// It was left, and is connected again by and by: nothing to be told, if that works.
    pub was_parked: bool,
    /// It has waited long enough for what the kernel makes at its address.
    pub impatient: bool,
    /// The last failure that was reported.
    pub complaint: Option<String>,
}

/// What is known of an alternate that is not wanted at the moment.
#[derive(Debug)]
pub(super) struct Retired {
    pub portal: Option<PortalId>,
    pub failures: u32,
    pub complaint: Option<String>,
    /// It is not to be tried before.
    pub retry_at: Option<Instant>,
}

impl Retired {
    pub fn start_over(&mut self) {
        self.failures = self.failures.min(1);
        self.retry_at = None;
    }
}

impl Link {
    /// Wanted, and nothing done about it yet.
    pub fn new(options: Rc<ConnectOptions>, leave: Leave, portal: Option<PortalId>) -> Link {
        Link {
            state: State::BackingOff,
            options,
            leave,
            portal,
            wanted: Ok(()),
            failures: 0,
            tentative: false,
            was_parked: false,
            impatient: false,
            complaint: None,
        }
    }
}

/// See the diagram in [`links`](crate::core::links).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Its address is a host name, which has none so far.
    Unresolved,
    /// Waits for its portal to answer.
    AwaitingPortal,
    /// Its portal answers; waits for its turn at the kernel.
    Queued {
        turn: Turn,
    },
    /// Another link at the same place is being connected, or the kernel is making a controller for somebody else there:
    /// that connection may serve this one too.
    AwaitingTwin,
    Connecting {
        since: Instant,
    },
    Live {
        device: String,
        since: Instant,
    },
    /// Failed although its portal answers, or has none.
    BackingOff,
    /// See [`Bar`]: waits for better news, or for somebody else to connect it.
    Barred,
    Disconnecting {
        device: String,
    },
    /// Being disconnected, to be Parked; or sought at once.
    Leaving {
        device: String,
        comes_back: bool,
    },
    /// Wanted, but left for now: somebody else says when it is sought again.
    Parked,
    /// Not wanted, but still there.
    AwaitingDisconnect {
        device: String,
        why: Stay,
    },
}

impl State {
    /// The kernel controller that it is about, once there is one.
    pub fn device(&self) -> Option<&str> {
        match self {
            State::Live { device, .. }
            | State::Disconnecting { device }
            | State::Leaving { device, .. }
            | State::AwaitingDisconnect { device, .. } => Some(device),
            _ => None,
        }
    }

    /// The controller that serves it.
    pub fn live(&self) -> Option<&str> {
        if let State::Live { device, .. } = self { Some(device) } else { None }
    }

    /// Connected, or left for a while on purpose.
    pub fn is_settled(&self) -> bool {
        matches!(self, State::Live { .. } | State::Leaving { .. } | State::Parked)
    }

    /// Connected, or about to be.
    pub fn is_way(&self) -> bool {
        matches!(self, State::Queued { .. } | State::Connecting { .. } | State::Live { .. })
    }

    /// Not connected, and nothing under way that would connect it.
    pub fn can_adopt(&self) -> bool {
        match self {
            State::Unresolved
            | State::AwaitingPortal
            | State::Barred
            | State::Queued { .. }
            | State::AwaitingTwin
            | State::BackingOff => true,
            State::Connecting { .. }
            | State::Live { .. }
            | State::Disconnecting { .. }
            | State::Leaving { .. }
            | State::Parked
            | State::AwaitingDisconnect { .. } => false,
        }
    }
}
