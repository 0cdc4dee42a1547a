//! The NVMe-oF controllers that the kernel has, found by name and by place; which links each of them serves, and which
//! of them are ours. All of that ends with the controller: a recycled name begins anew.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::Ticket;
use crate::core::device::{ControllerKind, Device};
use crate::core::links::LinkId;
use crate::core::tid::{Transport, TransportId};

/// Where a controller is, as far as any pinning leaves it the same: transport, address, service id, NQN. A discovery
/// controller may be asked for by another NQN than its own, so for those the NQN is left out; I/O controllers share an
/// address by the hundred.
type Place = (Transport, String, String, String);

#[derive(Debug)]
struct Known {
    device: Device,
    served: BTreeSet<LinkId>,
    /// Connected by us, now or in an earlier run: we may take it down, unless somebody else manages it by now.
    owned: bool,
    /// The disconnect that is under way.
    leaving: Option<Ticket>,
}

/// Mirrors `/sys/class/nvme`, fabrics controllers only.
#[derive(Debug, Default)]
pub struct Devices {
    by_name: BTreeMap<String, Known>,
    by_place: BTreeMap<Place, BTreeSet<String>>,
}

impl Devices {
    pub fn get(&self, name: &str) -> Option<&Device> {
        self.by_name.get(name).map(|known| &known.device)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Device> {
        self.by_name.values().map(|known| &known.device)
    }

    /// Notes what sysfs shows of a controller. One of that name that is not the same must have been removed before.
    pub fn insert(&mut self, device: Device) {
        if let Some(known) = self.by_name.get_mut(&device.name) {
            known.device = device;
            return;
        }
        let place = place_of(device.transport, &device.traddr, &device.trsvcid, device.kind, &device.subsysnqn);
        self.by_place.entry(place).or_default().insert(device.name.clone());
        let known = Known { device, served: BTreeSet::new(), owned: false, leaving: None };
        self.by_name.insert(known.device.name.clone(), known);
    }

    /// Whether the controller of this name that we know is another one.
    pub fn is_recycled(&self, device: &Device) -> bool {
        self.get(&device.name).is_some_and(|earlier| !device.is_same_controller(earlier))
    }

    /// Forgets a controller; the links that it served.
    pub fn remove(&mut self, name: &str) -> BTreeSet<LinkId> {
        let Some(Known { device, served, .. }) = self.by_name.remove(name) else {
            return BTreeSet::new();
        };
        let place = place_of(device.transport, &device.traddr, &device.trsvcid, device.kind, &device.subsysnqn);
        if let Some(names) = self.by_place.get_mut(&place) {
            names.remove(name);
            if names.is_empty() {
                self.by_place.remove(&place);
            }
        }
        served
    }

    /// The controllers that serve `wanted` already and are to stay.
    pub fn serving(&self, wanted: &TransportId, kind: ControllerKind) -> impl Iterator<Item = &Device> {
        let place = place_of(wanted.transport(), wanted.traddr(), wanted.trsvcid(), kind, wanted.subsysnqn());
        let names = self.by_place.get(&place).into_iter().flatten();
        names.filter_map(|name| self.adoptable(name)).filter(move |device| device.serves(wanted, kind))
    }

    /// The discovery controller that a connect of `wanted` made in an earlier run, even if it reports another NQN than
    /// it was asked for by.
    pub fn made_for(&self, wanted: &TransportId) -> Option<&Device> {
        let kind = ControllerKind::Discovery;
        let place = place_of(wanted.transport(), wanted.traddr(), wanted.trsvcid(), kind, "");
        let devices = self.by_place.get(&place)?.iter().filter_map(|name| self.adoptable(name));
        let named_as_asked = |device: &Device| Device { subsysnqn: wanted.subsysnqn().to_owned(), ..device.clone() };
        devices.into_iter().find(|device| named_as_asked(device).serves(wanted, kind))
    }

    /// Whether the kernel is making a controller that may turn out to serve `wanted`. It has no NQN yet.
    pub fn may_come_to_serve(&self, wanted: &TransportId) -> bool {
        let place = (wanted.transport(), wanted.traddr().to_owned(), wanted.trsvcid().to_owned(), String::new());
        let mut devices = self.by_place.get(&place).into_iter().flatten().filter_map(|name| self.get(name));
        devices.any(|device| device.may_come_to_serve(wanted))
    }

    /// The controller of this name, if it is one that a link can rely on.
    pub fn adoptable(&self, name: &str) -> Option<&Device> {
        let known = self.by_name.get(name)?;
        (known.leaving.is_none() && known.device.is_usable()).then_some(&known.device)
    }

    // ---- whom it serves, and whose it is -------------------------------------------------------------------------

    pub fn served_by(&self, name: &str) -> impl Iterator<Item = &LinkId> {
        self.by_name.get(name).into_iter().flat_map(|known| &known.served)
    }

    pub fn serve(&mut self, name: &str, id: &LinkId) {
        if let Some(known) = self.by_name.get_mut(name) {
            known.served.insert(id.clone());
        }
    }

    pub fn stop_serving(&mut self, name: &str, id: &LinkId) {
        if let Some(known) = self.by_name.get_mut(name) {
            known.served.remove(id);
        }
    }

    pub fn is_owned(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|known| known.owned && !known.device.is_foreign())
    }

    pub fn own(&mut self, name: &str) {
        if let Some(known) = self.by_name.get_mut(name) {
            known.owned = true;
        }
    }

    /// A disconnect begins (`Some`), or did not work (`None`).
    pub fn set_leaving(&mut self, name: &str, disconnect: Option<Ticket>) {
        if let Some(known) = self.by_name.get_mut(name) {
            known.leaving = disconnect;
        }
    }

    /// Whether the controller of this name is the one that this disconnect was for.
    pub fn is_leaving(&self, name: &str, disconnect: Ticket) -> bool {
        self.by_name.get(name).is_some_and(|known| known.leaving == Some(disconnect))
    }
}

fn place_of(transport: Transport, traddr: &str, trsvcid: &str, kind: ControllerKind, subsysnqn: &str) -> Place {
    let subsysnqn = match kind {
        ControllerKind::Io => subsysnqn,
        ControllerKind::Discovery => "",
    };
    (transport, traddr.to_owned(), trsvcid.to_owned(), subsysnqn.to_owned())
}
