//! D-Bus: what the daemons publish, the system bus, the private socket, and the clients of `org.nvmexpress.staf` and Avahi.
//!
//! Everything here runs inside the daemon's one poll loop and never blocks: sockets are non-blocking, buffers are bounded,
//! `now` is handed in. rustbus marshals messages; its own connection types block, so the sockets belong to [`link`].
//!
//! ```text
//! system bus ── connection ──┐                    ┌── objects (implemented by the daemon)
//!                  │         ├── dispatch (pure) ─┤
//! /run/…/control ─ private ──┘                    └── introspect (the interface as XML)
//!                  ├ finder_client: org.nvmexpress.staf as a connector sees it ── pages
//!                  └ avahi: who announces itself in the local network, as a finder sees it
//! ```
//!
//! What is published is the interface of nvme-stas, name by name, so that its clients work.
//! A peer that sends nonsense loses its connection; the program goes on. No key and no secret is ever handed to this module.

pub mod address;
pub mod avahi;
pub mod connection;
pub mod dispatch;
pub mod finder_client;
pub mod introspect;
pub mod link;
pub mod message;
pub mod objects;
pub mod pages;
pub mod private;
pub mod sasl;
pub mod signal;
pub mod watch;

use std::collections::BTreeSet;

use crate::core::announcement::Announcement;
pub use connection::{BusTokens, SystemBus};
pub use objects::{ControllerId, Objects};
pub use pages::{EntryText, FinderPage, PageState};
pub use private::PrivateServer;
pub use signal::Signal;

/// The bus's own name, which is also its interface.
pub const BUS_NAME: &str = "org.freedesktop.DBus";
/// The bus's own object.
pub const BUS_PATH: &str = "/org/freedesktop/DBus";
pub const INTROSPECTABLE: &str = "org.freedesktop.DBus.Introspectable";
pub const PEER: &str = "org.freedesktop.DBus.Peer";
pub const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The two things that the program can be on a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `stafd`: finds discovery controllers.
    Finder,
    /// `stacd`: connects I/O controllers.
    Connector,
}

impl Role {
    /// The well-known bus name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Finder => "org.nvmexpress.staf",
            Role::Connector => "org.nvmexpress.stac",
        }
    }

    /// The object.
    pub fn path(self) -> &'static str {
        match self {
            Role::Finder => "/org/nvmexpress/staf",
            Role::Connector => "/org/nvmexpress/stac",
        }
    }

    /// The main interface is called like the bus name.
    pub fn interface(self) -> &'static str {
        self.name()
    }

    pub fn debug_interface(self) -> &'static str {
        match self {
            Role::Finder => "org.nvmexpress.staf.debug",
            Role::Connector => "org.nvmexpress.stac.debug",
        }
    }

    /// The daemon that plays this role alone.
    pub fn daemon(self) -> &'static str {
        match self {
            Role::Finder => "stafd",
            Role::Connector => "stacd",
        }
    }

    fn of_name(name: &str) -> Option<Role> {
        [Role::Finder, Role::Connector].into_iter().find(|role| role.name() == name)
    }
}

/// What happened on the bus or on the private socket, for the daemon to act upon.
#[derive(Debug, Clone, PartialEq)]
pub enum BusEvent {
    /// The name is ours. Calls are answered from now on.
    NameOwned(Role),
    /// The name is not ours, and why. Where another process has it, we are next in the queue.
    NameRefused(Role, String),
    /// The name was ours and is not any more.
    NameLost(Role),
    /// There is no bus, or there was one and it went. Said once for each loss; coming back is tried in silence.
    Disconnected(String),
    /// A client switched tracing. To be announced with [`Signal::TronChanged`] on every route.
    TronSet(Role, bool),
    /// Another process serves `org.nvmexpress.staf`; its pages follow.
    FinderAppeared,
    /// That process, or the bus, went away. No reason to disconnect anything.
    FinderGone,
    /// Everything that the finder has.
    FinderPages(Vec<FinderPage>),
    /// The finder could not say what it has, and why. It is asked again later.
    FinderUnreadable(String),
    /// Avahi is on the bus: announcements are heard from now on.
    AvahiAppeared,
    /// There is a bus, but no Avahi on it.
    AvahiMissing,
    /// Avahi, or the bus, went away. What it told counts for a while.
    AvahiGone,
    /// Everything that is announced now.
    Announced(BTreeSet<Announcement>),
    /// Something is wrong with an announcement, or with Avahi; said once.
    AvahiComplaint(String),
}
