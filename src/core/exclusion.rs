//! The host's list of controllers that no program is to connect of its own accord, nvme-cli's `exclusions.conf`.
//!
//! It stands in the way of a connect and of nothing else: what is connected stays connected and is listened to, by us
//! as by the other programs that heed it. Which is why it is not the `exclude` of our own configuration, which ends
//! connections.

use serde::{Deserialize, Serialize};

use crate::config::settings::Exclusion;
use crate::core::policy::agrees_with;
use crate::core::tid::{TransportId, canonical_address};

/// One line of the list. An empty string means "not given"; at least one key is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostExclusion {
    pub keys: Exclusion,
    pub host_traddr: String,
    pub host_id: String,
    /// Where it stands: `/etc/nvme/exclusions.conf:12`.
    pub place: String,
}

impl HostExclusion {
    /// Whether it is about a controller that is to be connected just so: every key that it gives is that controller's.
    pub fn matches(&self, tid: &TransportId, host_id: &str) -> bool {
        let agrees = |given: &str, actual: &str| given.is_empty() || given == actual;
        agrees_with(&self.keys, tid)
            && agrees(&canonical_address(tid.transport(), &self.host_traddr), tid.host_traddr())
            && agrees(&self.host_id, host_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tid::{Spelling, Transport};

    fn tid(host_iface: &str) -> TransportId {
        let spelling =
            Spelling { traddr: "192.0.2.1", trsvcid: "4420", subsysnqn: "nqn.a", host_iface, ..Spelling::default() };
        TransportId::new(Transport::Tcp, spelling)
    }

    #[test]
    fn only_what_is_given_is_compared_and_addresses_by_value() {
        let keys = Exclusion {
            transport: Some(Transport::Tcp),
            traddr: "::ffff:192.0.2.1".into(),
            trsvcid: "04420".into(),
            subsysnqn: "nqn.a".into(),
            ..Exclusion::default()
        };
        let with = |keys| HostExclusion { keys, host_id: "id".into(), ..HostExclusion::default() };
        let all = with(keys.clone());
        assert!(all.matches(&tid(""), "id"));
        assert!(!all.matches(&tid(""), "other"));
        assert!(!with(Exclusion { subsysnqn: "nqn.b".into(), ..keys.clone() }).matches(&tid(""), "id"));
        assert!(!with(Exclusion { transport: Some(Transport::Rdma), ..keys }).matches(&tid(""), "id"));
    }

    #[test]
    fn a_key_that_the_controller_lacks_does_not_match() {
        let keys = Exclusion { host_iface: "eth0".into(), ..Exclusion::default() };
        let eth0 = HostExclusion { keys, ..HostExclusion::default() };
        assert!(eth0.matches(&tid("eth0"), ""));
        assert!(!eth0.matches(&tid(""), "") && !eth0.matches(&tid("eth1"), ""));
    }
}
