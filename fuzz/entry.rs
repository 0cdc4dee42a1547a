//! What each fuzz target does with its input, and what must hold then. No panic is the least of it.
//!
//! Shared by the targets in `fuzz_targets/` and by `tests/corpus.rs`, which runs every committed corpus file through the same
//! functions with any toolchain.

use stas::core::tid::canonical_address;
use stas::helper::message::{ConnectRequest, Failure};
use stas::kernel::{admin, fabrics, sysfs};
use stas::wire::discovery::{Entry, LogPage, MAX_RECORDS};
use stas::wire::pdu::{self, Answer};
use stas::wire::uevent::{NvmeEvent, Uevent};

/// A discovery log page: viewed as a whole, then read piece by piece from a controller that misbehaves.
pub fn log_page(data: &[u8]) {
    match LogPage::new(data) {
        Ok(page) => {
            assert!(page.numrec() <= MAX_RECORDS && page.entries().len() as u64 == page.numrec());
            page.entries().iter().for_each(entry);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    read_from_hostile_controller(data);
}

fn entry(entry: &Entry) {
    let numbers = [entry.trtype(), entry.adrfam(), entry.subtype(), entry.treq(), entry.sectype()];
    let words = [entry.portid(), entry.cntlid(), entry.asqsz(), entry.eflags()];
    std::hint::black_box((numbers, words));
    let texts = [entry.trsvcid(), entry.subnqn(), entry.traddr()];
    for text in texts.into_iter().flatten() {
        assert!(!text.chars().any(char::is_control) && text.len() <= 256);
    }
    if let [Some(trsvcid), Some(nqn), Some(traddr)] = texts {
        adds_no_option(trsvcid, nqn, traddr);
    }
}

/// Whatever an entry says, the option string made of it has the options we chose.
fn adds_no_option(trsvcid: &str, nqn: &str, traddr: &str) {
    let traddr = canonical_address(stas::core::tid::Transport::Tcp, traddr);
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

/// The input is the page; read from its end, its bytes also tell how each command misbehaves.
fn read_from_hostile_controller(data: &[u8]) {
    let mut page = data.to_vec();
    let mut moods = data.iter().rev();
    let mut commands: u64 = 0;
    let mut last_rae = true;
    let result = admin::read_whole_page(
        || 4096,
        |offset, piece, rae| {
            commands += 1;
            last_rae = rae;
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(page.len());
            let rest = &page[from..];
            let mut length = rest.len().min(piece.len());
            match moods.next() {
                Some(1) => return Err(Failure::NvmeStatus(0x4002)),
                Some(2) => return Err(Failure::Interrupted),
                Some(3) => length /= 2,
                // The page changes under our hands: generation counter, or number of entries, or an entry.
                Some(&change @ (4..=7)) => {
                    let at = [0, 8, 16, 1500][usize::from(change) - 4];
                    if let Some(byte) = page.get_mut(at) {
                        *byte = byte.wrapping_add(1);
                    }
                }
                _ => {}
            }
            piece[..length].copy_from_slice(&page[from..][..length]);
            Ok(())
        },
    );
    assert!(commands <= 8 * (2 + MAX_RECORDS / 4), "{commands} commands");
    if let Ok(page) = result {
        let view = LogPage::new(&page).expect("what was read is a page");
        assert_eq!(page.len() as u64, 1024 * (1 + view.numrec()));
        assert!(!last_rae, "the event would never come again");
    }
}

/// A kernel uevent.
pub fn uevent(data: &[u8]) {
    let uevent = match Uevent::parse(data) {
        Ok(uevent) => uevent,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(data.last(), Some(&0));
    assert_eq!(uevent.get("ACTION"), Some(uevent.action()));
    assert_eq!(uevent.get("DEVPATH"), Some(uevent.devpath()));
    assert_eq!(uevent.get("SUBSYSTEM"), Some(uevent.subsystem()));
    assert_eq!(uevent.get("SEQNUM").and_then(|value| value.parse().ok()), Some(uevent.seqnum()));
    std::hint::black_box(uevent.devname());
    match uevent.nvme_event() {
        NvmeEvent::Controller { device, .. } => {
            assert_eq!(uevent.subsystem(), "nvme");
            assert!(device.starts_with("nvme") && !device.contains('/'));
            std::hint::black_box(sysfs::number_of(device));
        }
        NvmeEvent::FabricsDevice => assert_eq!(uevent.subsystem(), "misc"),
        NvmeEvent::FcDiscovery => assert_eq!(uevent.subsystem(), "fc"),
        NvmeEvent::None => {}
    }
}

/// What a port answers to an NVMe/TCP ICReq: a verdict, once reached, stays.
pub fn pdu(data: &[u8]) {
    let mut verdict = Answer::Incomplete;
    for end in 0..=data.len().min(2 * pdu::IC_SIZE) {
        let answer = pdu::answer(&data[..end]);
        assert!(verdict == Answer::Incomplete || answer == verdict, "{verdict:?} became {answer:?}");
        verdict = answer;
    }
    assert!(data.len() < pdu::IC_SIZE || verdict != Answer::Incomplete);
}
