//! `org.nvmexpress.staf` as a connector sees it when the finder is another process: ours, or that of nvme-stas.
//!
//! Pure: messages in, messages and events out. Subscribed before asking, so that no change falls between; asked again after
//! each signal, with at most one question under way, so that a burst of signals costs two calls. The finder is never
//! started by asking for it. Its disappearance says nothing about storage.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustbus::message_builder::MessageType;

use super::message::{self, Message};
use super::{BUS_NAME, BusEvent, Role, pages};

/// How long after a failed call the finder is asked again, if it says nothing before.
const RETRY: Duration = Duration::from_secs(10);

/// A call that was sent and not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Owner(u32),
    Pages(u32),
}

/// What is known of the finder on the current connection to the bus.
#[derive(Debug, Default)]
pub struct FinderClient {
    /// The unique name of the process that has the finder's name.
    owner: Option<String>,
    /// The owner has not been asked for yet.
    owner_wanted: bool,
    /// There may be pages that we have not seen.
    pages_wanted: bool,
    question: Option<Question>,
    retry_at: Option<Instant>,
    events: VecDeque<BusEvent>,
}

impl FinderClient {
    /// A new connection to the bus: what to send at once. The question for the owner follows by [`Self::next_call`].
    pub fn joined(&mut self) -> Vec<Message> {
        self.owner_wanted = true;
        let (name, path) = (Role::Finder.name(), Role::Finder.path());
        let rules = [
            format!("type='signal',sender='{BUS_NAME}',member='NameOwnerChanged',arg0='{name}'"),
            format!("type='signal',sender='{name}',interface='{name}',path='{path}'"),
        ];
        let subscribe = |rule: String| {
            let mut call = message::bus_call("AddMatch");
            call.body.push_param(rule).ok()?;
            Some(message::without_reply(call))
        };
        rules.into_iter().filter_map(subscribe).collect()
    }

    /// The connection to the bus is gone.
    pub fn parted(&mut self) {
        let had_owner = self.owner.is_some();
        let events = std::mem::take(&mut self.events);
        *self = FinderClient { events, ..FinderClient::default() };
        if had_owner {
            self.events.push_back(BusEvent::FinderGone);
        }
    }

    pub fn poll_event(&mut self) -> Option<BusEvent> {
        self.events.pop_front()
    }

    /// The call to send now, if any; [`Self::called`] has to follow with its serial number.
    pub fn next_call(&self) -> Option<Message> {
        match (&self.owner, self.question) {
            (_, Some(_)) => None,
            (_, None) if self.owner_wanted => {
                let mut call = message::bus_call("GetNameOwner");
                call.body.push_param(Role::Finder.name()).ok()?;
                Some(call)
            }
            (Some(owner), None) if self.pages_wanted => {
                let mut call = message::call(owner, Role::Finder.path(), Role::Finder.interface(), "get_all_log_pages");
                call.body.push_param(true).ok()?;
                Some(call)
            }
            _ => None,
        }
    }

    /// The call of [`Self::next_call`] went out under this serial number.
    pub fn called(&mut self, serial: u32) {
        if std::mem::take(&mut self.owner_wanted) {
            self.question = Some(Question::Owner(serial));
        } else {
            self.pages_wanted = false;
            self.retry_at = None;
            self.question = Some(Question::Pages(serial));
        }
    }

    /// Takes a signal or a reply; whatever does not concern the finder is left alone.
    pub fn handle(&mut self, message: &Message, now: Instant) {
        match message.typ {
            MessageType::Signal => self.handle_signal(message),
            MessageType::Reply | MessageType::Error => self.handle_reply(message, now),
            MessageType::Call | MessageType::Invalid => {}
        }
    }

    fn handle_signal(&mut self, message: &Message) {
        let header = &message.dynheader;
        let member = header.member.as_deref().unwrap_or("");
        let sender = header.sender.as_deref();
        if sender == Some(BUS_NAME) && member == "NameOwnerChanged" {
            if let Ok((name, _, new)) = message.body.parser().get3::<&str, &str, &str>()
                && name == Role::Finder.name()
            {
                self.set_owner((!new.is_empty()).then(|| new.to_owned()));
            }
        } else if sender.is_some()
            && sender == self.owner.as_deref()
            && matches!(member, "log_pages_changed" | "dc_removed")
        {
            self.pages_wanted = true;
        }
    }

    fn set_owner(&mut self, owner: Option<String>) {
        if owner == self.owner {
            return;
        }
        if self.owner.is_some() {
            self.events.push_back(BusEvent::FinderGone);
        }
        // An answer of the former owner is not awaited any more, and the bus just said who the owner is.
        self.question = None;
        self.owner_wanted = false;
        self.retry_at = None;
        self.pages_wanted = owner.is_some();
        if owner.is_some() {
            self.events.push_back(BusEvent::FinderAppeared);
        }
        self.owner = owner;
    }

    fn handle_reply(&mut self, message: &Message, now: Instant) {
        let Some(serial) = message.dynheader.response_serial else {
            return;
        };
        match self.question {
            Some(Question::Owner(asked)) if asked == serial => {
                self.question = None;
                // The error says that nobody has the name.
                let owner = message.body.parser().get::<String>().ok();
                self.set_owner(owner.filter(|_| message.typ == MessageType::Reply));
            }
            Some(Question::Pages(asked)) if asked == serial => {
                self.question = None;
                match read_pages(message) {
                    Ok(pages) => self.events.push_back(BusEvent::FinderPages(pages)),
                    Err(why) => {
                        self.retry_at = now.checked_add(RETRY);
                        self.events.push_back(BusEvent::FinderUnreadable(why));
                    }
                }
            }
            _ => {}
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// To be followed by [`Self::next_call`].
    pub fn handle_deadline(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.pages_wanted = true;
        }
    }
}

fn read_pages(reply: &Message) -> Result<Vec<pages::FinderPage>, String> {
    if reply.typ == MessageType::Error {
        return Err(message::error_text(reply));
    }
    let json = reply.body.parser().get::<&str>().map_err(|error| error.to_string())?;
    pages::from_json(json).map_err(|error| format!("log pages in an unknown form: {error}"))
}

#[cfg(test)]
#[path = "finder_client_tests.rs"]
mod tests;
