//! Discovery log pages as the finder keeps them, and what their entries lead to: I/O controllers and other discovery
//! controllers.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;

use crate::core::device::ControllerKind;
use crate::core::terms::{Listing, Terms};
use crate::core::tid::{DISCOVERY_NQN, NQN_MAX, Spelling, Transport, TransportId, is_usable_address, parse_ip};
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

    /// Whether the controller describes itself here, and does not claim to support lasting connections (EPCSD). It may
    /// do so once for each of its ports.
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

    /// The controller that this entry stands for, seen from the discovery controller that lists it, whose interface,
    /// source address and host NQN it inherits. `Ok(None)`: none but that one itself. `Err`: nonsense.
    pub fn target(&self, from: &TransportId) -> Result<Option<(ControllerKind, TransportId)>, String> {
        let kind = match self.subtype {
            Subtype::Nvme => ControllerKind::Io,
            Subtype::Referral => ControllerKind::Discovery,
            Subtype::Current => return Ok(None),
            Subtype::Other(subtype) => return Err(format!("unknown subtype {subtype}")),
        };
        let transport = self.transport.ok_or("unknown transport type")?;
        let (trsvcid, subsysnqn) = match kind {
            ControllerKind::Io => (self.trsvcid, self.subnqn),
            // There is one port and one name that every discovery controller has.
            ControllerKind::Discovery => {
                let or = |given: &'a str, known| if given.is_empty() { known } else { given };
                (or(self.trsvcid, transport.default_discovery_trsvcid()), or(self.subnqn, DISCOVERY_NQN))
            }
        };
        let traddr = self.zoned(from);
        if !is_usable_address(transport, &traddr) || is_ambiguous(transport, &traddr) {
            return Err(format!("{transport} address {:?} cannot be used", self.traddr));
        }
        if !is_nqn(subsysnqn) {
            return Err(format!("{subsysnqn:?} is not an NQN"));
        }
        if kind == ControllerKind::Io && subsysnqn == DISCOVERY_NQN {
            return Err("a discovery subsystem is no storage".to_owned());
        }
        if transport.is_ip() && !matches!(trsvcid.parse::<u16>(), Ok(1..)) {
            return Err(format!("{trsvcid:?} is not a port"));
        }
        let spelling = Spelling {
            traddr: &traddr,
            trsvcid: if transport.is_ip() { trsvcid } else { "" },
            subsysnqn,
            host_traddr: if transport.is_ip() == from.transport().is_ip() { from.host_traddr() } else { "" },
            host_iface: inherited_iface(transport, from),
            host_nqn: from.host_nqn(),
        };
        Ok(Some((kind, TransportId::new(transport, spelling))))
    }

    /// The address. A link-local one means something on one interface only, and who is not on this host cannot know its
    /// name: it is the one on which the discovery controller was reached.
    fn zoned(&self, from: &'a TransportId) -> Cow<'a, str> {
        let ours = parse_ip(from.traddr()).and_then(|(_, zone)| zone).unwrap_or(from.host_iface());
        match parse_ip(self.traddr) {
            Some((IpAddr::V6(ip), _)) if ip.is_unicast_link_local() && !ours.is_empty() => {
                format!("{ip}%{ours}").into()
            }
            _ => self.traddr.into(),
        }
    }
}

/// The interface that a controller is bound to for having been listed by this one.
pub fn inherited_iface(transport: Transport, from: &TransportId) -> &str {
    match (transport, from.transport()) {
        (Transport::Tcp, Transport::Tcp | Transport::Rdma) => from.host_iface(),
        _ => "",
    }
}

/// Link-local, and nobody knows on which interface.
fn is_ambiguous(transport: Transport, traddr: &str) -> bool {
    transport.is_ip() && matches!(parse_ip(traddr), Some((IpAddr::V6(ip), None)) if ip.is_unicast_link_local())
}

/// A name that may go to the kernel as a subsystem NQN.
pub fn is_nqn(text: &str) -> bool {
    text.starts_with("nqn.")
        && text.len() <= NQN_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// What the entries of a page lead to.
#[derive(Debug, Default)]
pub struct Contents {
    /// I/O controllers.
    pub paths: Listing,
    /// Other discovery controllers.
    pub referrals: BTreeSet<Rc<TransportId>>,
    /// What is wrong with the rest.
    pub complaints: BTreeSet<String>,
}

impl Contents {
    pub fn of_page(page: &Page, from: &TransportId) -> Contents {
        let mut contents = Contents::default();
        for entry in page.entries() {
            if let Err(why) = Listed::from_wire(entry).and_then(|listed| contents.add(&listed, from)) {
                contents.complaints.insert(complaint(entry, &why));
            }
        }
        contents
    }

    /// Takes in an entry of a page of `from`; `Err` says what is wrong with it.
    pub fn add(&mut self, listed: &Listed<'_>, from: &TransportId) -> Result<(), String> {
        match listed.target(from)? {
            Some((ControllerKind::Io, tid)) => {
                // It may be there already.
                let terms = Terms::new(tid.transport(), listed.treq, listed.eflags);
                self.paths.entry(Rc::new(tid)).and_modify(|listed| *listed = listed.and(terms)).or_insert(terms);
            }
            Some((ControllerKind::Discovery, tid)) => {
                self.referrals.insert(Rc::new(tid));
            }
            None => {}
        }
        Ok(())
    }
}

/// Names the entry by what it says, not by its number: one more entry in the page must not make news of all others.
fn complaint(entry: &Entry, why: &str) -> String {
    match (entry.subnqn().filter(|nqn| is_nqn(nqn)), entry.traddr()) {
        (Some(nqn), _) => format!("{nqn}: {why}"),
        (None, Some(traddr)) => format!("at {traddr:?}: {why}"),
        (None, None) => why.to_owned(),
    }
}
