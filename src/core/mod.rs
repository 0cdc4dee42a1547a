//! The state machines: pure logic without I/O, clock, file or log.

pub mod device;
pub mod tid;
