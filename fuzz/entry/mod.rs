//! What each fuzz target does with its input, and what must hold then. No panic is the least of it.
//!
//! Shared by the targets in `fuzz_targets/` and by `tests/corpus.rs`, which runs every committed corpus file through the same
//! functions with any toolchain. The target `core` is not here: it is the random walk of `src/core/tests`, led by the fuzzer.

mod avahi;
mod bus;
mod files;
mod own;
mod wire;

pub use avahi::{avahi, avahi_announcements, txt};
pub use bus::{calls, calls_answered, finder, finder_connects};
pub use files::{exclusions, findings_of_sources, host, settings, sources};
pub use own::{helper, state};
pub use wire::{dns, log_page, nbft, pdu, rtnetlink, rtnetlink_messages, supported, uevent};

use stas::core::tid::{Transport, canonical_address};
use stas::helper::message::ConnectRequest;
use stas::kernel::fabrics;

/// Whatever an entry says, the option string made of it has the options we chose.
fn adds_no_option(trsvcid: &str, nqn: &str, traddr: &str) {
    let traddr = canonical_address(Transport::Tcp, traddr);
    let given = 2 + usize::from(!trsvcid.is_empty()) + usize::from(!traddr.is_empty());
    let request = ConnectRequest {
        nqn: nqn.to_owned(),
        transport: "tcp".to_owned(),
        traddr,
        trsvcid: trsvcid.to_owned(),
        ..ConnectRequest::default()
    };
    if let Ok(options) = fabrics::option_string(&request) {
        assert_eq!(options.split(',').count(), given, "{options:?}");
        assert!(!options.contains(['\n', '\0']));
    }
}
