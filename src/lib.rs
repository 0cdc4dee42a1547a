//! `stas` finds NVMe over Fabrics storage and attaches it.
//!
//! Bytes from outside (netlink, D-Bus, helper replies, log pages) are viewed in [`wire`], become events, and are decided
//! upon by the state machines of [`core`]; [`daemon`] performs what they ask for through [`helper`], [`kernel`] and
//! [`bus`]. Data goes one way round: nothing in `core` calls out, nothing outside it decides.
#![deny(unsafe_code)]
// A panic is an outage (`panic = "abort"`): nothing that arrives from outside may be able to cause one.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::indexing_slicing
)]

pub mod bus;
pub mod config;
pub mod confine;
pub mod core;
pub mod ctl;
pub mod daemon;
pub mod exit;
pub mod helper;
pub mod kernel;
pub mod rarely;
pub mod suggest;
pub mod wire;
