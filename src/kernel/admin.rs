//! Admin commands through `NVME_IOCTL_ADMIN_CMD` on `/dev/nvmeN`, and the discovery log page read with them.
//!
//! Commands: NVM Express Base Specification, "Get Log Page command", "Identify command", "Discovery Information Management
//! command"; `struct nvme_passthru_cmd` in the kernel's include/uapi/linux/nvme_ioctl.h. A command blocks until the
//! controller answers, up to the kernel's admin timeout of a minute, after which the kernel resets the controller: for the
//! helper's children only.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use crate::helper::message::{Failure, PageRequest};
use crate::wire::dim;
use crate::wire::discovery::{self, Entry, HEADER_SIZE, Header, LSP_PLEO, LogPage};
use crate::wire::supported::{self, SupportedLogPages};

/// Bytes of a Get Log Page command that any controller has to carry out: the smallest limit that MDTS can express is twice
/// that. A small page needs no larger ones.
const SMALL_PIECE: usize = 4096;

/// No command asks for more than this, whatever the controller allows. A page of a thousand entries takes four of these,
/// and every transport of the kernel can carry them.
const LARGE_PIECE: usize = 256 << 10;

/// How often a page that changes while it is read is read again.
const ATTEMPTS: u32 = 8;

/// What buffers hold before a command. A controller that sends fewer bytes than asked for gets away with it unreported;
/// zeros would then look like an empty page or like empty entries. A page really ending in these bytes (reserved in header
/// and entry) is refused as well.
const UNTOUCHED: [u8; 16] = [0xa5; 16];

/// Path Related Status, as the kernel makes them up (include/linux/nvme.h, `NVME_SC_HOST_PATH_ERROR` and
/// `NVME_SC_HOST_ABORTED_CMD`).
const HOST_PATH_ERROR: i32 = 0x370;
const HOST_ABORTED: i32 = 0x371;

const OPCODE_GET_LOG_PAGE: u8 = 0x02;
const OPCODE_IDENTIFY: u8 = 0x06;
const OPCODE_DIM: u8 = 0x21;
/// Identify, Controller or Namespace Structure: the controller's own data structure.
const CNS_CONTROLLER: u32 = 0x01;
const IDENTIFY_SIZE: usize = 4096;
/// Fields of that structure: Maximum Data Transfer Size, Optional Asynchronous Events Supported, Controller Type, Discovery
/// Controller Type.
const MDTS: usize = 77;
const OAES: usize = 92;
const CNTRLTYPE: usize = 111;
const DCTYPE: usize = 1806;
/// OAES, byte 3: Discovery Log Page Change Notices.
const CHANGE_NOTICES: u8 = 1 << 7;
const CNTRLTYPE_DISCOVERY: u8 = 2;
const DCTYPE_DDC: u8 = 1;
const DCTYPE_CDC: u8 = 2;

/// A registration has to be answered within so many milliseconds. One that has not been is what the kernel resets the
/// controller for, so this is long; but whatever the controller lists has to wait for it.
const DIM_TIMEOUT: u32 = 15_000;

/// `struct nvme_passthru_cmd`.
#[derive(Default)]
#[repr(C)]
struct PassthruCommand {
    opcode: u8,
    flags: u8,
    rsvd1: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    /// 0: the kernel's default, 60 s.
    timeout_ms: u32,
    result: u32,
}

#[allow(unsafe_code)]
mod ioctl {
    nix::ioctl_readwrite!(admin_cmd, b'N', 0x41, super::PassthruCommand);
}

/// Reads the discovery log page of the controller behind `device`, an open `/dev/nvmeN`, whole and consistent; only the
/// entries of the port in use, if it can do that and is asked to.
pub fn read_discovery_log_page(device: impl AsFd, how: PageRequest) -> Result<Vec<u8>, Failure> {
    let device = device.as_fd();
    let largest = || match usize::try_from(how.piece) {
        Ok(piece @ SMALL_PIECE..=LARGE_PIECE) => piece,
        _ => identify(&device).map_or(SMALL_PIECE, |identity| piece_for(identity.mdts)),
    };
    let lsp = if how.port_local { LSP_PLEO } else { 0 };
    read_whole_page(largest, |offset, piece, rae| {
        get_log_page(&device, LogPageId { lid: discovery::LID, lsp }, offset, piece, rae)
    })
}

