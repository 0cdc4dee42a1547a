//! Sessions: what is done with a discovery controller each time it is connected, one step after the other.
//!
//! ```text
//!   connected, or connected again ──▶ Register ──▶ Inquire ──▶ Read ──▶ (see `parking`)
//! ```
//!
//! Later changes only make the page be read again. A step that fails does not keep the next one from being taken. One
//! that is not answered costs the connection: it is left out then, until a page has been read without it and the
//! controller is connected once more, or the administrator asks.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::settings::{FinderSettings, Persistent};
use crate::core::finder::parking::Presence;
use crate::core::finder::reading::Reading;
use crate::core::finder::{Finder, link_id};
use crate::core::links::Links;
use crate::core::note::Note;
use crate::core::tid::TransportId;
use crate::core::{Action, Ticket};
use crate::helper::message::{Capabilities, Failure, PageRequest};

/// What the configuration says of sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    pub pleo: bool,
    pub persistent: Persistent,
    pub polling_interval: Duration,
    /// The name under which this host registers; may be empty.
    pub symname: String,
}

impl Rules {
    pub fn new(settings: &FinderSettings, symname: String) -> Rules {
        let FinderSettings { pleo, persistent, polling_interval, .. } = *settings;
        Rules { pleo, persistent, polling_interval, symname }
    }
}

/// What is done with a discovery controller once it is connected, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Step {
    /// Tell it who we are: a central controller lists by that what this host may see.
    #[default]
    Register,
    /// Ask what it can do.
    Inquire,
    Read,
}

/// What became of our registration with a controller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Registration {
    #[default]
    None,
    /// It takes none.
    NotOffered,
    Registered,
    /// In words.
    Refused(String),
    /// It cost the connection.
    Unanswered,
}

