//! The state machines: deterministic logic in the manner of a protocol library. They are handed the time and what
//! happened ([`Event`]), and say what to do ([`Action`]); they have no clock, file, socket or log of their own.
//!
//! - [`finder`] knows which discovery controllers there are and what their log pages say;
//! - [`connector`] knows which I/O controllers should be connected, by the rule in [`evidence`];
//! - [`links`] gets controllers of either kind connected and keeps them so.
//!
//! [`Machine`] holds them together. A process may have either role or both; with both, log pages go from the finder to
//! the connector in memory.

mod action;
pub mod aging;
pub mod announcement;
pub mod audit;
pub mod backoff;
pub mod connector;
pub mod deadlines;
pub mod device;
pub mod devices;
mod event;
pub mod evidence;
pub mod exclusion;
pub mod fc_ports;
pub mod finder;
pub mod hearsay;
pub mod host;
pub mod interface;
pub mod links;
mod machine;
pub mod names;
pub mod nbft;
pub mod network;
pub mod note;
pub mod page;
pub mod policy;
pub mod portal;
pub mod succession;
pub mod terms;
pub mod tid;

#[cfg(test)]
mod tests;
/// The fuzzer leads the walks through the state machines, too.
#[cfg(all(fuzzing, not(test)))]
#[allow(unused)]
pub mod tests;

pub use action::{Action, Change, Ticket};
pub use event::{Event, Report};
pub use machine::{Legacy, Machine, Roles};