/// Whether the discovery log page can be asked for the entries of the port in use only.
pub fn supports_pleo(device: impl AsFd) -> Result<bool, Failure> {
    // What a controller does not send stays zero: not supported.
    let mut page = [0; supported::SIZE];
    get_log_page(&device, LogPageId { lid: supported::LID, lsp: 0 }, 0, &mut page, true)?;
    Ok(SupportedLogPages::new(&page).is_some_and(SupportedLogPages::has_pleo))
}

/// What Identify Controller says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    mdts: u8,
    cntrltype: u8,
    dctype: u8,
    /// It tells when its discovery log page changes.
    pub notices: bool,
}

impl Identity {
    fn new(bytes: &[u8]) -> Identity {
        let field = |at: usize| bytes.get(at).copied().unwrap_or_default();
        Identity {
            mdts: field(MDTS),
            cntrltype: field(CNTRLTYPE),
            dctype: field(DCTYPE),
            notices: field(OAES + 3) & CHANGE_NOTICES != 0,
        }
    }

    /// Whether hosts can register with it: what says of which type it is knows of that (TP8010).
    pub fn takes_registrations(&self) -> bool {
        self.cntrltype == CNTRLTYPE_DISCOVERY && matches!(self.dctype, DCTYPE_DDC | DCTYPE_CDC)
    }

    pub fn is_central(&self) -> bool {
        self.dctype == DCTYPE_CDC
    }

    /// So many bytes one command may ask for.
    pub fn piece(&self) -> u32 {
        u32::try_from(piece_for(self.mdts)).unwrap_or_default()
    }
}

/// Asks a controller what it is (Identify Controller).
///
/// # Errors
/// When it does not answer, or refuses.
pub fn identify(device: &impl AsFd) -> Result<Identity, Failure> {
    let mut bytes = vec![0; IDENTIFY_SIZE];
    let command = PassthruCommand { opcode: OPCODE_IDENTIFY, cdw10: CNS_CONTROLLER, ..PassthruCommand::default() };
    admin_command(device, &mut bytes, command)?;
    Ok(Identity::new(&bytes))
}

/// Registers this host with a discovery controller. A controller that does not answer is reset by the kernel:
/// [`Failure::Interrupted`].
pub fn register(device: impl AsFd, registration: dim::Registration<'_>) -> Result<(), Failure> {
    let cdw10 = dim::TASK_REGISTER;
    let command = PassthruCommand { opcode: OPCODE_DIM, cdw10, timeout_ms: DIM_TIMEOUT, ..PassthruCommand::default() };
    admin_command(&device, &mut registration.to_bytes(), command)
}

/// `read_page`, and whatever comes of it, the asynchronous event is cleared if the controller still answers: it would not
/// tell of the next change otherwise, by which its page may be a good one again.
pub fn read_whole_page(
    largest: impl Fn() -> usize,
    mut get: impl FnMut(u64, &mut [u8], bool) -> Result<(), Failure>,
) -> Result<Vec<u8>, Failure> {
    let outcome = read_page(largest, &mut get);
    if let Err(Failure::BadPage(_) | Failure::NvmeStatus(_)) = outcome {
        let mut header = vec![0; HEADER_SIZE];
        // What is wrong has been found out already.
        let _ = get(0, &mut header, false);
    }
    outcome
}

/// The most that one command may ask a controller for: 2^MDTS pages, and no limit where MDTS is 0. The page size is not known
/// here, but is 4 KiB at least.
fn piece_for(mdts: u8) -> usize {
    match mdts {
        0 => LARGE_PIECE,
        mdts => SMALL_PIECE.checked_shl(mdts.into()).filter(|size| *size > 0).unwrap_or(LARGE_PIECE).min(LARGE_PIECE),
    }
}

