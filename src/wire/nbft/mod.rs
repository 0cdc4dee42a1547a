//! The NVMe Boot Firmware Table: an ACPI table in which the firmware tells the system it starts how it reached its
//! disks.
//!
//! Layout and names: NVM Express Boot Specification, revision 1.0, "NVMe Boot Firmware Table (NBFT)", and what 1.1
//! added where 1.0 had reserved bytes (TP8029: reasons why a namespace was unavailable; DHCP client identifier); field
//! names as in libnvme's nbft.h. Minor revisions only add, so any minor revision of 1 is read.
//!
//! A table is a header, a control descriptor, lists of descriptors, and a heap to which the descriptors refer. What is
//! wrong with the frame costs the table ([`TableError`]). What is wrong with one descriptor costs that descriptor, and
//! where the part is not needed to connect, only that part ([`Damage`]). Nothing here judges whether an address makes
//! sense.
//!
//! Each kind of descriptor has a room with its view, made by a constructor that follows and checks every reference to
//! the heap; after it, no accessor can fail. A view of a descriptor whose valid bit is not set is `None`: it is
//! reserved.

mod discovery;
mod hfi;
mod host;
mod raw;
mod reader;
mod security;
mod ssns;

use std::fmt;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

pub use discovery::Discovery;
pub use hfi::{ClientId, Hfi};
pub use host::Host;
pub use security::Security;
pub use ssns::{Diagnostics, NIDT_EUI64, NIDT_NGUID, NIDT_UUID, Ssns};

use raw::{Control, Header, ListRef, RawDiscovery, RawHfi, RawHost, RawSecurity, RawSsns};
use reader::Heap;

/// Where a table begins.
pub const SIGNATURE: [u8; 4] = *b"NBFT";
/// The only major revision there is.
pub const MAJOR_REVISION: u8 = 1;

/// Structure ids.
const ID_CONTROL: u8 = 1;
const ID_HOST: u8 = 2;
const ID_HFI: u8 = 3;
const ID_SSNS: u8 = 4;
const ID_SECURITY: u8 = 5;
const ID_DISCOVERY: u8 = 6;
const ID_HFI_TRINFO: u8 = 7;
const ID_SSNS_EXT_INFO: u8 = 9;
const ID_HFI_EXT_INFO: u8 = 10;

/// The lowest bit of every descriptor's flags: it is valid, else reserved.
const VALID: u8 = 1;

/// The only transport: NVMe/TCP.
const TRTYPE_TCP: u8 = 3;

/// Bytes of the header and the control descriptor, which every table has.
pub const FRAME_SIZE: usize = size_of::<Header>() + size_of::<Control>();

/// Why some bytes are not a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableError {
    /// Fewer bytes than [`FRAME_SIZE`].
    Short {
        bytes: usize,
    },
    Signature,
    /// Its length is more than there is, or less than [`FRAME_SIZE`].
    Length {
        claimed: u32,
        bytes: usize,
    },
    /// All bytes do not sum up to 0.
    Checksum,
    /// Another major revision than [`MAJOR_REVISION`].
    Revision(u8),
    /// The heap is not inside the table.
    Heap,
    /// No control descriptor follows the header, or it is not valid.
    Control,
    /// A list of descriptors is not inside the table, or they are too short.
    List(Descriptor),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::Short { bytes } => write!(f, "{bytes} bytes are no NBFT, which has at least {FRAME_SIZE}"),
            TableError::Signature => write!(f, "it does not begin with NBFT"),
            TableError::Length { claimed, bytes } => {
                write!(f, "its length field says {claimed} bytes, and {bytes} are there")
            }
            TableError::Checksum => write!(f, "its checksum is wrong"),
            TableError::Revision(major) => write!(f, "its revision is {major}.x, only {MAJOR_REVISION}.x is known"),
            TableError::Heap => write!(f, "its heap lies outside of it"),
            TableError::Control => write!(f, "it has no valid control descriptor"),
            TableError::List(Descriptor::Host) => write!(f, "its host descriptor lies outside of it, or is too short"),
            TableError::List(kind) => write!(f, "its list of {kind} descriptors lies outside of it, or is too short"),
        }
    }
}

impl std::error::Error for TableError {}

/// The kinds of descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptor {
    Host,
    Hfi,
    Ssns,
    Security,
    Discovery,
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Descriptor::Host => "host",
            Descriptor::Hfi => "HFI",
            Descriptor::Ssns => "SSNS",
            Descriptor::Security => "security profile",
            Descriptor::Discovery => "discovery",
        })
    }
}

/// What is wrong with a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    pub descriptor: Descriptor,
    /// Its own index field; 0 for the host.
    pub index: u16,
    /// What it is about, for people.
    pub field: &'static str,
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    OutsideHeap,
    Missing,
    /// Not UTF-8, or with control characters.
    NotText,
    /// So many bytes, which cannot be.
    Length(usize),
    StructureId(u8),
    Transport(u8),
    /// Its valid bit is not set.
    NotValid,
    /// It says that it belongs to the descriptor of this index.
    Index(u16),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its {} ", self.field)?;
        match self.problem {
            Problem::OutsideHeap => write!(f, "lies outside of the heap"),
            Problem::Missing => write!(f, "is missing"),
            Problem::NotText => write!(f, "is no text"),
            Problem::Length(bytes) => write!(f, "cannot have {bytes} bytes"),
            Problem::StructureId(id) => write!(f, "has structure id {id}, which is not that of its place"),
            Problem::Transport(trtype) => write!(f, "is of transport type {trtype}, only TCP ({TRTYPE_TCP}) is known"),
            Problem::NotValid => write!(f, "is marked as not valid"),
            Problem::Index(index) => write!(f, "belongs to another descriptor, index {index}"),
        }
    }
}

