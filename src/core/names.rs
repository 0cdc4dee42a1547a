//! Host names in the configuration: which addresses each has, and which of them a controller is wanted at.
//!
//! The finder and the connector know addresses only: before they see a configuration, the names in it are replaced, and
//! that is done again whenever a name or a link has news. A name without an address so far stands for itself, and
//! waits: it is listed, and it counts as a discovery controller that was not heard yet ([`evidence`](super::evidence)).
//!
//! - A name is resolved at each configuration, and again when what is behind its addresses fails or is lost. A name of
//!   several controllers is resolved once.
//! - Its addresses are tried in turn, those of the preferred family first; each has its own waits ([`Links`] keeps
//!   them). What the kernel is connected to already comes before all others.
//! - What is connected stays, whatever the name stands for by now. And a discovery controller that was connected stays
//!   wanted beside the one that is tried in its place, until a reload: that it was lost is no evidence against anything
//!   that it listed.
//! - A discovery controller that the configuration does not name any more stays until all names have an address: one of
//!   them may stand for it. For I/O controllers, [`succession`](super::succession) says who waits for whom.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use crate::core::backoff::BackOff;
use crate::core::deadlines::Deadlines;
use crate::core::device::ControllerKind;
use crate::core::links::{LinkId, Links};
use crate::core::note::Note;
use crate::core::policy::Policy;
use crate::core::tid::{Transport, TransportId, canonical_address, is_usable_address};
use crate::core::{Action, Ticket};

/// More addresses of a name are left out.
const MAX_ADDRESSES: usize = 32;

/// All names in the configuration, and who is called by them.
#[derive(Debug)]
pub struct Names {
    names: BTreeMap<Rc<str>, Name>,
    /// By the link with the name as its address.
    controllers: BTreeMap<LinkId, Named>,
    /// The controllers that an address is one of.
    by_address: BTreeMap<LinkId, BTreeSet<LinkId>>,
    asked: BTreeMap<Ticket, Rc<str>>,
    retries: Deadlines<Rc<str>>,
    backoff: BackOff,
    actions: VecDeque<Action>,
    /// The configuration means something else by now.
    changed: bool,
}

#[derive(Debug, Default)]
struct Name {
    /// Canonical, in the resolver's order.
    addresses: Vec<String>,
    is_asked: bool,
    /// Answers since a controller of this name was last connected.
    answers: u32,
    /// Failures are no reason to resolve it again before this.
    rests_until: Option<Instant>,
    /// The last failure that was reported.
    complaint: Option<String>,
    /// The answer that is awaited is one to a reload.
    reloads: bool,
}

/// A controller that the configuration calls by a name.
#[derive(Debug, Default)]
struct Named {
    /// It by its addresses, in the order in which they are tried.
    candidates: Vec<Rc<TransportId>>,
    /// The one that is wanted; `None`: the name has no address yet.
    current: Option<Rc<TransportId>>,
    /// Others that were connected, and stay wanted.
    kept: BTreeSet<Rc<TransportId>>,
}

impl Names {
    pub fn new(seed: u64) -> Names {
        Names {
            names: BTreeMap::new(),
            controllers: BTreeMap::new(),
            by_address: BTreeMap::new(),
            asked: BTreeMap::new(),
            retries: Deadlines::default(),
            backoff: BackOff::new(seed),
            actions: VecDeque::new(),
            changed: false,
        }
    }

    /// Takes a new configuration in force: all links that it has by name. All names are resolved anew.
    pub fn configure(&mut self, named: BTreeSet<LinkId>, links: &mut Links) {
        self.controllers.retain(|id, _| named.contains(id));
        let before = std::mem::take(&mut self.names);
        for name in before.keys() {
            self.retries.cancel(name);
        }
        let used: BTreeSet<&str> = named.iter().map(|id| id.tid.traddr()).collect();
        self.names = before.into_iter().filter(|(name, _)| used.contains(&**name)).collect();
        for id in named {
            let name: Rc<str> = id.tid.traddr().into();
            self.names.entry(name).or_default().reloads = true;
            self.controllers.entry(id).or_default();
        }
        self.hurry_all(links, |_| true);
    }

    /// Why a name has no (new) addresses.
    pub fn complaint(&self, name: &str) -> Option<&str> {
        self.names.get(name)?.complaint.as_deref()
    }

