//! Kernel uevents, as they arrive on a `NETLINK_KOBJECT_UEVENT` socket.
//!
//! One message is `ACTION@DEVPATH` and `KEY=value` pairs, each ended by a NUL; SEQNUM is the last pair that the kernel
//! writes (kernel: lib/kobject_uevent.c). What the NVMe host driver adds is in drivers/nvme/host/core.c
//! (`nvme_class_uevent`, `nvme_aen_uevent`, `nvme_change_uevent`), what FC adds in drivers/nvme/host/fc.c.
//!
//! Who sent a message is not known here: [`crate::kernel::netlink`] lets only the kernel's through.

use std::fmt;

/// The appearance of `/dev/nvme-fabrics`: loading the nvme-fabrics module registers a misc device of that name.
const FABRICS_DEVPATH: &str = "/devices/virtual/misc/nvme-fabrics";
/// Every controller of a fabric is a child of this one device; PCIe controllers are not.
const CONTROLLER_PARENT: &str = "/devices/virtual/nvme-fabrics/ctl/";
/// Asynchronous event: notice (type 2h), discovery log page change (information F0h), read log page 70h.
pub const AEN_DISCOVERY_LOG_CHANGED: u32 = 0x0070_f002;

/// Why a message is not a kernel uevent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UeventError {
    /// From udev, not from the kernel.
    Libudev,
    /// Does not end where the kernel ends one.
    Cut,
    NotUtf8,
    /// `ACTION@DEVPATH` is missing, or contradicts the pairs.
    Header,
    /// A pair that every uevent has is missing or makes no sense.
    Missing(&'static str),
}

impl fmt::Display for UeventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UeventError::Libudev => f.write_str("uevent comes from udev, not from the kernel"),
            UeventError::Cut => f.write_str("uevent is cut short"),
            UeventError::NotUtf8 => f.write_str("uevent is not UTF-8"),
            UeventError::Header => f.write_str("uevent does not begin with its action and device path"),
            UeventError::Missing(key) => write!(f, "uevent has no valid {key}"),
        }
    }
}

impl std::error::Error for UeventError {}

/// A uevent that has everything each uevent must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uevent<'a> {
    action: &'a str,
    devpath: &'a str,
    subsystem: &'a str,
    seqnum: u64,
    pairs: &'a str,
}

impl<'a> Uevent<'a> {
    pub fn parse(message: &'a [u8]) -> Result<Uevent<'a>, UeventError> {
        if message.starts_with(b"libudev\0") {
            return Err(UeventError::Libudev);
        }
        let text = std::str::from_utf8(message).map_err(|_| UeventError::NotUtf8)?;
        let text = text.strip_suffix('\0').ok_or(UeventError::Cut)?;
        let (header, pairs) = text.split_once('\0').ok_or(UeventError::Cut)?;
        let (action, devpath) = header.split_once('@').ok_or(UeventError::Header)?;
        let subsystem = find(pairs, "SUBSYSTEM").ok_or(UeventError::Missing("SUBSYSTEM"))?;
        let seqnum = find(pairs, "SEQNUM").and_then(|value| value.parse().ok());
        let seqnum = seqnum.ok_or(UeventError::Missing("SEQNUM"))?;
        for (key, value) in [("ACTION", action), ("DEVPATH", devpath)] {
            if find(pairs, key).ok_or(UeventError::Missing(key))? != value {
                return Err(UeventError::Header);
            }
        }
        Ok(Uevent { action, devpath, subsystem, seqnum, pairs })
    }

    /// `add`, `change`, `remove`, ….
    pub fn action(&self) -> &'a str {
        self.action
    }

