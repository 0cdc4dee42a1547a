//! The discovery log page (log page identifier 70h) of a discovery controller.
//!
//! Layout and names: NVM Express Base Specification, "Discovery Log Page" and "Discovery Log Page Entry"; the kernel's
//! `struct nvmf_disc_rsp_page_hdr` and `struct nvmf_disc_rsp_page_entry` in include/linux/nvme.h. The eflags and the
//! extended page come from TP8010 and TP8013. The extended page is never asked for; its entries have lengths of their own, so
//! one that comes all the same is refused.
//!
//! The page is what a machine on the network claims. Strings may lack a terminator, be padded with spaces or be no text at
//! all; numbers may be any number. Whether an entry makes sense for connecting is not judged here.

use std::ffi::CStr;
use std::fmt;

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Log page identifier.
pub const LID: u8 = 0x70;
/// Bit of the log specific parameter of Get Log Page: entries of the port in use only (PLEO).
pub const LSP_PLEO: u8 = 1 << 1;
/// Bytes of the page's header, and where the first entry begins.
pub const HEADER_SIZE: usize = size_of::<Header>();
/// Bytes of one entry.
pub const ENTRY_SIZE: usize = size_of::<Entry>();

/// The most entries that a page may have: 16 MiB of page. The largest fabrics that users report have a few thousand, while
/// numrec can claim 2^64 - 1; whoever allocates or loops by numrec is safe once it is below this bound.
pub const MAX_RECORDS: u64 = 16384;

pub const TRTYPE_RDMA: u8 = 1;
pub const TRTYPE_FC: u8 = 2;
pub const TRTYPE_TCP: u8 = 3;
pub const TRTYPE_LOOP: u8 = 254;

pub const ADRFAM_PCI: u8 = 0;
pub const ADRFAM_IPV4: u8 = 1;
pub const ADRFAM_IPV6: u8 = 2;
pub const ADRFAM_IB: u8 = 3;
pub const ADRFAM_FC: u8 = 4;
pub const ADRFAM_LOOP: u8 = 254;

/// Refers to another discovery subsystem.
pub const SUBTYPE_REFERRAL: u8 = 1;
/// An NVM subsystem: what I/O controllers belong to.
pub const SUBTYPE_NVME: u8 = 2;
/// The discovery subsystem that this page was read from.
pub const SUBTYPE_CURRENT: u8 = 3;

/// Bits of treq that tell whether a secure channel is wanted.
pub const TREQ_SECURE_CHANNEL_MASK: u8 = 0b011;
pub const TREQ_NOT_SPECIFIED: u8 = 0;
pub const TREQ_REQUIRED: u8 = 1;
pub const TREQ_NOT_REQUIRED: u8 = 2;
/// The controller can do without submission queue flow control.
pub const TREQ_DISABLE_SQFLOW: u8 = 0b100;

/// Duplicate Returned Information: the same page can be read at the other discovery controllers of this subsystem.
pub const EFLAG_DUPRETINFO: u16 = 1 << 0;
/// Explicit Persistent Connection Support for Discovery.
pub const EFLAG_EPCSD: u16 = 1 << 1;
/// Not Connected to CDC.
pub const EFLAG_NCC: u16 = 1 << 2;

/// tsas of TCP, byte 0: the security type.
pub const SECTYPE_NONE: u8 = 0;
pub const SECTYPE_TLS12: u8 = 1;
pub const SECTYPE_TLS13: u8 = 2;

/// Bit of DLPF: the entries are extended ones.
const DLPF_EXTENDED: u8 = 1 << 0;