    /// The same settings with addresses in the place of names.
    pub fn expand(&mut self, now: Instant, kind: ControllerKind, mut policy: Policy, links: &Links) -> Policy {
        let of_kind = |id: &LinkId| id.kind == kind;
        self.by_address.retain(|id, _| !of_kind(id));
        let mut awaits_addresses = false;
        for (id, named) in self.controllers.iter_mut().filter(|(id, _)| of_kind(id)) {
            let name = self.names.get(id.tid.traddr());
            let addresses = name.map(|name| name.addresses.as_slice()).unwrap_or_default();
            named.candidates = policy.candidates(&id.tid, addresses).map(Rc::new).collect();
            named.choose(kind, &policy, links);
            awaits_addresses |= named.current.is_none();
            for tid in named.candidates.iter().chain(&named.current).chain(&named.kept) {
                let address = LinkId { kind, tid: tid.clone() };
                self.by_address.entry(address).or_default().insert(id.clone());
            }
        }
        policy.replace_names(|tid| {
            let named = self.controllers.get(&LinkId { kind, tid: Rc::new(tid.clone()) });
            let tids = named.into_iter().flat_map(|named| named.current.iter().chain(&named.kept));
            tids.map(|tid| tid.traddr().to_owned()).collect()
        });
        policy.set_awaits_addresses(awaits_addresses);
        self.complain_of_families(now, kind);
        policy
    }

    /// Names whose addresses are all of a family that is not to be used.
    fn complain_of_families(&mut self, now: Instant, kind: ControllerKind) {
        let useless = self.controllers.iter().filter(|(id, named)| id.kind == kind && named.current.is_none());
        let useless: BTreeSet<&str> = useless.map(|(id, _)| id.tid.traddr()).collect();
        let has_addresses = |name: &&str| self.names.get(*name).is_some_and(|name| !name.addresses.is_empty());
        let useless: Vec<Rc<str>> = useless.into_iter().filter(has_addresses).map(Rc::from).collect();
        for name in useless {
            if self.retries.get(&name).is_none() && self.names.get(&name).is_some_and(|name| !name.is_asked) {
                self.fail(now, name, "none of its addresses may be used by ip-family and exclude".to_owned());
            }
        }
    }

    /// Everything that a name may stand for: these links keep what they know while another is tried.
    pub fn alternates(&self) -> BTreeSet<LinkId> {
        self.by_address.keys().cloned().collect()
    }

    /// The answer to [`Action::Resolve`].
    pub fn resolved(&mut self, now: Instant, ticket: Ticket, outcome: Result<Vec<String>, String>) {
        let Some(name) = self.asked.remove(&ticket) else {
            return;
        };
        let Some(known) = self.names.get_mut(&name) else {
            return;
        };
        known.is_asked = false;
        known.answers = known.answers.saturating_add(1);
        known.rests_until = Some(now + self.backoff.delay(known.answers));
        let reloads = std::mem::take(&mut known.reloads);
        match outcome.map(usable) {
            Ok(addresses) if !addresses.is_empty() => {
                known.complaint = None;
                known.addresses = addresses;
                if reloads {
                    self.reload_kept(&name);
                }
                self.changed = true;
            }
            Ok(_) => self.fail(now, name, "it has no usable address".to_owned()),
            Err(why) => self.fail(now, name, why),
        }
    }

    /// After a reload, what the name no longer stands for is kept only where it is connected.
    fn reload_kept(&mut self, name: &str) {
        let addresses = self.names.get(name).map(|name| name.addresses.as_slice()).unwrap_or_default();
        for (_, named) in self.controllers.iter_mut().filter(|(id, _)| id.tid.traddr() == name) {
            named.kept.retain(|tid| addresses.iter().any(|address| address == tid.traddr()));
        }
    }

    /// It stays at what it was; where there is nothing to stay at, it is tried again by time.
    fn fail(&mut self, now: Instant, name: Rc<str>, why: String) {
        let retry_in = self.names.get(&name).map(|known| self.backoff.delay(known.answers));
        let waiting =
            self.controllers.iter().filter(|(id, named)| id.tid.traddr() == &*name && named.current.is_none());
        let waiting = waiting.count();
        let (Some(known), Some(retry_in)) = (self.names.get_mut(&name), retry_in) else {
            return;
        };
        if waiting > 0 {
            self.retries.set(name.clone(), now + retry_in);
        }
        if known.complaint.as_ref() != Some(&why) {
            known.complaint = Some(why.clone());
            self.actions.push_back(Action::Note(Note::Unresolved { name, why, waiting, retry_in }));
        }
    }

    // ---- what becomes of the links -------------------------------------------------------------------------------

