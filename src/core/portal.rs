//! Portals: the network ends behind which controllers are, and whether they answer.
//!
//! The kernel makes all connects of a host wait for each other, up to 3 s for an address where nothing answers, 10 s
//! where something accepts the connection but does not speak NVMe/TCP, and 60 s where it goes quiet later. So a portal
//! is probed first, by the daemon's own non-blocking connect and Initialize Connection Request. All controllers behind
//! a portal share the answer, the back-off and the retry: 250 subsystems behind a dead address cost one probe at a
//! time.

use std::fmt;

use nix::errno::Errno;

use crate::core::tid::{Transport, TransportId};
use crate::helper::message::Failure;

/// One end of the network as seen from this host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortalId {
    pub traddr: String,
    pub trsvcid: String,
    pub host_traddr: String,
    pub host_iface: String,
    /// TLS comes before NVMe here, so only the TCP connect can be probed.
    pub tls: bool,
}

impl PortalId {
    /// The portal of a controller; `None` for transports that cannot be probed, and for a host name.
    pub fn of(tid: &TransportId, tls: bool) -> Option<PortalId> {
        (tid.transport() == Transport::Tcp && !tid.is_name()).then(|| PortalId {
            traddr: tid.traddr().to_owned(),
            trsvcid: tid.trsvcid().to_owned(),
            host_traddr: tid.host_traddr().to_owned(),
            host_iface: tid.host_iface().to_owned(),
            tls,
        })
    }
}

impl fmt::Display for PortalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.traddr.contains(':') {
            true => write!(f, "[{}]:{}", self.traddr, self.trsvcid)?,
            false => write!(f, "{}:{}", self.traddr, self.trsvcid)?,
        }
        if !self.host_iface.is_empty() {
            write!(f, " via {}", self.host_iface)?;
        }
        if !self.host_traddr.is_empty() {
            write!(f, " from {}", self.host_traddr)?;
        }
        Ok(())
    }
}

/// Whether a failed connect says something about the portal, and not just about one controller behind it: nothing got
/// as far as the controller, or nothing could be sent from here.
pub fn blames_portal(failure: &Failure) -> bool {
    const NETWORK: [Errno; 10] = [
        Errno::ECONNREFUSED,
        Errno::ECONNRESET,
        Errno::ETIMEDOUT,
        Errno::EAGAIN,
        Errno::ENETUNREACH,
        Errno::EHOSTUNREACH,
        Errno::ENETDOWN,
        Errno::EHOSTDOWN,
        Errno::ENODEV,
        Errno::EADDRNOTAVAIL,
    ];
    match failure {
        Failure::Errno(errno) | Failure::Tls(errno) => NETWORK.contains(&Errno::from_raw(*errno)),
        _ => false,
    }
}
