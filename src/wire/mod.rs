//! What others wrote, viewed in place: discovery log page, supported log pages, uevent, network events, NVMe/TCP connection
//! set-up, DNS messages, DNS-SD TXT record, boot table of the firmware.
//!
//! Every view is made by a constructor that checks lengths and counts once; after it no accessor can fail. Nothing here
//! does I/O, decides, or allocates: counts and lengths in the bytes are claims, and are bounded before they are believed.
//! `dim` goes the other way: it makes what others will read.

pub mod dim;
pub mod discovery;
pub mod dns;
pub mod nbft;
pub mod pdu;
pub mod rtnetlink;
pub mod supported;
pub mod txt;
pub mod uevent;
