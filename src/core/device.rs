//! What the kernel shows of one controller, and whether that controller is the one somebody wants.

use crate::core::tid::{DISCOVERY_NQN, Transport, TransportId, canonical_address, canonical_service};

/// The name that we, and nvme-stas, have in the registry of the host.
pub const US: &str = "stas";

/// The name that stands there for what the firmware's boot table (NBFT) asks for.
pub const FIRMWARE: &str = "nbft";

/// What a controller is for (sysfs `cntrltype`, Identify Controller CNTRLTYPE).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControllerKind {
    Io,
    Discovery,
}

/// One NVMe-oF controller of this host as `/sys/class/nvme/nvmeN` shows it. Addresses are canonical; an empty string
/// means that sysfs has no such value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Kernel name, `nvme3`.
    pub name: String,
    pub transport: Transport,
    pub kind: ControllerKind,
    /// As of reading: `live`, `connecting`, ….
    pub state: String,
    pub traddr: String,
    pub trsvcid: String,
    /// What the controller itself reported, which need not be what was asked for.
    pub subsysnqn: String,
    /// Only if given at connect time.
    pub host_traddr: String,
    /// Only if given at connect time.
    pub host_iface: String,
    /// Source address of the connection (kernel 6.1+, tcp, only while connected).
    pub src_addr: String,
    /// The interface that owns `src_addr`.
    pub src_iface: String,
    pub host_nqn: String,
    pub host_id: String,
    /// Of a discovery controller: `none`, `ddc`, `cdc` or empty.
    pub dctype: String,
    /// `io`, `discovery`, `admin` or empty, as in sysfs.
    pub cntrltype: String,
    /// Of a discovery controller: its keep alive timeout in seconds; 0: none.
    pub kato: Option<u32>,
    /// Who manages it by the registry of the host; nobody, as far as is known.
    pub owner: Option<String>,
    /// Of its directory in sysfs, which no other controller has until the host restarts; 0: not known.
    pub inode: u64,
}

impl Device {
    /// An I/O controller of which nothing else is known so far.
    pub fn new(name: &str, transport: Transport) -> Device {
        let none = String::new;
        Device {
            name: name.to_owned(),
            transport,
            kind: ControllerKind::Io,
            state: none(),
            traddr: none(),
            trsvcid: none(),
            subsysnqn: none(),
            host_traddr: none(),
            host_iface: none(),
            src_addr: none(),
            src_iface: none(),
            host_nqn: none(),
            host_id: none(),
            dctype: none(),
            cntrltype: none(),
            kato: None,
            owner: None,
            inode: 0,
        }
    }

    /// Whether somebody else manages it, and we are not to take it down.
    pub fn is_foreign(&self) -> bool {
        self.owner.as_deref().is_some_and(|owner| owner != US)
    }

    /// Whether the firmware's boot table (NBFT) asked for it, as the registry says.
    pub fn is_of_firmware(&self) -> bool {
        self.owner.as_deref() == Some(FIRMWARE)
    }

    /// Whether it was connected for one look only, as by `nvme discover`, and will be gone in a moment: such a
    /// discovery controller has no keep alive.
    pub fn is_passing(&self) -> bool {
        self.kind == ControllerKind::Discovery && self.kato == Some(0) && self.owner.as_deref() != Some(US)
    }

    /// Whether the kernel still works at this controller: connected, or trying to be again.
    pub fn is_usable(&self) -> bool {
        !matches!(self.state.as_str(), "deleting" | "deleting (no IO)" | "dead")
    }

    /// Whether the kernel is still making it: it is connecting for the first time, and has not been asked for its name.
    pub fn is_nascent(&self) -> bool {
        self.subsysnqn.is_empty() && matches!(self.state.as_str(), "new" | "connecting")
    }

    /// Whether this may turn out to be the controller that `wanted` asks for, once it is made.
    pub fn may_come_to_serve(&self, wanted: &TransportId) -> bool {
        self.is_nascent() && self.is_reached_as(wanted)
    }

    /// Whether this can be the controller that `earlier` was, read at another time: names are recycled.
    pub fn is_same_controller(&self, earlier: &Device) -> bool {
        self.name == earlier.name
            && self.kind == earlier.kind
            && self.transport == earlier.transport
            && self.traddr == earlier.traddr
            && self.trsvcid == earlier.trsvcid
            && self.subsysnqn == earlier.subsysnqn
            && self.host_nqn == earlier.host_nqn
            && self.host_traddr == earlier.host_traddr
            && self.host_iface == earlier.host_iface
    }

    /// Whether this kernel controller serves `wanted`, so that connecting again would duplicate it.
    ///
    /// The rule of nvme-stas, see "Nothing is connected twice" in README: transport, service id, address and host NQN
    /// are equal; the NQN is equal, or `wanted` asks for the well-known discovery NQN, to which a TP8013 controller
    /// answers with its own; and the pinning (interface, source address) that `wanted` asks for is what the connection
    /// has.
    pub fn serves(&self, wanted: &TransportId, kind: ControllerKind) -> bool {
        let same_subsystem = self.subsysnqn == wanted.subsysnqn()
            || (kind == ControllerKind::Discovery && wanted.subsysnqn() == DISCOVERY_NQN);
        self.kind == kind && same_subsystem && self.is_reached_as(wanted)
    }

    fn is_reached_as(&self, wanted: &TransportId) -> bool {
        self.transport == wanted.transport()
            && self.trsvcid == wanted.trsvcid()
            && self.traddr == wanted.traddr()
            && self.host_nqn == wanted.host_nqn()
            && self.is_pinned_as(wanted)
    }

    fn is_pinned_as(&self, wanted: &TransportId) -> bool {
        match self.transport {
            Transport::Tcp => {
                self.matches_pin(wanted.host_traddr(), &self.src_addr, &self.host_traddr)
                    && self.matches_pin(wanted.host_iface(), &self.src_iface, &self.host_iface)
            }
            Transport::Rdma => wanted.host_traddr().is_empty() || wanted.host_traddr() == self.host_traddr,
            Transport::Fc => wanted.host_traddr() == self.host_traddr,
            Transport::Loop => true,
        }
    }

    /// `actual` is what the connection uses, `given` what its creator asked for; where sysfs has neither, a match is
    /// assumed: a duplicate is worse than an unpinned path.
    fn matches_pin(&self, wanted: &str, actual: &str, given: &str) -> bool {
        wanted.is_empty() || wanted == actual || wanted == given || (actual.is_empty() && given.is_empty())
    }
}

/// Splits the sysfs `address` attribute (`traddr=…,trsvcid=…,src_addr=…`) and hands each value to `take`, canonical
/// where it is an address. The kernel writes `none` for what was not given (kernel: `nvmf_get_address`).
pub fn parse_sysfs_address(transport: Transport, attribute: &str, mut take: impl FnMut(&str, String)) {
    for (key, value) in
        attribute.trim().split(',').filter_map(|part| part.split_once('=')).filter(|(_, value)| *value != "none")
    {
        match key {
            "traddr" | "host_traddr" | "src_addr" => take(key, canonical_address(transport, value)),
            "trsvcid" => take(key, canonical_service(transport, value)),
            _ => take(key, value.to_owned()),
        }
    }
}
