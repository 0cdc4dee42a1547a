//! The simulated NVMe host driver: one connect at a time, names recycled at once, duplicates refused for I/O controllers
//! only, and no word of a lost connection.

use std::collections::{BTreeMap, VecDeque};

use stas::core::Ticket;
use stas::core::device::{ControllerKind, Device};
use stas::core::links::LinkId;
use stas::core::tid::TransportId;

use crate::script::DISCOVERY;

/// The interface through which everything goes.
pub const INTERFACE: &str = "eth0";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The connect is under way: sysfs has no more than the address.
    Nascent,
    Live,
    /// The connection is lost, and the kernel tries to have it back.
    Lost,
    Deleting,
}

#[derive(Debug, Clone)]
pub struct Controller {
    /// What it was connected as.
    pub id: LinkId,
    pub state: State,
    /// Which of our helpers connected it; `None`: somebody else.
    pub era: Option<u32>,
    /// Tells it from others of the same name.
    pub serial: u64,
    /// An event was sent, and the log page not read since: there will be no other.
    pub masked: bool,
}

impl Controller {
    /// The NQN that it reports.
    pub fn nqn(&self) -> &str {
        match self.id.kind {
            ControllerKind::Discovery => reported_nqn(self.id.tid.traddr()),
            ControllerKind::Io => self.id.tid.subsysnqn(),
        }
    }

    pub fn is_usable(&self) -> bool {
        matches!(self.state, State::Live | State::Lost)
    }
}

pub fn reported_nqn(traddr: &str) -> &'static str {
    match traddr == DISCOVERY[2] {
        true => "nqn.unique",
        false => "nqn.2014-08.org.nvmexpress.discovery",
    }
}

/// A connect that was asked for.
#[derive(Debug, Clone)]
pub struct Connect {
    pub id: LinkId,
    /// Who asked: a daemon, by its generation, and what it calls the request.
    pub asked: Option<(u32, Ticket)>,
    /// Which of our helpers was asked.
    pub era: Option<u32>,
    /// Once it is being carried out.
    pub number: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uevent {
    Up(u32),
    Removed(u32),
    LogChanged(u32),
}

#[derive(Default)]
pub struct Kernel {
    pub controllers: BTreeMap<u32, Controller>,
    /// The first is being carried out.
    pub connects: VecDeque<Connect>,
    /// Not sent yet.
    pub uevents: Vec<Uevent>,
    last_serial: u64,
}

impl Kernel {
    /// Begins the first connect that waits, if none is under way: it gets a name.
    pub fn begin_connect(&mut self) -> Option<&Connect> {
        let number = (0..).find(|number| !self.controllers.contains_key(number)).unwrap();
        let connect = self.connects.front_mut().filter(|connect| connect.number.is_none())?;
        connect.number = Some(number);
        self.last_serial += 1;
        let controller = Controller {
            id: connect.id.clone(),
            state: State::Nascent,
            era: connect.era,
            serial: self.last_serial,
            masked: false,
        };
        self.controllers.insert(number, controller);
        self.connects.front()
    }

    /// Whether a connect would be refused with EALREADY: the same text of the same subsystem.
    pub fn has_already(&self, connect: &Connect) -> bool {
        let same = |(number, other): (&u32, &Controller)| {
            Some(*number) != connect.number && other.id == connect.id && other.state != State::Deleting
        };
        connect.id.kind == ControllerKind::Io && self.controllers.iter().any(same)
    }

    pub fn remove(&mut self, number: u32) {
        if self.controllers.remove(&number).is_some() {
            self.uevents.push(Uevent::Removed(number));
        }
    }

    /// The number of the controller that has this serial.
    pub fn find(&self, serial: u64) -> Option<u32> {
        self.controllers.iter().find(|(_, controller)| controller.serial == serial).map(|(number, _)| *number)
    }

    /// What sysfs shows of one.
    pub fn device(&self, number: u32) -> Option<Device> {
        let controller = self.controllers.get(&number)?;
        let tid: &TransportId = &controller.id.tid;
        let nascent = controller.state == State::Nascent;
        let text = |text: &str| if nascent { String::new() } else { text.to_owned() };
        Some(Device {
            kind: if nascent { ControllerKind::Io } else { controller.id.kind },
            state: match controller.state {
                State::Nascent => "new",
                State::Live => "live",
                State::Lost => "connecting",
                State::Deleting => "deleting",
            }
            .into(),
            traddr: tid.traddr().into(),
            trsvcid: tid.trsvcid().into(),
            subsysnqn: text(controller.nqn()),
            host_traddr: tid.host_traddr().into(),
            host_iface: tid.host_iface().into(),
            src_addr: if controller.state == State::Live { "192.0.2.200".into() } else { String::new() },
            src_iface: if controller.state == State::Live { INTERFACE.into() } else { String::new() },
            host_nqn: tid.host_nqn().into(),
            ..Device::new(&format!("nvme{number}"), tid.transport())
        })
    }

    pub fn devices(&self) -> Vec<Device> {
        self.controllers.keys().filter_map(|number| self.device(*number)).collect()
    }
}

pub fn number_of(name: &str) -> u32 {
    name.trim_start_matches("nvme").parse().unwrap()
}