impl Registration {
    pub fn as_str(&self) -> &str {
        match self {
            Registration::None => "None",
            Registration::NotOffered => "not offered",
            Registration::Registered => "registered",
            Registration::Refused(why) => why,
            Registration::Unanswered => "not answered",
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    /// What is to be done next.
    step: Step,
    /// A page has been read in this session.
    pub(super) heard: bool,
    registration: Registration,
    /// Steps that cost the connection.
    shuns_register: bool,
    shuns_inquire: bool,
    pub(super) capabilities: Option<Capabilities>,
    /// It is a central discovery controller.
    central: bool,
    pub(super) presence: Presence,
}

impl Session {
    fn restart(&mut self) {
        // By being connected again as we wanted nothing changed.
        if std::mem::take(&mut self.heard) && self.presence == Presence::Attached {
            self.shun_nothing();
        }
        self.step = Step::Register;
        self.capabilities = None;
    }

    fn shun_nothing(&mut self) {
        self.shuns_register = false;
        self.shuns_inquire = false;
    }

    /// The next step that makes sense; `dctype` is empty where the kernel does not tell.
    fn next(&mut self, dctype: &str) -> Step {
        if self.step == Step::Register {
            let is_offered = matches!(dctype, "" | "ddc" | "cdc");
            if !is_offered {
                self.registration = Registration::NotOffered;
            }
            if !is_offered || self.shuns_register {
                self.step = Step::Inquire;
            }
        }
        if self.step == Step::Inquire && self.shuns_inquire {
            self.step = Step::Read;
        }
        self.central = dctype == "cdc";
        self.step
    }

    pub(super) fn is_parked(&self) -> bool {
        self.presence == Presence::Parked
    }

    /// Whether it is parked, or on the way back from there: nothing is amiss.
    pub(super) fn is_polled(&self) -> bool {
        self.presence != Presence::Attached
    }

    /// Whether what the page does not list is not there. A central controller that could not be told who we are may
    /// list nothing for just that reason.
    pub(super) fn is_evidence(&self) -> bool {
        !self.central || self.registration != Registration::Unanswered
    }
}

/// What a failure says about the command.
enum Trouble {
    /// Nothing: there is no connection at the moment.
    Disconnected,
    Unanswered,
    Refused,
}

impl Trouble {
    fn of(failure: &Failure) -> Trouble {
        match failure {
            Failure::NotReady | Failure::Gone | Failure::NotThatController => Trouble::Disconnected,
            Failure::Interrupted => Trouble::Unanswered,
            _ => Trouble::Refused,
        }
    }
}

impl Finder {
    /// Takes rules in force. Whatever they may change for a controller is done anew, and what did not work before is
    /// tried.
    pub fn set_rules(&mut self, now: Instant, rules: Rules, links: &mut Links) {
        let changed = std::mem::replace(&mut self.rules, rules) != self.rules;
        let all: Vec<_> = self.controllers.keys().cloned().collect();
        for tid in all {
            let Some(session) = self.controllers.get_mut(&tid).map(|discovery| &mut discovery.session) else {
                continue;
            };
            let failed = matches!(session.registration, Registration::Refused(_) | Registration::Unanswered);
            if changed || failed {
                session.shun_nothing();
                self.restart_session(&tid);
            }
            self.poll_now(now, &tid, links);
        }
    }

    /// The kernel says that a controller is connected again. It may say so twice.
    pub fn connected_again(&mut self, tid: &Rc<TransportId>) {
        let tid = &self.reader_for(tid);
        let reading = self.controllers.get(tid).and_then(|discovery| discovery.reading.as_ref());
        if reading.is_none_or(|reading| reading.step == Step::Read) {
            self.restart_session(tid);
        }
    }

    /// Events were lost: any controller may have been connected again, and any port have come.
    pub fn all_connected_again(&mut self) {
        self.fc_ports.ask();
        let all: Vec<_> = self.controllers.keys().cloned().collect();
        for tid in all {
            self.connected_again(&tid);
        }
    }

    /// It is connected, and was not before.
    pub(super) fn begin_session(&mut self, tid: &Rc<TransportId>) {
        self.polls.cancel(tid);
        self.restart_session(tid);
        if let Some(discovery) = self.controllers.get_mut(tid) {
            discovery.session.presence = Presence::Attached;
        }
    }

    pub(super) fn restart_session(&mut self, tid: &Rc<TransportId>) {
        let tid = &self.reader_for(tid);
        if self.controllers.get(tid).is_none_or(|discovery| discovery.device.is_none()) {
            return;
        }
        self.doubt(tid);
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        match &mut discovery.reading {
            Some(reading) => reading.anew = true,
            None => {
                discovery.session.restart();
                self.due.insert(tid.clone());
            }
        }
    }

    pub(super) fn take_step(&mut self, tid: Rc<TransportId>, links: &mut Links) -> Option<Action> {
        let discovery = self.controllers.get_mut(&tid)?;
        let device = discovery.device.clone()?;
        let step = discovery.session.next(links.device(&device).map_or("", |device| &device.dctype));
        let ticket = links.next_ticket();
        discovery.reading = Some(Reading { ticket, step, again: false, anew: false });
        let can = discovery.session.capabilities.unwrap_or_default();
        let how = PageRequest { port_local: self.rules.pleo && can.pleo == Some(true), piece: can.piece };
        self.retries.cancel(&tid);
        self.in_flight.insert(ticket, tid);
        Some(match step {
            Step::Register => Action::Register { ticket, device },
            Step::Inquire => Action::Inquire { ticket, device, pleo: self.rules.pleo },
            Step::Read => Action::ReadLogPage { ticket, device, how },
        })
    }

    /// The answer to [`Action::Register`]; `false` if the controller takes no registrations.
    pub fn registered(&mut self, now: Instant, ticket: Ticket, outcome: Result<bool, Failure>) {
        let Some((tid, reading)) = self.answered(ticket) else {
            return;
        };
        let trouble = outcome.as_ref().err().map(Trouble::of);
        let registration = match (&outcome, &trouble) {
            (_, Some(Trouble::Disconnected)) => None,
            (Err(failure), Some(Trouble::Refused)) => Some(Registration::Refused(failure.to_string())),
            (Err(_), _) => Some(Registration::Unanswered),
            (Ok(true), _) => Some(Registration::Registered),
            (Ok(false), _) => Some(Registration::NotOffered),
        };
        let next = if registration.is_some() { Step::Inquire } else { Step::Register };
        if let Some(registration) = registration {
            self.set_registration(&tid, registration);
        }
        self.go_on(now, &tid, &reading, next, trouble);
    }

    /// The answer to [`Action::Inquire`].
    pub fn inquired(&mut self, now: Instant, ticket: Ticket, outcome: Result<Capabilities, Failure>) {
        let Some((tid, reading)) = self.answered(ticket) else {
            return;
        };
        let trouble = outcome.as_ref().err().map(Trouble::of);
        if let Some(discovery) = self.controllers.get_mut(&tid) {
            discovery.session.capabilities = outcome.as_ref().ok().copied();
            discovery.session.shuns_inquire |= matches!(trouble, Some(Trouble::Unanswered));
        }
        let next = if matches!(trouble, Some(Trouble::Disconnected)) { Step::Inquire } else { Step::Read };
        if let (Err(failure), Step::Read) = (outcome, next) {
            self.actions.push_back(Action::Note(Note::NotInquired { id: link_id(&tid), why: failure.to_string() }));
        }
        self.go_on(now, &tid, &reading, next, trouble);
    }

    /// What a request in flight was about.
    pub(super) fn answered(&mut self, ticket: Ticket) -> Option<(Rc<TransportId>, Reading)> {
        let tid = self.in_flight.remove(&ticket)?;
        let reading = self.controllers.get_mut(&tid)?.reading.take()?;
        Some((tid, reading))
    }

    fn go_on(&mut self, now: Instant, tid: &Rc<TransportId>, reading: &Reading, next: Step, trouble: Option<Trouble>) {
        if let Some(discovery) = self.controllers.get_mut(tid) {
            discovery.session.step = next;
        }
        match trouble {
            _ if reading.anew => self.restart_session(tid),
            None | Some(Trouble::Refused) => {
                self.due.insert(tid.clone());
            }
            Some(Trouble::Disconnected | Trouble::Unanswered) => {
                // A new connection, if it comes, is heard of.
                self.retry_later(now, tid);
                self.turn_stale(tid);
            }
        }
    }

    fn set_registration(&mut self, tid: &Rc<TransportId>, registration: Registration) {
        let Some(discovery) = self.controllers.get_mut(tid) else {
            return;
        };
        let (id, device) = (link_id(tid), discovery.device.clone().unwrap_or_default());
        let note = match &registration {
            Registration::None | Registration::NotOffered => None,
            Registration::Registered => Some(Note::Registered { id, device }),
            Registration::Refused(why) => Some(Note::NotRegistered { id, device, why: why.clone() }),
            Registration::Unanswered => Some(Note::RegistrationUnanswered { id, device }),
        };
        discovery.session.shuns_register = registration == Registration::Unanswered;
        if std::mem::replace(&mut discovery.session.registration, registration) != discovery.session.registration {
            self.actions.extend(note.map(Action::Note));
        }
    }

    // ---- what others ask -----------------------------------------------------------------------------------------

    pub fn registration(&self, tid: &TransportId) -> &str {
        self.controllers.get(tid).map_or("", |discovery| discovery.session.registration.as_str())
    }

    /// The step that is under way.
    pub fn step(&self, tid: &TransportId) -> Option<Step> {
        self.controllers.get(tid)?.reading.as_ref().map(|reading| reading.step)
    }
}