    /// The device below `/sys`.
    pub fn devpath(&self) -> &'a str {
        self.devpath
    }

    pub fn subsystem(&self) -> &'a str {
        self.subsystem
    }

    /// Position in the order of all uevents of this boot; compare with `/sys/kernel/uevent_seqnum`.
    pub fn seqnum(&self) -> u64 {
        self.seqnum
    }

    /// The node below `/dev`, for devices that have one.
    pub fn devname(&self) -> Option<&'a str> {
        self.get("DEVNAME")
    }

    pub fn get(&self, key: &str) -> Option<&'a str> {
        find(self.pairs, key)
    }

    /// What this uevent says about NVMe over Fabrics.
    pub fn nvme_event(&self) -> NvmeEvent<'a> {
        match self.subsystem {
            "nvme" => match self.fabrics_controller() {
                Some(device) => NvmeEvent::Controller { device, event: self.controller_event() },
                None => NvmeEvent::None,
            },
            "misc" if self.action == "add" && self.devpath == FABRICS_DEVPATH => NvmeEvent::FabricsDevice,
            "fc" if self.get("FC_EVENT") == Some("nvmediscovery") => {
                match (self.get("NVMEFC_TRADDR"), self.get("NVMEFC_HOST_TRADDR")) {
                    (Some(traddr), Some(host_traddr)) => NvmeEvent::FcDiscovery { traddr, host_traddr },
                    _ => NvmeEvent::None,
                }
            }
            _ => NvmeEvent::None,
        }
    }

    /// `nvmeN`, when this is about a controller of a fabric.
    fn fabrics_controller(&self) -> Option<&'a str> {
        let device = self.devpath.strip_prefix(CONTROLLER_PARENT)?;
        let number = device.strip_prefix("nvme")?;
        (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(device)
    }

    fn controller_event(&self) -> ControllerEvent {
        match self.action {
            "add" => ControllerEvent::Added,
            "remove" => ControllerEvent::Removed,
            "change" => match (self.get("NVME_EVENT"), self.get("NVME_AEN").and_then(parse_aen)) {
                (Some("connected"), _) => ControllerEvent::Connected,
                (Some("rediscover"), _) => ControllerEvent::Rediscover,
                (_, Some(AEN_DISCOVERY_LOG_CHANGED)) => ControllerEvent::DiscoveryLogChanged,
                (_, Some(aen)) => ControllerEvent::OtherAen(aen),
                _ => ControllerEvent::Other,
            },
            _ => ControllerEvent::Other,
        }
    }
}

/// What a uevent says about NVMe over Fabrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NvmeEvent<'a> {
    /// Something happened to a controller of a fabric; `device` is `nvmeN`.
    Controller { device: &'a str, event: ControllerEvent },
    /// `/dev/nvme-fabrics` has appeared: from now on controllers can be connected.
    FabricsDevice,
    /// An FC adapter, its port `host_traddr`, asks for discovery on one of its remote ports.
    FcDiscovery { traddr: &'a str, host_traddr: &'a str },
    /// Nothing.
    None,
}

/// What happened to a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControllerEvent {
    /// It has a name now; the connection is still to be made.
    Added,
    Removed,
    /// It is live, for the first time or again.
    Connected,
    /// A discovery controller is back and may have changed meanwhile (kernel 6.1+); Connected follows.
    Rediscover,
    /// Asynchronous event [`AEN_DISCOVERY_LOG_CHANGED`].
    DiscoveryLogChanged,
    /// Any other asynchronous event: log page, information and type in bits 23:16, 15:8 and 2:0.
    OtherAen(u32),
    Other,
}

fn find<'a>(pairs: &'a str, key: &str) -> Option<&'a str> {
    pairs.split('\0').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

