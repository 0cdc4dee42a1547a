//! What the daemon has to be able to tell for its D-Bus objects to be served.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::Role;
use super::pages::EntryText;
use crate::core::tid::{Spelling, Transport, TransportId};

/// Names a controller in calls: the seven strings of the interface, as the caller spelled them. Empty means "not given".
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ControllerId {
    pub transport: String,
    pub traddr: String,
    #[serde(default)]
    pub trsvcid: String,
    pub subsysnqn: String,
    #[serde(default)]
    pub host_traddr: String,
    #[serde(default)]
    pub host_iface: String,
    #[serde(default)]
    pub host_nqn: String,
}

impl ControllerId {
    /// The same, comparable; `None` when the transport is not a fabric.
    pub fn transport_id(&self) -> Option<TransportId> {
        let spelling = Spelling {
            traddr: &self.traddr,
            trsvcid: &self.trsvcid,
            subsysnqn: &self.subsysnqn,
            host_traddr: &self.host_traddr,
            host_iface: &self.host_iface,
            host_nqn: &self.host_nqn,
        };
        Transport::parse(&self.transport).map(|transport| TransportId::new(transport, spelling))
    }

    /// From seven strings, in the order in which methods and signals have them.
    pub fn from_strings<E>(mut next: impl FnMut() -> Result<String, E>) -> Result<ControllerId, E> {
        Ok(ControllerId {
            transport: next()?,
            traddr: next()?,
            trsvcid: next()?,
            subsysnqn: next()?,
            host_traddr: next()?,
            host_iface: next()?,
            host_nqn: next()?,
        })
    }

    /// In the order in which methods and signals have them.
    pub fn strings(&self) -> [&str; 7] {
        [
            &self.transport,
            &self.traddr,
            &self.trsvcid,
            &self.subsysnqn,
            &self.host_traddr,
            &self.host_iface,
            &self.host_nqn,
        ]
    }
}

impl From<&TransportId> for ControllerId {
    fn from(tid: &TransportId) -> ControllerId {
        ControllerId {
            transport: tid.transport().as_str().to_owned(),
            traddr: tid.traddr().to_owned(),
            trsvcid: tid.trsvcid().to_owned(),
            subsysnqn: tid.subsysnqn().to_owned(),
            host_traddr: tid.host_traddr().to_owned(),
            host_iface: tid.host_iface().to_owned(),
            host_nqn: tid.host_nqn().to_owned(),
        }
    }
}

/// A controller as a dictionary: transport, traddr, trsvcid, subsysnqn, host-traddr, host-iface, host-nqn, device, and
/// more where details are asked for. In the order in which it is to be shown.
pub type Description = Vec<(&'static str, String)>;

/// The daemon as its clients see it. Every answer comes from memory: none may block, and none may contain a secret.
/// Strings must not contain NUL, which D-Bus cannot carry; the call is answered with an error then.
pub trait Objects {
    /// The role's controllers.
    fn list_controllers(&self, role: Role, detailed: bool) -> Vec<Description>;

    /// The log page of one discovery controller; empty when it is not known.
    fn log_pages(&self, id: &ControllerId) -> Vec<EntryText>;

    /// The log pages of all discovery controllers, made by [`super::pages::to_json`].
    fn all_log_pages(&self, detailed: bool) -> Rc<str>;

    /// A JSON object about the daemon.
    fn process_info(&self, role: Role) -> String;

    /// A JSON object about one controller, `{}` when it is not known.
    fn controller_info(&self, role: Role, id: &ControllerId) -> String;

    /// Whether tracing is on.
    fn tron(&self, role: Role) -> bool;

    fn set_tron(&mut self, role: Role, on: bool);

    /// `DEBUG`, `INFO`, ….
    fn log_level(&self, role: Role) -> String;
}
