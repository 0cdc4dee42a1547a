//! The Linux NVMe host driver: option strings of /dev/nvme-fabrics, sysfs, admin commands, uevents.
//!
//! Each module knows one of the kernel's interfaces and nothing of what is wanted from it. Calls that may block for more
//! than a moment are made by [`crate::helper`]'s children only; it is said where that is so.

pub mod admin;
pub mod fabrics;
pub mod in_use;
pub mod netlink;
pub mod sysfs;