/// The kernel writes it as `%#08x`.
fn parse_aen(value: &str) -> Option<u32> {
    u32::from_str_radix(value.strip_prefix("0x").unwrap_or(value), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTED: &[u8] = b"change@/devices/virtual/nvme-fabrics/ctl/nvme0\0ACTION=change\0\
        DEVPATH=/devices/virtual/nvme-fabrics/ctl/nvme0\0SUBSYSTEM=nvme\0NVME_EVENT=connected\0MAJOR=240\0MINOR=0\0\
        DEVNAME=nvme0\0NVME_TRTYPE=tcp\0NVME_TRADDR=127.0.0.1\0NVME_TRSVCID=8009\0NVME_HOST_TRADDR=none\0\
        NVME_HOST_IFACE=none\0SEQNUM=1234\0";

    fn message(action: &str, devpath: &str, pairs: &str) -> String {
        let pairs = pairs.replace(' ', "\0");
        format!("{action}@{devpath}\0ACTION={action}\0DEVPATH={devpath}\0{pairs}\0SEQNUM=1\0")
    }

    /// The event of controller nvme7.
    fn event(action: &str, pairs: &str) -> ControllerEvent {
        let message = message(action, "/devices/virtual/nvme-fabrics/ctl/nvme7", pairs);
        match Uevent::parse(message.as_bytes()).unwrap().nvme_event() {
            NvmeEvent::Controller { device: "nvme7", event } => event,
            other => panic!("{other:?}"),
        }
    }

    fn meaning(action: &str, devpath: &str, pairs: &str) -> String {
        format!("{:?}", Uevent::parse(message(action, devpath, pairs).as_bytes()).unwrap().nvme_event())
    }

    #[test]
    fn what_the_kernel_sends_is_understood() {
        let uevent = Uevent::parse(CONNECTED).unwrap();
        assert_eq!((uevent.action(), uevent.subsystem()), ("change", "nvme"));
        assert_eq!(uevent.devpath(), "/devices/virtual/nvme-fabrics/ctl/nvme0");
        assert_eq!((uevent.devname(), uevent.seqnum()), (Some("nvme0"), 1234));
        assert_eq!((uevent.get("NVME_TRSVCID"), uevent.get("NVME_TR")), (Some("8009"), None));
        let connected = NvmeEvent::Controller { device: "nvme0", event: ControllerEvent::Connected };
        assert_eq!(uevent.nvme_event(), connected);
    }

    #[test]
    fn no_part_of_a_message_passes_for_a_whole_one() {
        for end in 0..CONNECTED.len() {
            assert!(Uevent::parse(&CONNECTED[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn what_is_no_kernel_uevent_is_refused() {
        let error = |message: &str| Uevent::parse(message.as_bytes()).err();
        assert_eq!(error("libudev\0\u{1}\u{2}"), Some(UeventError::Libudev));
        assert_eq!(error(""), Some(UeventError::Cut));
        assert_eq!(error("add/a\0SUBSYSTEM=nvme\0"), Some(UeventError::Header));
        assert_eq!(error("add@/a\0ACTION=add\0DEVPATH=/a\0SEQNUM=1\0"), Some(UeventError::Missing("SUBSYSTEM")));
        assert_eq!(
            error("add@/a\0ACTION=add\0DEVPATH=/a\0SUBSYSTEM=nvme\0SEQNUM=x\0"),
            Some(UeventError::Missing("SEQNUM"))
        );
        assert_eq!(error("add@/a\0ACTION=add\0DEVPATH=/b\0SUBSYSTEM=nvme\0SEQNUM=1\0"), Some(UeventError::Header));
        assert_eq!(Uevent::parse(b"add@/\xff\0"), Err(UeventError::NotUtf8));
    }

    #[test]
    fn events_of_controllers() {
        assert_eq!(event("add", "SUBSYSTEM=nvme"), ControllerEvent::Added);
        assert_eq!(event("remove", "SUBSYSTEM=nvme"), ControllerEvent::Removed);
        assert_eq!(event("change", "SUBSYSTEM=nvme NVME_EVENT=rediscover"), ControllerEvent::Rediscover);
        assert_eq!(event("change", "SUBSYSTEM=nvme NVME_AEN=0x70f002"), ControllerEvent::DiscoveryLogChanged);
        assert_eq!(event("change", "SUBSYSTEM=nvme NVME_AEN=0x040002"), ControllerEvent::OtherAen(0x04_0002));
        assert_eq!(event("change", "SUBSYSTEM=nvme NVME_AEN=0xyz"), ControllerEvent::Other);
        assert_eq!(event("bind", "SUBSYSTEM=nvme"), ControllerEvent::Other);
    }

    #[test]
    fn other_devices_are_not_taken_for_controllers_of_a_fabric() {
        for devpath in [
            "/devices/pci0000:00/0000:00:04.0/nvme/nvme0",
            "/devices/virtual/nvme-subsystem/nvme-subsys0",
            "/devices/virtual/nvme-fabrics/ctl/nvme0/hwmon0",
            "/devices/virtual/nvme-fabrics/ctl/nvme",
            "/devices/virtual/nvme-fabrics/ctl/../nvme0",
        ] {
            assert_eq!(meaning("add", devpath, "SUBSYSTEM=nvme"), "None", "{devpath}");
        }
        assert_eq!(meaning("add", "/devices/virtual/nvme-fabrics/ctl/nvme0", "SUBSYSTEM=block"), "None");
    }

    #[test]
    fn the_fabrics_device_and_fc_discovery_are_recognised() {
        let misc = "SUBSYSTEM=misc MAJOR=10 MINOR=122 DEVNAME=nvme-fabrics";
        assert_eq!(meaning("add", FABRICS_DEVPATH, misc), "FabricsDevice");
        assert_eq!(meaning("remove", FABRICS_DEVPATH, misc), "None");
        assert_eq!(meaning("add", "/devices/virtual/nvme-fabrics/ctl", "SUBSYSTEM=nvme-fabrics"), "None");
        let fc = "SUBSYSTEM=fc FC_EVENT=nvmediscovery NVMEFC_HOST_TRADDR=nn-0x3:pn-0x4 NVMEFC_TRADDR=nn-0x1:pn-0x2";
        assert_eq!(
            meaning("change", "/devices/virtual/fc/fc_udev_device", fc),
            r#"FcDiscovery { traddr: "nn-0x1:pn-0x2", host_traddr: "nn-0x3:pn-0x4" }"#
        );
        let half = "SUBSYSTEM=fc FC_EVENT=nvmediscovery NVMEFC_TRADDR=nn-0x1:pn-0x2";
        assert_eq!(meaning("change", "/devices/virtual/fc/fc_udev_device", half), "None");
    }
}