/// Descriptors of one size, one after the other.
#[derive(Debug, Clone, Copy)]
struct List<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl<'a> List<'a> {
    fn new<T>(table: &'a [u8], place: &ListRef, kind: Descriptor) -> Result<List<'a>, TableError> {
        if place.count == 0 {
            return Ok(List { bytes: &[], size: 1 });
        }
        let size = usize::from(place.length.get());
        let bytes = usize::from(place.count).checked_mul(size).and_then(|length| at(table, place.offset, length));
        match bytes {
            Some(bytes) if size >= size_of::<T>() => Ok(List { bytes, size }),
            _ => Err(TableError::List(kind)),
        }
    }

    fn views<T: FromBytes + KnownLayout + Immutable + Unaligned + 'a>(self) -> impl Iterator<Item = &'a T> {
        self.bytes.chunks_exact(self.size).filter_map(|bytes| Some(T::ref_from_prefix(bytes).ok()?.0))
    }
}

fn at(table: &[u8], offset: U32, length: usize) -> Option<&[u8]> {
    let start = usize::try_from(offset.get()).ok()?;
    table.get(start..start.checked_add(length)?)
}

/// A table whose frame is sound.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    header: &'a Header,
    heap: Heap<'a>,
    host: &'a RawHost,
    hfis: List<'a>,
    ssns: List<'a>,
    security: List<'a>,
    discovery: List<'a>,
}

impl<'a> Table<'a> {
    /// Views a table; bytes beyond its length are ignored.
    pub fn new(bytes: &'a [u8]) -> Result<Table<'a>, TableError> {
        let short = TableError::Short { bytes: bytes.len() };
        let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| short)?;
        if header.signature != SIGNATURE {
            return Err(TableError::Signature);
        }
        let length = TableError::Length { claimed: header.length.get(), bytes: bytes.len() };
        let table = at(bytes, U32::ZERO, header.length.get() as usize).ok_or(length)?;
        let (_, rest) = Header::ref_from_prefix(table).map_err(|_| length)?;
        let (control, _) = Control::ref_from_prefix(rest).map_err(|_| length)?;
        if table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) != 0 {
            return Err(TableError::Checksum);
        }
        if header.major_revision != MAJOR_REVISION {
            return Err(TableError::Revision(header.major_revision));
        }
        let heap = heap(table, header).ok_or(TableError::Heap)?;
        if control.structure_id != ID_CONTROL || control.flags & VALID == 0 {
            return Err(TableError::Control);
        }
        let host = at(table, control.host.offset, usize::from(control.host.length.get()));
        let host = host.and_then(|bytes| RawHost::ref_from_prefix(bytes).ok());
        Ok(Table {
            header,
            heap,
            host: host.ok_or(TableError::List(Descriptor::Host))?.0,
            hfis: List::new::<RawHfi>(table, &control.hfis, Descriptor::Hfi)?,
            ssns: List::new::<RawSsns>(table, &control.ssns, Descriptor::Ssns)?,
            security: List::new::<RawSecurity>(table, &control.security, Descriptor::Security)?,
            discovery: List::new::<RawDiscovery>(table, &control.discovery, Descriptor::Discovery)?,
        })
    }

    /// Major and minor revision.
    pub fn revision(&self) -> (u8, u8) {
        (self.header.major_revision, self.header.minor_revision)
    }

    /// Bytes of the table.
    pub fn length(&self) -> usize {
        self.heap.table.len()
    }

    /// Who made it: OEM id and OEM table id, without padding; empty where it is no text.
    pub fn oem(&self) -> (&'a str, &'a str) {
        let text = |field: &'a [u8]| text(field).unwrap_or_default().trim_matches(' ');
        (text(&self.header.oem_id), text(&self.header.oem_table_id))
    }

    /// The host descriptor; `None` when it is marked as not valid.
    pub fn host(&self) -> Option<Result<Host<'a>, Damage>> {
        Host::new(self.host, self.heap)
    }

    /// The valid host fabric interfaces.
    pub fn hfis(&self) -> impl Iterator<Item = Result<Hfi<'a>, Damage>> {
        let heap = self.heap;
        self.hfis.views().filter_map(move |raw| Hfi::new(raw, heap))
    }

    /// The valid subsystem namespaces.
    pub fn ssns(&self) -> impl Iterator<Item = Result<Ssns<'a>, Damage>> {
        let heap = self.heap;
        self.ssns.views().filter_map(move |raw| Ssns::new(raw, heap))
    }

    /// The valid security profiles.
    pub fn security(&self) -> impl Iterator<Item = Result<Security<'a>, Damage>> {
        let heap = self.heap;
        self.security.views().filter_map(move |raw| Security::new(raw, heap))
    }

    /// The valid discovery controllers.
    pub fn discovery(&self) -> impl Iterator<Item = Result<Discovery<'a>, Damage>> {
        let heap = self.heap;
        self.discovery.views().filter_map(move |raw| Discovery::new(raw, heap))
    }
}

fn heap<'a>(table: &'a [u8], header: &Header) -> Option<Heap<'a>> {
    let length = usize::try_from(header.heap_length.get()).ok()?;
    if length == 0 {
        return Some(Heap { table, start: 0, end: 0 });
    }
    let start = usize::try_from(header.heap_offset.get()).ok()?;
    let end = start.checked_add(length).filter(|end| *end <= table.len())?;
    Some(Heap { table, start, end })
}

/// The text of a field, up to its first NUL: lengths do not count a terminator, though some firmware does. `None` when
/// it is no text and must not reach a log.
fn text(field: &[u8]) -> Option<&str> {
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = std::str::from_utf8(text).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
#[path = "../../../tests/build/nbft.rs"]
pub mod made;
#[cfg(test)]
mod tests;
