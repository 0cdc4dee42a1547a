//! The NVMe-oF controllers that the kernel has, found by name and by whom they serve.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::device::{ControllerKind, Device};
use crate::core::tid::{Transport, TransportId};

/// Where a controller is, as far as any pinning and any of its names leaves it the same.
type Address = (Transport, String, String);

/// Mirrors `/sys/class/nvme`, fabrics controllers only.
#[derive(Debug, Default)]
pub struct Devices {
    by_name: BTreeMap<String, Device>,
    /// I/O controllers also by NQN, since hundreds of them share an address.
    by_address: BTreeMap<(Address, String), BTreeSet<String>>,
}

impl Devices {
    pub fn get(&self, name: &str) -> Option<&Device> {
        self.by_name.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Device> {
        self.by_name.values()
    }

    pub fn insert(&mut self, device: Device) {
        self.remove(&device.name);
        self.by_address.entry(place_of(&device)).or_default().insert(device.name.clone());
        self.by_name.insert(device.name.clone(), device);
    }

    pub fn remove(&mut self, name: &str) -> Option<Device> {
        let device = self.by_name.remove(name)?;
        let place = place_of(&device);
        if let Some(names) = self.by_address.get_mut(&place) {
            names.remove(name);
            if names.is_empty() {
                self.by_address.remove(&place);
            }
        }
        Some(device)
    }

    /// A controller that serves `wanted` already, if there is one.
    pub fn serving(&self, wanted: &TransportId, kind: ControllerKind) -> Option<&Device> {
        let nqn = match kind {
            ControllerKind::Io => wanted.subsysnqn(),
            ControllerKind::Discovery => "",
        };
        let address = (wanted.transport(), wanted.traddr().to_owned(), wanted.trsvcid().to_owned());
        self.by_address
            .get(&(address, nqn.to_owned()))?
            .iter()
            .filter_map(|name| self.by_name.get(name))
            .find(|device| device.is_usable() && device.serves(wanted, kind))
    }
}

/// A discovery controller may be asked for by another NQN than its own, so its NQN is no part of its place.
fn place_of(device: &Device) -> (Address, String) {
    let nqn = match device.kind {
        ControllerKind::Io => device.subsysnqn.clone(),
        ControllerKind::Discovery => String::new(),
    };
    ((device.transport, device.traddr.clone(), device.trsvcid.clone()), nqn)
}