/// Why some bytes are not a discovery log page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageError {
    /// Fewer bytes than the header has.
    NoHeader { bytes: usize },
    /// A record format that nobody has defined yet.
    RecordFormat(u16),
    /// Entries of another kind than was asked for.
    Extended,
    /// numrec beyond [`MAX_RECORDS`].
    TooManyRecords(u64),
    /// Fewer bytes than numrec entries need.
    Short { numrec: u64, bytes: usize },
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PageError::NoHeader { bytes } => {
                write!(f, "discovery log page of {bytes} bytes is shorter than its {HEADER_SIZE}-byte header")
            }
            PageError::RecordFormat(recfmt) => {
                write!(f, "discovery log page has record format {recfmt}, only format 0 is known")
            }
            PageError::Extended => f.write_str("discovery log page has extended entries, which were not asked for"),
            PageError::TooManyRecords(numrec) => {
                write!(f, "discovery log page claims {numrec} entries, at most {MAX_RECORDS} are accepted")
            }
            PageError::Short { numrec, bytes } => {
                write!(f, "discovery log page claims {numrec} entries, but is only {bytes} bytes long")
            }
        }
    }
}

impl std::error::Error for PageError {}

/// The first 1024 bytes of the page. A header that [`Header::new`] returned has a known record format and a numrec of at
/// most [`MAX_RECORDS`].
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    genctr: U64,
    numrec: U64,
    recfmt: U16,
    dlpf: u8,
    reserved: [u8; 1005],
}

impl Header {
    /// Views the header at the start of `bytes`, which need not hold any entry yet.
    pub fn new(bytes: &[u8]) -> Result<&Header, PageError> {
        let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| PageError::NoHeader { bytes: bytes.len() })?;
        if header.recfmt.get() != 0 {
            return Err(PageError::RecordFormat(header.recfmt.get()));
        }
        if header.dlpf & DLPF_EXTENDED != 0 {
            return Err(PageError::Extended);
        }
        if header.numrec() > MAX_RECORDS {
            return Err(PageError::TooManyRecords(header.numrec()));
        }
        Ok(header)
    }

    /// The generation counter: changes whenever the page does.
    pub fn genctr(&self) -> u64 {
        self.genctr.get()
    }

    /// The number of entries.
    pub fn numrec(&self) -> u64 {
        self.numrec.get()
    }

    /// Bytes of the whole page, header included.
    pub fn page_size(&self) -> usize {
        // numrec is bounded, so this neither truncates nor overflows, not even on a 32-bit machine.
        HEADER_SIZE + self.numrec() as usize * ENTRY_SIZE
    }
}

/// A whole page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPage<'a> {
    header: &'a Header,
    entries: &'a [Entry],
}

impl<'a> LogPage<'a> {
    /// Views a page; bytes beyond its last entry are ignored.
    pub fn new(bytes: &'a [u8]) -> Result<LogPage<'a>, PageError> {
        let header = Header::new(bytes)?;
        let short = PageError::Short { numrec: header.numrec(), bytes: bytes.len() };
        let entries = bytes.get(HEADER_SIZE..header.page_size()).ok_or(short)?;
        let entries = <[Entry]>::ref_from_bytes(entries).map_err(|_| short)?;
        Ok(LogPage { header, entries })
    }

    pub fn genctr(&self) -> u64 {
        self.header.genctr()
    }

    pub fn numrec(&self) -> u64 {
        self.header.numrec()
    }

    pub fn entries(&self) -> &'a [Entry] {
        self.entries
    }
}

/// One entry of the page. Entries are equal when all their bytes are.
#[derive(Debug, Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Entry {
    trtype: u8,
    adrfam: u8,
    subtype: u8,
    treq: u8,
    portid: U16,
    cntlid: U16,
    asqsz: U16,
    eflags: U16,
    reserved12: [u8; 20],
    trsvcid: [u8; 32],
    reserved64: [u8; 192],
    subnqn: [u8; 256],
    traddr: [u8; 256],
    tsas: [u8; 256],
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Entry {}

impl Entry {
    pub fn as_bytes(&self) -> &[u8] {
        IntoBytes::as_bytes(self)
    }

    /// Whether nothing was written here: all fields have values that stand for nothing.
    pub fn is_blank(&self) -> bool {
        self.as_bytes().iter().all(|byte| *byte == 0)
    }

