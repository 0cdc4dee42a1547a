//! Discovery log pages as the finder keeps them, and what their entries mean as paths.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::core::terms::{Listing, Terms};
use crate::core::tid::{NQN_MAX, Spelling, Transport, TransportId, is_usable_address};
use crate::wire::discovery::{
    EFLAG_EPCSD, Entry, LogPage, PageError, SUBTYPE_CURRENT, SUBTYPE_NVME, SUBTYPE_REFERRAL, TRTYPE_FC, TRTYPE_LOOP,
    TRTYPE_RDMA, TRTYPE_TCP,
};

/// A whole log page, checked once.
#[derive(Clone, PartialEq, Eq)]
pub struct Page {
    bytes: Box<[u8]>,
}

impl Page {
    pub fn new(bytes: Box<[u8]>) -> Result<Page, PageError> {
        LogPage::new(&bytes)?;
        Ok(Page { bytes })
    }

    pub fn genctr(&self) -> u64 {
        LogPage::new(&self.bytes).map_or(0, |page| page.genctr())
    }

    pub fn entries(&self) -> &[Entry] {
        LogPage::new(&self.bytes).map_or(&[], |page| page.entries())
    }
}

impl Page {
    /// Whether the controller describes itself here, and does not claim to support lasting connections (EPCSD). It may do so
    /// once for each of its ports.
    pub fn declines_persistence(&self) -> bool {
        let mut its_own = self.entries().iter().filter(|entry| entry.subtype() == SUBTYPE_CURRENT).peekable();
        its_own.peek().is_some() && its_own.all(|entry| entry.eflags() & EFLAG_EPCSD == 0)
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Page {{ genctr: {}, entries: {} }}", self.genctr(), self.entries().len())
    }
}

/// A log page entry as the bus and the wire both have it: borrowed text and numbers.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// `None`: a transport that the Linux host cannot speak.
    pub transport: Option<Transport>,
    pub subtype: Subtype,
    pub traddr: &'a str,
    pub trsvcid: &'a str,
    pub subnqn: &'a str,
    /// `TREQ_*`.
    pub treq: u8,
    /// `EFLAG_*`.
    pub eflags: u16,
}

/// Discovery Log Page Entry, SUBTYPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subtype {
    Referral,
    Nvme,
    /// Describes the discovery controller itself, never a target.
    Current,
    Other(u8),
}

impl<'a> Listed<'a> {
    /// `Err` says what is wrong with the entry.
    pub fn from_wire(entry: &'a Entry) -> Result<Listed<'a>, String> {
        let text = |field: Option<&'a str>, name| field.ok_or_else(|| format!("{name} is not text"));
        Ok(Listed {
            transport: match entry.trtype() {
                TRTYPE_TCP => Some(Transport::Tcp),
                TRTYPE_RDMA => Some(Transport::Rdma),
                TRTYPE_FC => Some(Transport::Fc),
                TRTYPE_LOOP => Some(Transport::Loop),
                _ => None,
            },
            subtype: match entry.subtype() {
                SUBTYPE_REFERRAL => Subtype::Referral,
                SUBTYPE_NVME => Subtype::Nvme,
                SUBTYPE_CURRENT => Subtype::Current,
                other => Subtype::Other(other),
            },
            traddr: text(entry.traddr(), "traddr")?,
            trsvcid: text(entry.trsvcid(), "trsvcid")?,
            subnqn: text(entry.subnqn(), "subnqn")?,
            treq: entry.treq(),
            eflags: entry.eflags(),
        })
    }

    /// The path to the I/O controller that this entry stands for, seen from the discovery controller that lists it, whose
    /// interface, source address and host NQN it inherits. `Ok(None)`: not an I/O controller. `Err`: nonsense.
    pub fn path(&self, from: &TransportId) -> Result<Option<(TransportId, Terms)>, String> {
        match self.subtype {
            Subtype::Nvme => {}
            Subtype::Referral | Subtype::Current => return Ok(None),
            Subtype::Other(subtype) => return Err(format!("unknown subtype {subtype}")),
        }
        let transport = self.transport.ok_or("unknown transport type")?;
        if !is_usable_address(transport, self.traddr) {
            return Err(format!("{transport} address {:?} cannot be used", self.traddr));
        }
        if !is_nqn(self.subnqn) {
            return Err(format!("{:?} is not an NQN", self.subnqn));
        }
        if transport.is_ip() && !matches!(self.trsvcid.parse::<u16>(), Ok(1..)) {
            return Err(format!("{:?} is not a port", self.trsvcid));
        }
        let terms = Terms::new(transport, self.treq, self.eflags);
        Ok(Some((TransportId::new(transport, self.inherit(transport, from)), terms)))
    }

    fn inherit(&self, transport: Transport, from: &'a TransportId) -> Spelling<'a> {
        let same_fabric = transport.is_ip() == from.transport().is_ip();
        Spelling {
            traddr: self.traddr,
            trsvcid: if transport.is_ip() { self.trsvcid } else { "" },
            subsysnqn: self.subnqn,
            host_traddr: if same_fabric { from.host_traddr() } else { "" },
            host_iface: if transport == Transport::Tcp && same_fabric { from.host_iface() } else { "" },
            host_nqn: from.host_nqn(),
        }
    }
}

/// A name that may go to the kernel as a subsystem NQN.
pub fn is_nqn(text: &str) -> bool {
    text.starts_with("nqn.")
        && text.len() <= NQN_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// The I/O paths of a page, and what is wrong with its other entries.
pub fn paths(page: &Page, from: &TransportId) -> (Listing, BTreeSet<String>) {
    let mut paths = Listing::new();
    let mut complaints = BTreeSet::new();
    for entry in page.entries() {
        match Listed::from_wire(entry).and_then(|listed| listed.path(from)) {
            Ok(Some((path, terms))) => list(&mut paths, path, terms),
            Ok(None) => {}
            Err(why) => {
                complaints.insert(complaint(entry, &why));
            }
        }
    }
    (paths, complaints)
}

/// Adds a path, which may be there already.
pub fn list(paths: &mut Listing, path: TransportId, terms: Terms) {
    paths.entry(Rc::new(path)).and_modify(|listed| *listed = listed.and(terms)).or_insert(terms);
}

/// Names the entry by what it says, not by its number: one more entry in the page must not make news of all others.
fn complaint(entry: &Entry, why: &str) -> String {
    match (entry.subnqn().filter(|nqn| is_nqn(nqn)), entry.traddr()) {
        (Some(nqn), _) => format!("{nqn}: {why}"),
        (None, Some(traddr)) => format!("at {traddr:?}: {why}"),
        (None, None) => why.to_owned(),
    }
}
