//! The Linux NVMe host driver: option strings of /dev/nvme-fabrics, sysfs, admin commands, uevents; what the network layer
//! tells; the boot tables of the firmware; and what it takes to work on a host whose root is such storage.
//!
//! Each module knows one of the kernel's interfaces and nothing of what is wanted from it. Calls that may block for more
//! than a moment are made by [`crate::helper`]'s children only; it is said where that is so.

pub mod address;
pub mod admin;
pub mod capabilities;
pub mod disks;
pub mod fabrics;
pub mod in_use;
pub mod interfaces;
pub mod keyring;
pub mod memory;
pub mod nbft;
pub mod netlink;
pub mod registry;
pub mod rtnetlink;
pub mod sysfs;