    /// Transport type, `TRTYPE_*`.
    pub fn trtype(&self) -> u8 {
        self.trtype
    }

    /// Address family, `ADRFAM_*`.
    pub fn adrfam(&self) -> u8 {
        self.adrfam
    }

    /// Subsystem type, `SUBTYPE_*`.
    pub fn subtype(&self) -> u8 {
        self.subtype
    }

    /// Transport requirements, `TREQ_*`.
    pub fn treq(&self) -> u8 {
        self.treq
    }

    /// Port of the NVM subsystem.
    pub fn portid(&self) -> u16 {
        self.portid.get()
    }

    /// Controller ID; FFFFh is the dynamic model, FFFEh the static one.
    pub fn cntlid(&self) -> u16 {
        self.cntlid.get()
    }

    /// Admin Max SQ Size in entries.
    pub fn asqsz(&self) -> u16 {
        self.asqsz.get()
    }

    /// Entry flags, `EFLAG_*`.
    pub fn eflags(&self) -> u16 {
        self.eflags.get()
    }

    /// Transport service id (the port of an IP transport), without padding; `None` when the field is no text.
    pub fn trsvcid(&self) -> Option<&str> {
        text(&self.trsvcid)
    }

    /// NQN of the subsystem, without padding; `None` when the field is no text.
    pub fn subnqn(&self) -> Option<&str> {
        text(&self.subnqn)
    }

    /// Transport address, without padding; `None` when the field is no text.
    pub fn traddr(&self) -> Option<&str> {
        text(&self.traddr)
    }

    /// Security type, `SECTYPE_*`: the first byte of tsas. Means something for TCP only.
    pub fn sectype(&self) -> u8 {
        let [sectype, ..] = self.tsas;
        sectype
    }
}