/// Which log page, and what of it.
#[derive(Debug, Clone, Copy)]
struct LogPageId {
    lid: u8,
    /// Log specific parameter, 7 bits.
    lsp: u8,
}

/// One Get Log Page command. `offset` and the length of `piece` are multiples of 4 bytes. `rae` (Retain Asynchronous Event)
/// set leaves the event that announced the change in place; cleared, it allows the next one.
fn get_log_page(device: &impl AsFd, id: LogPageId, offset: u64, piece: &mut [u8], rae: bool) -> Result<(), Failure> {
    let numd = u32::try_from(piece.len() / 4).unwrap_or(u32::MAX).saturating_sub(1);
    let command = PassthruCommand {
        opcode: OPCODE_GET_LOG_PAGE,
        cdw10: numd << 16 | u32::from(rae) << 15 | u32::from(id.lsp) << 8 | u32::from(id.lid),
        cdw11: numd >> 16,
        cdw12: offset as u32,
        cdw13: (offset >> 32) as u32,
        ..PassthruCommand::default()
    };
    admin_command(device, piece, command)
}

/// One admin command that fills `data` or sends it, as its opcode says.
fn admin_command(device: &impl AsFd, data: &mut [u8], command: PassthruCommand) -> Result<(), Failure> {
    let data_len = u32::try_from(data.len()).map_err(|_| Failure::Errno(Errno::EINVAL as i32))?;
    let addr = data.as_mut_ptr().expose_provenance() as u64;
    let mut command = PassthruCommand { addr, data_len, ..command };
    // SAFETY: `command` is laid out as the kernel's struct, and `addr` with `data_len` is the exclusively borrowed `data`,
    // the only memory that the kernel writes to besides `command` itself.
    #[allow(unsafe_code)]
    let result = unsafe { ioctl::admin_cmd(device.as_fd().as_raw_fd(), &mut command) };
    match result {
        Ok(0) => Ok(()),
        // The kernel's own statuses for a command that it could not get through, or had to give up.
        Ok(HOST_PATH_ERROR | HOST_ABORTED) => Err(Failure::NotReady),
        // It returns the 15-bit status field here, errnos as -1.
        Ok(status) => Err(Failure::NvmeStatus(status as u16)),
        Err(Errno::EINTR) => Err(Failure::Interrupted),
        Err(Errno::EAGAIN) => Err(Failure::NotReady),
        Err(Errno::ENODEV | Errno::ENXIO) => Err(Failure::Gone),
        Err(errno) => Err(errno.into()),
    }
}

/// Reads a whole discovery log page by `get(offset, piece, rae)`: the header, and then all of it at once, which is consistent by
/// itself. If it is too large for that: the header, entries in pieces, the header again. From the start when it is another page
/// by then. How much a piece may be at most is asked (`largest`) when the page is large.
///
/// Only the last command clears the asynchronous event, so that a change that happens while we read is announced again. The
/// result is a page that [`discovery::LogPage::new`] accepts.
fn read_page(
    largest: impl Fn() -> usize,
    mut get: impl FnMut(u64, &mut [u8], bool) -> Result<(), Failure>,
) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    for _ in 0..ATTEMPTS {
        let (generation, size) = read_header(&mut get, &mut page, true)?;
        let step = if size > SMALL_PIECE { largest() } else { SMALL_PIECE };
        if size <= step {
            page.resize(size, 0);
            fetch(&mut get, 0, &mut page, false)?;
            if size_of_page(&page)? == size {
                check_filled(&page)?;
                return Ok(page);
            }
            continue;
        }
        // Reserved at once, so that nothing is copied later; used only as far as the controller keeps its claim.
        let rest = size.saturating_sub(page.len());
        page.reserve_exact(rest);
        while page.len() < size {
            let offset = page.len();
            page.resize(size.min(offset + step), 0);
            fetch(&mut get, offset, page.get_mut(offset..).unwrap_or_default(), true)?;
        }
        let mut after = Vec::new();
        if read_header(&mut get, &mut after, false)? == (generation, size) {
            check_filled(&page)?;
            return Ok(page);
        }
    }
    Err(Failure::Inconsistent { attempts: ATTEMPTS })
}

