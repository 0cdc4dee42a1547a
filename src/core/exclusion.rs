//! The host's list of controllers that no program is to connect of its own accord, nvme-cli's `exclusions.conf`.
//!
//! It stands in the way of a connect and of nothing else: what is connected stays connected and is listened to, by us
//! as by the other programs that heed it. Which is why it is not the `exclude` of our own configuration, which ends
//! connections.

use crate::core::tid::{Transport, TransportId, canonical_address, canonical_service};

/// One line of the list. An empty string means "not given"; at least one key is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostExclusion {
    pub transport: Option<Transport>,
    pub traddr: String,
    pub trsvcid: String,
    pub subsysnqn: String,
    pub host_traddr: String,
    pub host_iface: String,
    pub host_nqn: String,
    pub host_id: String,
    /// Where it stands: `/etc/nvme/exclusions.conf:12`.
    pub place: String,
}

impl HostExclusion {
    /// Whether it is about a controller that is to be connected just so: every key that it gives is that controller's.
    pub fn matches(&self, tid: &TransportId, host_id: &str) -> bool {
        let transport = tid.transport();
        let agrees = |given: &str, actual: &str| given.is_empty() || given == actual;
        self.transport.is_none_or(|given| given == transport)
            && agrees(&canonical_address(transport, &self.traddr), tid.traddr())
            && agrees(&canonical_service(transport, &self.trsvcid), tid.trsvcid())
            && agrees(&self.subsysnqn, tid.subsysnqn())
            && agrees(&canonical_address(transport, &self.host_traddr), tid.host_traddr())
            && agrees(&self.host_iface, tid.host_iface())
            && agrees(&self.host_nqn, tid.host_nqn())
            && agrees(&self.host_id, host_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tid::Spelling;

    fn tid(host_iface: &str) -> TransportId {
        let spelling =
            Spelling { traddr: "192.0.2.1", trsvcid: "4420", subsysnqn: "nqn.a", host_iface, ..Spelling::default() };
        TransportId::new(Transport::Tcp, spelling)
    }

    #[test]
    fn only_what_is_given_is_compared_and_addresses_by_value() {
        let all = HostExclusion {
            transport: Some(Transport::Tcp),
            traddr: "::ffff:192.0.2.1".into(),
            trsvcid: "04420".into(),
            subsysnqn: "nqn.a".into(),
            host_id: "id".into(),
            ..HostExclusion::default()
        };
        assert!(all.matches(&tid(""), "id"));
        assert!(!all.matches(&tid(""), "other"));
        assert!(!HostExclusion { subsysnqn: "nqn.b".into(), ..all.clone() }.matches(&tid(""), "id"));
        assert!(!HostExclusion { transport: Some(Transport::Rdma), ..all }.matches(&tid(""), "id"));
    }

    #[test]
    fn a_key_that_the_controller_lacks_does_not_match() {
        let eth0 = HostExclusion { host_iface: "eth0".into(), ..HostExclusion::default() };
        assert!(eth0.matches(&tid("eth0"), ""));
        assert!(!eth0.matches(&tid(""), "") && !eth0.matches(&tid("eth1"), ""));
    }
}