/// The text in a fixed-width field: up to the first NUL or the field's end, without spaces around it. An empty field is
/// `Some("")`; one with control characters, or that is not UTF-8, is `None`: it is no text and must not reach a log.
fn text(field: &[u8]) -> Option<&str> {
    // Nearly always ASCII, which takes no decoding.
    let ascii = field.iter().position(|byte| !matches!(byte, b' '..=b'~')).unwrap_or(field.len());
    let text = match field.split_at_checked(ascii)? {
        (text, [] | [0, ..]) => std::str::from_utf8(text).ok()?,
        _ => {
            let bytes = CStr::from_bytes_until_nul(field).map_or(field, CStr::to_bytes);
            std::str::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control))?
        }
    };
    // There is no other white space left.
    Some(text.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(genctr: u64, numrec: u64, entries: &[[u8; 1024]]) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[0..8].copy_from_slice(&genctr.to_le_bytes());
        bytes[8..16].copy_from_slice(&numrec.to_le_bytes());
        bytes.extend(entries.concat());
        bytes
    }

    /// Numbers first, strings at their places, everything else zero.
    fn entry(numbers: [u8; 12], trsvcid: &[u8], subnqn: &[u8], traddr: &[u8], sectype: u8) -> [u8; 1024] {
        let mut bytes = [0; 1024];
        bytes[..12].copy_from_slice(&numbers);
        bytes[32..][..trsvcid.len()].copy_from_slice(trsvcid);
        bytes[256..][..subnqn.len()].copy_from_slice(subnqn);
        bytes[512..][..traddr.len()].copy_from_slice(traddr);
        bytes[768] = sectype;
        bytes
    }

    #[test]
    fn the_layout_is_the_specifications() {
        let bytes = page(
            0x0102,
            1,
            &[entry([3, 1, 2, 5, 0x34, 0x12, 0xff, 0xff, 32, 0, 6, 0], b"4420", b"nqn.x", b"192.0.2.1", 2)],
        );
        let page = LogPage::new(&bytes).unwrap();
        assert_eq!((page.genctr(), page.numrec()), (0x0102, 1));
        let [entry] = page.entries() else { panic!() };
        assert_eq!((entry.trtype(), entry.adrfam(), entry.subtype()), (TRTYPE_TCP, ADRFAM_IPV4, SUBTYPE_NVME));
        assert_eq!(entry.treq(), TREQ_REQUIRED | TREQ_DISABLE_SQFLOW);
        assert_eq!((entry.portid(), entry.cntlid(), entry.asqsz()), (0x1234, 0xffff, 32));
        assert_eq!(entry.eflags(), EFLAG_EPCSD | EFLAG_NCC);
        assert_eq!((entry.trsvcid(), entry.subnqn()), (Some("4420"), Some("nqn.x")));
        assert_eq!((entry.traddr(), entry.sectype()), (Some("192.0.2.1"), SECTYPE_TLS13));
    }

    #[test]
    fn a_page_may_be_empty_or_have_bytes_behind_it() {
        assert!(LogPage::new(&page(1, 0, &[])).unwrap().entries().is_empty());
        let bytes = page(1, 1, &[[0; 1024], [0xff; 1024]]);
        assert_eq!(LogPage::new(&bytes).unwrap().entries().len(), 1);
    }

    #[test]
    fn claims_that_cannot_be_followed_are_refused() {
        assert_eq!(LogPage::new(&[0; 1023]), Err(PageError::NoHeader { bytes: 1023 }));
        assert_eq!(LogPage::new(&page(1, u64::MAX, &[])), Err(PageError::TooManyRecords(u64::MAX)));
        assert_eq!(LogPage::new(&page(1, 2, &[[0; 1024]])), Err(PageError::Short { numrec: 2, bytes: 2048 }));
        let mut bytes = page(1, 0, &[]);
        bytes[16] = 1;
        assert_eq!(LogPage::new(&bytes), Err(PageError::RecordFormat(1)));
        bytes[16..19].copy_from_slice(&[0, 0, 1]);
        assert_eq!(LogPage::new(&bytes), Err(PageError::Extended));
        bytes[18] = 2;
        assert!(LogPage::new(&bytes).is_ok(), "the entries of the port in use only");
    }

    #[test]
    fn the_header_can_be_read_before_the_entries_are_there() {
        let header = page(7, MAX_RECORDS, &[]);
        assert_eq!(Header::new(&header).unwrap().page_size(), 1024 + 16384 * 1024);
    }

    #[test]
    fn strings_may_be_padded_unterminated_or_no_text() {
        let [full, padded] = [[b'x'; 256], [b' '; 256]];
        let bytes = page(1, 1, &[entry([0; 12], b"4420    ", &full, &padded, 0)]);
        let page_of_text = LogPage::new(&bytes).unwrap();
        let entry_of_text = &page_of_text.entries()[0];
        assert_eq!(entry_of_text.trsvcid(), Some("4420"));
        assert_eq!(entry_of_text.subnqn().map(str::len), Some(256));
        assert_eq!(entry_of_text.traddr(), Some(""));

        let bytes = page(1, 1, &[entry([0xff; 12], &[0xff; 32], b"nqn\n.x", b"1\x1b[2J", 0xff)]);
        let entry = &LogPage::new(&bytes).unwrap().entries()[0];
        assert_eq!((entry.trsvcid(), entry.subnqn(), entry.traddr()), (None, None, None));
    }

    #[test]
    fn an_entry_of_zeros_is_blank() {
        let bytes = page(1, 2, &[[0; 1024], entry([0; 12], b"", b"", b"", 1)]);
        let blank: Vec<bool> = LogPage::new(&bytes).unwrap().entries().iter().map(Entry::is_blank).collect();
        assert_eq!(blank, [true, false]);
    }

    #[test]
    fn what_follows_the_terminator_does_not_count() {
        assert_eq!(text(b"nqn.x\0\xff\n"), Some("nqn.x"));
        assert_eq!(text(b"nqn.x \0"), Some("nqn.x"));
    }
}
