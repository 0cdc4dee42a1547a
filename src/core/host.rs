//! Which host id goes with which host NQN.
//!
//! The kernel takes them one to one: a host NQN that is in use with one id is refused with another, and the reverse
//! (kernel: `nvmf_host_add`). What is in use counts, then, for nothing else can be connected. Else it is what the
//! configuration says; else the UUID that the NQN is made of; else one made of the NQN and this host's id, so that each
//! of both daemons, on each day, finds the same.

use std::collections::BTreeMap;

use crate::config::{check_id, uuid_of_hash};
use crate::core::device::Device;

/// What a host NQN that is made of a UUID begins with (NVM Express Base Specification, "NVMe Qualified Names").
pub const NQN_OF_UUID: &str = "nqn.2014-08.org.nvmexpress:uuid:";

/// The names under which this host connects.
#[derive(Debug, Clone, Default)]
pub struct HostIds {
    own_nqn: String,
    own_id: String,
    /// By host NQN, what the configuration says of others.
    given: BTreeMap<String, String>,
}

impl HostIds {
    /// `given` are host NQNs with their ids; the first of two that contradict each other counts, and the host's own
    /// before all. What is wrong with the others comes along.
    pub fn new<'a>(
        own_nqn: &str,
        own_id: &str,
        given: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> (HostIds, Vec<String>) {
        let mut ids = HostIds { own_nqn: own_nqn.into(), own_id: own_id.into(), given: BTreeMap::new() };
        let mut complaints = Vec::new();
        for (nqn, id) in given {
            match ids.contradiction(nqn, id) {
                Some(why) => complaints.push(why),
                None => drop(ids.given.insert(nqn.to_owned(), id.to_owned())),
            }
        }
        (ids, complaints)
    }

    fn contradiction(&self, nqn: &str, id: &str) -> Option<String> {
        let mut known = self.given.iter().map(|(nqn, id)| (nqn.as_str(), id.as_str()));
        let own = (self.own_nqn.as_str(), self.own_id.as_str());
        let (other_nqn, other_id) =
            std::iter::once(own).chain(&mut known).find(|(other, theirs)| (*other == nqn) != (*theirs == id))?;
        Some(match other_nqn == nqn {
            true => format!("host NQN {nqn} cannot have host ID {id}, for it has {other_id} already, which is used"),
            false => format!("host ID {id} cannot go with host NQN {nqn}, for it goes with {other_nqn} already"),
        })
    }

    /// The id for a host NQN as long as the kernel has none for it.
    pub fn id_of(&self, nqn: &str) -> String {
        let said = if nqn == self.own_nqn { Some(&self.own_id) } else { self.given.get(nqn) };
        let embedded = || {
            let uuid = nqn.strip_prefix(NQN_OF_UUID).and_then(|uuid| check_id(uuid).ok());
            uuid.filter(|uuid| !self.is_taken(uuid, nqn))
        };
        said.cloned().or_else(embedded).unwrap_or_else(|| self.made_of(nqn))
    }

    /// The id to connect with, given the controllers that there are; and what the administrator should know of it.
    pub fn choose<'a>(&self, nqn: &str, devices: impl Iterator<Item = &'a Device>) -> (String, Option<String>) {
        let expected = self.id_of(nqn);
        let mut stranger = None;
        for device in devices.filter(|device| !device.host_id.is_empty()) {
            match (device.host_nqn == nqn, device.host_id == expected) {
                (true, true) => return (expected, None),
                (true, false) => {
                    let complaint = format!(
                        "host NQN {nqn} goes with host ID {expected}, but {} is connected under it with {}: the kernel \
                         allows no other, so new connections have that one too; make both agree, or connect {} anew",
                        device.name, device.host_id, device.name
                    );
                    return (device.host_id.clone(), Some(complaint));
                }
                (false, true) => stranger = Some(device),
                (false, false) => {}
            }
        }
        let complaint = stranger.map(|device| {
            format!(
                "host ID {expected} goes with host NQN {nqn}, but {} is connected with it under {}: the kernel will \
                 refuse to connect; give one of both another host ID",
                device.name, device.host_nqn
            )
        });
        (expected, complaint)
    }

    fn is_taken(&self, id: &str, nqn: &str) -> bool {
        let mut given = self.given.iter();
        (self.own_id == id && self.own_nqn != nqn) || given.any(|(other, theirs)| theirs == id && other != nqn)
    }

    /// HMAC-SHA-256 of the host NQN with this host's id as the key, the first 128 bits, as a UUID.
    fn made_of(&self, nqn: &str) -> String {
        uuid_of_hash(&hmac_sha256::HMAC::mac(nqn, &self.own_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tid::Transport;

    const OWN: &str = "f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f";
    const OTHER: &str = "01234567-89ab-4cde-8f01-23456789abcd";

    fn ids(given: &[(&str, &str)]) -> HostIds {
        HostIds::new("nqn.own", OWN, given.iter().copied()).0
    }

    fn device(host_nqn: &str, host_id: &str) -> Device {
        Device { host_nqn: host_nqn.into(), host_id: host_id.into(), ..Device::new("nvme7", Transport::Tcp) }
    }

    #[test]
    fn each_nqn_has_an_id_of_its_own() {
        let embedding = format!("{NQN_OF_UUID}{OTHER}");
        let ids = ids(&[("nqn.given", OTHER)]);
        assert_eq!(ids.id_of("nqn.own"), OWN);
        assert_eq!(ids.id_of("nqn.given"), OTHER);
        let derived = ids.id_of("nqn.x");
        assert!(check_id(&derived).is_ok() && derived != ids.id_of("nqn.y"), "{derived}");
        assert_eq!(derived, "ac1991b2-6632-4b8a-a8aa-7ef0d9c24a20", "by Python");
        assert_eq!(super::tests::ids(&[]).id_of(&embedding), OTHER);
        assert_ne!(ids.id_of(&embedding), OTHER, "another NQN has it");
    }

    #[test]
    fn contradictions_are_settled_by_order() {
        let given = [("nqn.own", OTHER), ("nqn.a", OWN), ("nqn.b", OTHER), ("nqn.c", OTHER), ("nqn.b", OTHER)];
        let (ids, complaints) = HostIds::new("nqn.own", OWN, given.into_iter());
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        assert_eq!((ids.id_of("nqn.own"), ids.id_of("nqn.b")), (OWN.into(), OTHER.into()));
        assert!(![OWN, OTHER].contains(&ids.id_of("nqn.a").as_str()));
        assert!(![OWN, OTHER].contains(&ids.id_of("nqn.c").as_str()));
    }

    #[test]
    fn what_is_in_use_counts() {
        let ids = ids(&[]);
        let choose = |nqn: &str, devices: &[Device]| ids.choose(nqn, devices.iter());
        assert_eq!(choose("nqn.own", &[]), (OWN.into(), None));
        assert_eq!(choose("nqn.own", &[device("nqn.own", OWN), device("nqn.x", OTHER)]), (OWN.into(), None));
        let (id, complaint) = choose("nqn.own", &[device("nqn.own", OTHER)]);
        assert!(id == OTHER && complaint.unwrap().contains("nvme7"));
        let (id, complaint) = choose("nqn.own", &[device("nqn.firmware", OWN)]);
        assert!(id == OWN && complaint.unwrap().contains("nqn.firmware"));
        assert_eq!(choose("nqn.own", &[device("nqn.own", "")]), (OWN.into(), None));
    }
}
