//! Discovery log pages as the finder keeps them, and what their entries lead to: I/O controllers and other discovery
//! controllers.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::rc::Rc;

use crate::core::device::ControllerKind;
use crate::core::terms::{Listing, Terms};
use crate::core::tid::{Address, DISCOVERY_NQN, NQN_MAX, Transport, TransportId};
use crate::wire::discovery::{
    EFLAG_EPCSD, Entry, LogPage, PageError, SUBTYPE_CURRENT, SUBTYPE_NVME, SUBTYPE_REFERRAL, TRTYPE_FC, TRTYPE_LOOP,
    TRTYPE_RDMA, TRTYPE_TCP,
};

/// A whole log page, checked once.
#[derive(PartialEq, Eq)]
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
        let address = self.address(transport, from);
        if !address.is_usable() || address.is_link_local() && address.zone().is_none() {
            return Err(format!("{transport} address {:?} cannot be used", self.traddr));
        }
        if !is_nqn(subsysnqn) {
            return Err(format!("{subsysnqn:?} is not an NQN"));
        }
        if kind == ControllerKind::Io && subsysnqn == DISCOVERY_NQN {
            return Err("a discovery subsystem is no storage".to_owned());
        }
        let trsvcid = match transport.is_ip() {
            true if trsvcid.parse::<NonZeroU16>().is_err() => return Err(format!("{trsvcid:?} is not a port")),
            true => trsvcid,
            // Others have no ports, and sysfs shows none, whatever stands in the entry.
            false => "",
        };
        let host_traddr = if transport.is_ip() == from.transport().is_ip() { from.host_traddr() } else { "" };
        let way = from.way(host_traddr, inherited_iface(transport, from));
        Ok(Some((kind, TransportId::at_address(&address, trsvcid, subsysnqn, way))))
    }

    /// The address. A link-local one means something on one interface only, and who is not on this host cannot know its
    /// name: it is the one on which the discovery controller was reached.
    fn address(&self, transport: Transport, from: &'a TransportId) -> Address<'a> {
        let address = Address::new(transport, self.traddr);
        if !address.is_link_local() {
            return address;
        }
        match Address::new(from.transport(), from.traddr()).zone().unwrap_or(from.host_iface()) {
            "" => address,
            ours => address.in_zone(ours),
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

/// A name that may go to the kernel as a subsystem NQN.
pub fn is_nqn(text: &str) -> bool {
    text.starts_with("nqn.")
        && text.len() <= NQN_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// What one entry of a page leads to.
#[derive(Debug, Clone)]
enum Target {
    /// An I/O controller.
    Path(Rc<TransportId>, Terms),
    /// Another discovery controller.
    Referral(Rc<TransportId>),
    /// None but the discovery controller that lists it.
    Lister,
    /// What is wrong with it.
    Nonsense(Rc<str>),
}

impl Target {
    fn of(entry: &Entry, from: &TransportId) -> Target {
        let target = Listed::from_wire(entry).and_then(|listed| Target::of_listed(&listed, from));
        target.unwrap_or_else(|why| Target::Nonsense(complaint(entry, &why).into()))
    }

    fn of_listed(listed: &Listed<'_>, from: &TransportId) -> Result<Target, String> {
        Ok(match listed.target(from)? {
            Some((ControllerKind::Io, tid)) => {
                let terms = Terms::new(tid.transport(), listed.treq, listed.eflags);
                Target::Path(Rc::new(tid), terms)
            }
            Some((ControllerKind::Discovery, tid)) => Target::Referral(Rc::new(tid)),
            None => Target::Lister,
        })
    }
}

/// What the entries of a page lead to.
#[derive(Debug, Default)]
pub struct Contents {
    /// I/O controllers.
    pub paths: Rc<Listing>,
    /// Other discovery controllers.
    pub referrals: BTreeSet<Rc<TransportId>>,
    /// What is wrong with the rest.
    pub complaints: BTreeSet<Rc<str>>,
    /// Entry by entry; empty unless they are those of a [`Page`].
    targets: Vec<Target>,
}

impl Contents {
    pub fn of_page(page: &Page, from: &TransportId) -> Contents {
        Contents::of_targets(page.entries().iter().map(|entry| Target::of(entry, from)).collect())
    }

    /// The contents of the page that came after this one, `before`, from the same controller. No entry that was in that one is
    /// read again, wherever it is now.
    pub fn of_next_page(&self, before: &Page, page: &Page, from: &TransportId) -> Contents {
        let (old, new) = (before.entries(), page.entries());
        // Most often all but one are where they were.
        let is_kept = |place: usize| old.get(place).is_some_and(|old| new.get(place) == Some(old));
        let moved = old.iter().zip(&self.targets).enumerate().filter(|(place, _)| !is_kept(*place));
        let moved: BTreeMap<_, _> = moved.map(|(_, (entry, target))| (entry.as_bytes(), target)).collect();
        let known = |place| self.targets.get(place).filter(|_| is_kept(place));
        let target =
            |(place, entry): (usize, &Entry)| match known(place).or_else(|| moved.get(entry.as_bytes()).copied()) {
                Some(known) => known.clone(),
                None => Target::of(entry, from),
            };
        Contents::of_targets(new.iter().enumerate().map(target).collect())
    }

    fn of_targets(targets: Vec<Target>) -> Contents {
        let mut contents = Contents::default();
        let mut paths = Vec::with_capacity(targets.len());
        for target in &targets {
            match target {
                Target::Path(tid, terms) => paths.push((tid.clone(), *terms)),
                other => contents.take_in(other),
            }
        }
        // Sorted at once: pages mostly are, nearly.
        paths.sort_by(|(one, _), (other, _)| one.cmp(other));
        paths.dedup_by(|(tid, terms), (before, all)| {
            let is_same = tid == before;
            if is_same {
                *all = all.and(*terms);
            }
            is_same
        });
        Contents { targets, paths: Rc::new(paths.into_iter().collect()), ..contents }
    }

    /// Takes in an entry of a page of `from`; `Err` says what is wrong with it.
    pub fn add(&mut self, listed: &Listed<'_>, from: &TransportId) -> Result<(), String> {
        Target::of_listed(listed, from).map(|target| self.take_in(&target))
    }

    fn take_in(&mut self, target: &Target) {
        match target {
            Target::Path(tid, terms) => {
                // It may be there already.
                let paths = Rc::make_mut(&mut self.paths);
                paths.entry(tid.clone()).and_modify(|listed| *listed = listed.and(*terms)).or_insert(*terms);
            }
            Target::Referral(tid) => {
                self.referrals.insert(tid.clone());
            }
            Target::Lister => {}
            Target::Nonsense(complaint) => {
                self.complaints.insert(complaint.clone());
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tid::Spelling;

    fn page(entries: &[(&str, u8)]) -> Page {
        let mut bytes = vec![0; 1024];
        bytes[8..16].copy_from_slice(&(entries.len() as u64).to_le_bytes());
        for (nqn, treq) in entries {
            let mut record = [0; 1024];
            record[..4].copy_from_slice(&[3, 1, 2, *treq]);
            record[32..36].copy_from_slice(b"4420");
            record[256..][..nqn.len()].copy_from_slice(nqn.as_bytes());
            record[512..521].copy_from_slice(b"192.0.2.1");
            bytes.extend(record);
        }
        Page::new(bytes.into()).unwrap()
    }

    #[test]
    fn of_the_next_page_only_what_is_new_is_read() {
        let spelling = Spelling { traddr: "192.0.2.9", trsvcid: "8009", ..Spelling::default() };
        let from = TransportId::new(Transport::Tcp, spelling);
        let first = page(&[("nqn.a", 0), ("nqn.b", 0), ("nqn.c", 0), ("nonsense", 0), ("nqn.d", 0)]);
        let next = page(&[("nqn.a", 0), ("nqn.c", 0), ("nqn.x", 0), ("nqn.d", 1), ("nonsense", 0), ("nqn.b", 0)]);
        let before = Contents::of_page(&first, &from);
        let known = before.of_next_page(&first, &next, &from);
        let anew = Contents::of_page(&next, &from);
        assert_eq!(known.paths, anew.paths);
        assert_eq!((&known.complaints, known.complaints.len()), (&anew.complaints, 1));
        let is_known = |tid: &Rc<TransportId>| before.paths.keys().any(|before| Rc::ptr_eq(before, tid));
        let read: Vec<_> = known.paths.keys().filter(|tid| !is_known(tid)).map(|tid| tid.subsysnqn()).collect();
        assert_eq!(read, ["nqn.d", "nqn.x"]);
    }

    #[test]
    fn only_an_ip_transport_has_a_port() {
        let listed = |transport, traddr, trsvcid| {
            let spelling = Spelling { traddr, ..Spelling::default() };
            let entry = Listed {
                transport: Some(transport),
                subtype: Subtype::Nvme,
                traddr,
                trsvcid,
                subnqn: "nqn.a",
                treq: 0,
                eflags: 0,
            };
            let (_, tid) = entry.target(&TransportId::new(transport, spelling)).unwrap().unwrap();
            tid.trsvcid().to_owned()
        };
        assert_eq!(listed(Transport::Fc, "nn-0x10:pn-0x20", "none"), "");
        assert_eq!(listed(Transport::Loop, "", "4420"), "");
        assert_eq!(listed(Transport::Tcp, "192.0.2.1", "04420"), "4420");
    }
}