/// A controller whose page ends before its claim may fill up with zeros. What it did not say must not count as withdrawn.
fn check_filled(page: &[u8]) -> Result<(), Failure> {
    let view = LogPage::new(page).map_err(|error| Failure::BadPage(error.to_string()))?;
    match view.entries().iter().position(Entry::is_blank) {
        Some(number) => Err(Failure::BadPage(format!(
            "discovery log page claims {} entries, but entry {number} is blank",
            view.numrec()
        ))),
        None => Ok(()),
    }
}

/// Replaces `page` by the header alone; returns generation counter and size of the whole page.
fn read_header(
    get: &mut impl FnMut(u64, &mut [u8], bool) -> Result<(), Failure>,
    page: &mut Vec<u8>,
    rae: bool,
) -> Result<(u64, usize), Failure> {
    page.clear();
    page.resize(HEADER_SIZE, 0);
    fetch(get, 0, page, rae)?;
    let header = Header::new(page).map_err(|error| Failure::BadPage(error.to_string()))?;
    Ok((header.genctr(), header.page_size()))
}

fn size_of_page(page: &[u8]) -> Result<usize, Failure> {
    Header::new(page).map(Header::page_size).map_err(|error| Failure::BadPage(error.to_string()))
}

/// Fills `piece`, or fails.
fn fetch(
    get: &mut impl FnMut(u64, &mut [u8], bool) -> Result<(), Failure>,
    offset: usize,
    piece: &mut [u8],
    rae: bool,
) -> Result<(), Failure> {
    let [untouched, ..] = UNTOUCHED;
    piece.fill(untouched);
    get(offset as u64, piece, rae)?;
    if piece.ends_with(&UNTOUCHED) {
        let why = format!(
            "the controller sent less than the {} bytes of discovery log page asked for at {offset}",
            piece.len()
        );
        return Err(Failure::BadPage(why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A controller with so many entries; entry i is filled with i + 1.
    fn page(genctr: u64, entries: u8) -> Vec<u8> {
        let mut page = vec![0; 1024];
        page[..8].copy_from_slice(&genctr.to_le_bytes());
        page[8] = entries;
        page.extend((1..=entries).flat_map(|i| [i; 1024]));
        page
    }

    fn copy(page: &[u8], offset: u64, piece: &mut [u8]) {
        piece.copy_from_slice(&page[offset as usize..][..piece.len()]);
    }

    #[test]
    fn the_kernels_struct_has_72_bytes() {
        assert_eq!(size_of::<PassthruCommand>(), 72);
    }

    #[test]
    fn the_controller_says_how_much_a_piece_may_be() {
        let pieces = [0, 1, 2, 5, 6, 7, 51, 52, 255].map(piece_for);
        let k = 1024;
        assert_eq!(pieces, [256 * k, 8 * k, 16 * k, 128 * k, 256 * k, 256 * k, 256 * k, 256 * k, 256 * k]);
    }

    #[test]
    fn identify_tells_what_kind_of_controller_it_is() {
        let identity = |cntrltype, dctype, oaes: u32| {
            let mut bytes = vec![0; 4096];
            (bytes[111], bytes[1806]) = (cntrltype, dctype);
            bytes[92..96].copy_from_slice(&oaes.to_le_bytes());
            let identity = Identity::new(&bytes);
            (identity.takes_registrations(), identity.is_central(), identity.notices)
        };
        assert_eq!(identity(2, 0, 1 << 31), (false, false, true));
        assert_eq!(identity(2, 1, 0x7fff_ffff), (true, false, false));
        assert_eq!(identity(2, 2, 0), (true, true, false));
        assert_eq!(identity(1, 1, 0), (false, false, false));
        assert_eq!(identity(2, 3, 0), (false, false, false));
    }

    #[test]
    fn a_large_page_is_read_in_large_pieces() {
        let source = page(7, 20);
        let mut lengths = Vec::new();
        let get = |offset, piece: &mut [u8], _| {
            lengths.push(piece.len());
            copy(&source, offset, piece);
            Ok(())
        };
        assert_eq!(read_whole_page(|| 16384, get), Ok(source.clone()));
        assert_eq!(lengths, [1024, 16384, 4096, 1024]);
    }

    #[test]
    fn a_page_is_read_in_pieces_and_checked_at_the_end() {
        let source = page(7, 9);
        let mut commands = Vec::new();
        let read = read_whole_page(
            || SMALL_PIECE,
            |offset, piece, rae| {
                commands.push((offset, piece.len(), rae));
                copy(&source, offset, piece);
                Ok(())
            },
        );
        assert_eq!(read.unwrap(), source);
        let expected = [(0, 1024, true), (1024, 4096, true), (5120, 4096, true), (9216, 1024, true), (0, 1024, false)];
        assert_eq!(commands, expected);
    }

    #[test]
    fn a_page_that_changes_meanwhile_is_read_again() {
        let (old, new) = (page(7, 9), page(8, 9));
        let mut commands = 0;
        let read = read_whole_page(
            || SMALL_PIECE,
            |offset, piece, _| {
                commands += 1;
                copy(if commands <= 2 { &old } else { &new }, offset, piece);
                Ok(())
            },
        );
        assert_eq!(read.unwrap(), new);
        assert_eq!(commands, 10);
    }

    #[test]
    fn the_same_generation_with_another_number_of_entries_is_another_page() {
        let mut commands = 0;
        let read = read_whole_page(
            || SMALL_PIECE,
            |offset, piece, _| {
                commands += 1;
                copy(&page(7, if commands == 1 { 1 } else { 2 }), offset, piece);
                Ok(())
            },
        );
        assert_eq!(read.unwrap(), page(7, 2));
    }

    #[test]
    fn a_page_that_never_rests_is_given_up() {
        let mut generation = 0;
        let read = read_whole_page(
            || SMALL_PIECE,
            |offset, piece, _| {
                generation += 1;
                copy(&page(generation, 9), offset, piece);
                Ok(())
            },
        );
        assert_eq!(read, Err(Failure::Inconsistent { attempts: 8 }));
        assert_eq!(generation, 8 * 5);
    }

    #[test]
    fn a_page_that_came_only_in_part_is_no_page() {
        for present in [0, 512, 1024, 2048, 9 * 1024] {
            let mut source = page(7, 9);
            let read = read_whole_page(
                || SMALL_PIECE,
                |offset, piece, _| {
                    let end = source.len().min(present);
                    let from = (offset as usize).min(end);
                    let part = &mut source[from..end];
                    let len = part.len().min(piece.len());
                    piece[..len].copy_from_slice(&part[..len]);
                    Ok(())
                },
            );
            assert!(matches!(read, Err(Failure::BadPage(_))), "{present}: {read:?}");
        }
    }

    #[test]
    fn failures_and_wild_claims_end_the_reading() {
        assert_eq!(
            read_whole_page(|| SMALL_PIECE, |_, _, _| Err(Failure::NvmeStatus(0x4002))),
            Err(Failure::NvmeStatus(0x4002))
        );
        let mut events_retained = Vec::new();
        let read = read_whole_page(
            || SMALL_PIECE,
            |_, piece, rae| {
                events_retained.push(rae);
                piece.fill(0);
                piece[8..16].fill(0xff);
                Ok(())
            },
        );
        assert!(matches!(read, Err(Failure::BadPage(_))));
        assert_eq!(events_retained, [true, false]);
    }

    #[test]
    fn a_page_that_is_filled_up_with_zeros_is_refused() {
        let mut source = page(7, 3);
        source[3072..].fill(0);
        let read = read_whole_page(
            || SMALL_PIECE,
            |offset, piece, _| {
                copy(&source, offset, piece);
                Ok(())
            },
        );
        let why = "discovery log page claims 3 entries, but entry 2 is blank";
        assert_eq!(read, Err(Failure::BadPage(why.to_owned())));
    }
}