    pub fn link_up(&mut self, id: &LinkId, links: &Links) {
        for of in self.by_address.get(id).cloned().unwrap_or_default() {
            let Some(named) = self.controllers.get_mut(&of) else {
                continue;
            };
            if id.kind == ControllerKind::Discovery {
                self.changed |= named.kept.insert(id.tid.clone());
            }
            let is_live = |tid: &Rc<TransportId>| links.is_live(&LinkId { kind: id.kind, tid: tid.clone() });
            if !named.current.as_ref().is_some_and(is_live) {
                named.current = Some(id.tid.clone());
                self.changed = true;
            }
            if let Some(name) = self.names.get_mut(of.tid.traddr()) {
                name.answers = 0;
                name.rests_until = None;
            }
        }
    }

    /// A connection was lost: the name may stand for something else by now.
    pub fn link_down(&mut self, now: Instant, id: &LinkId, links: &mut Links) {
        for of in self.by_address.get(id).cloned().unwrap_or_default() {
            self.changed = true;
            self.ask(now, of.tid.traddr().into(), links);
        }
    }

    /// What is tried did not work: the next address is. When all have been, the name may stand for others by now.
    pub fn link_failed(&mut self, now: Instant, id: &LinkId, links: &mut Links) {
        for of in self.by_address.get(id).cloned().unwrap_or_default() {
            let Some(named) = self.controllers.get_mut(&of).filter(|named| named.current.as_ref() == Some(&id.tid))
            else {
                continue;
            };
            let place = named.candidates.iter().position(|tid| *tid == id.tid);
            let next = place.map_or(0, |place| place.saturating_add(1));
            let is_last = next >= named.candidates.len();
            if let Some(tid) = named.candidates.get(if is_last { 0 } else { next })
                && *tid != id.tid
            {
                named.current = Some(tid.clone());
                self.changed = true;
            }
            if is_last {
                self.ask(now, of.tid.traddr().into(), links);
            }
        }
    }

    // ---- time ----------------------------------------------------------------------------------------------------

    pub fn deadline(&self) -> Option<Instant> {
        self.retries.next()
    }

    pub fn handle_deadline(&mut self, now: Instant, links: &mut Links) {
        while let Some(name) = self.retries.pop(now) {
            self.ask_at_once(name, links);
        }
    }

    /// The network changed: names that wait for their time are resolved at once.
    pub fn hurry(&mut self, links: &mut Links) {
        let waiting: BTreeSet<Rc<str>> = self.retries.keys().cloned().collect();
        self.hurry_all(links, |name| waiting.contains(name));
    }

    fn hurry_all(&mut self, links: &mut Links, is_concerned: impl Fn(&Rc<str>) -> bool) {
        let names: Vec<Rc<str>> = self.names.keys().filter(|name| is_concerned(name)).cloned().collect();
        for name in names {
            if let Some(known) = self.names.get_mut(&name) {
                known.answers = known.answers.min(1);
            }
            self.ask_at_once(name, links);
        }
    }

    fn ask(&mut self, now: Instant, name: Rc<str>, links: &mut Links) {
        let rests = self.names.get(&name).and_then(|known| known.rests_until).is_some_and(|until| until > now);
        if !rests {
            self.ask_at_once(name, links);
        }
    }

    fn ask_at_once(&mut self, name: Rc<str>, links: &mut Links) {
        self.retries.cancel(&name);
        if let Some(known) = self.names.get_mut(&name)
            && !std::mem::replace(&mut known.is_asked, true)
        {
            let ticket = links.next_ticket();
            self.asked.insert(ticket, name.clone());
            self.actions.push_back(Action::Resolve { ticket, name });
        }
    }

    /// Whether the settings have to be expanded again.
    pub fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.controllers.is_empty() && self.by_address.is_empty() && self.deadline().is_none()
    }
}

impl Named {
    /// Stays where it is as long as that makes sense.
    fn choose(&mut self, kind: ControllerKind, policy: &Policy, links: &Links) {
        let link = |tid: &Rc<TransportId>| LinkId { kind, tid: tid.clone() };
        self.kept.retain(|tid| policy.admits(tid).is_ok());
        let stays = |tid: &Rc<TransportId>| {
            self.candidates.contains(tid) || (links.is_live(&link(tid)) && policy.admits(tid).is_ok())
        };
        if !self.current.as_ref().is_some_and(stays) {
            let connected = self.candidates.iter().find(|tid| links.has_device_for(&link(tid)));
            self.current = connected.or(self.candidates.first()).cloned();
        }
    }
}

/// What a resolver says is not to be trusted more than anything else.
fn usable(addresses: Vec<String>) -> Vec<String> {
    let mut usable: Vec<String> = Vec::new();
    for address in addresses.iter().map(|address| canonical_address(Transport::Tcp, address)) {
        if is_usable_address(Transport::Tcp, &address) && !usable.contains(&address) && usable.len() < MAX_ADDRESSES {
            usable.push(address);
        }
    }
    usable
}
