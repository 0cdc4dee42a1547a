//! The process that makes the blocking kernel calls.

pub mod message;
