//! Scenarios: each boots a real Linux kernel in an emulated machine and plays through what an administrator lives through.
//!
//! `tests/setup` prepares the machines, once; then `cargo test --test scenarios PART_OF_A_NAME` runs some
//! of them, and with `-- --nocapture` shows the guest's log as it comes. As many machines run at once as
//! there are processors, unless RUST_TEST_THREADS says otherwise (`tests/run` has half as many again). A failed scenario shows the guest's log,
//! which stays in target/vm/logs, and after it the reason.
//!
//! A scenario is a test with a closure, which runs in the guest:
//!
//! ```ignore
//! #[test]
//! fn one_subsystem_becomes_storage() {
//!     scenario(|guest| {
//!         let disk = guest.target().subsystem("nqn.2026-01.example:disk");
//!         guest.target().tcp_port("127.0.0.1", 8009).link(&disk);
//!         guest.write("/etc/stas/stafd.conf", "…");
//!         let _bus = guest.start_bus();
//!         let _stafd = guest.spawn("stafd", &[]);
//!         let _stacd = guest.spawn("stacd", &[]);
//!         guest.wait_until("the disk is there", Duration::from_secs(10), || !guest.block_devices().is_empty());
//!     });
//! }
//! ```

mod adoption;
mod authentication;
mod bench;
mod boot;
mod bus;
mod calls;
mod coexist;
mod confinement;
mod ctl;
mod demo;
mod faults;
mod fibre_channel;
mod guest;
mod harness;
mod hostile;
mod identity;
mod idle;
mod interop;
mod keeping;
mod logs;
mod mdns;
mod module;
mod names;
mod nbft;
mod network;
mod notify;
mod one_process;
mod options;
mod outage;
mod package;
mod pages;
mod polling;
mod referrals;
mod registration;
mod reload;
mod replacing;
mod restart;
mod root;
mod scale;
mod sim;
mod simulator;
mod stas;
mod storage;
mod supervisors;
mod swarm;
mod terms;
mod tls;
mod transports;
mod unreachable;
mod vm;
