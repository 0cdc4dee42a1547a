//! What arrives from the bus and from Avahi.

use std::time::Instant;

use rustbus::message_builder::MessageType;
use rustbus::wire::ObjectPath;

use super::signals::{SERVICE_TYPES, ServiceKey, announcement};
use super::{AvahiClient, BROWSER, EARLY_BYTES_MAX, EARLY_MAX, NAME, Question, RESOLVER, SETTLING};
use crate::bus::BUS_NAME;
use crate::bus::BusEvent;
use crate::bus::message::{self, Message};

impl AvahiClient {
    /// Takes a signal or a reply; whatever does not concern Avahi is left alone.
    pub fn handle(&mut self, message: Message, now: Instant) {
        match message.typ {
            MessageType::Signal => self.handle_signal(message, now),
            MessageType::Reply | MessageType::Error => self.handle_reply(&message, now),
            MessageType::Call | MessageType::Invalid => {}
        }
    }

    fn handle_signal(&mut self, message: Message, now: Instant) {
        let header = &message.dynheader;
        let sender = header.sender.as_deref();
        if sender == Some(BUS_NAME) && header.member.as_deref() == Some("NameOwnerChanged") {
            if let Ok((NAME, _, new)) = message.body.parser().get3::<&str, &str, &str>() {
                self.set_owner((!new.is_empty()).then(|| new.to_owned()), now);
            }
        } else if sender.is_some() && sender == self.owner.as_deref() {
            self.handle_avahi_signal(message, now);
        }
    }

    fn handle_avahi_signal(&mut self, message: Message, now: Instant) {
        let header = &message.dynheader;
        let (Some(session), Some(path)) = (&mut self.session, header.object.as_deref()) else {
            return;
        };
        let (browser, resolver) = (session.browsers.get(path).copied(), session.resolvers.get(path).cloned());
        let member = header.member.as_deref().unwrap_or_default();
        let may_keep = session.early.len() < EARLY_MAX && message.get_buf().len() <= EARLY_BYTES_MAX;
        match (header.interface.as_deref(), browser, resolver) {
            (Some(BROWSER), Some(service_type), _) => self.handle_browser(service_type, member, &message, now),
            (Some(RESOLVER), _, Some(key)) => self.handle_resolver(&key, member, &message, now),
            // Avahi may speak for an object before it told us the object's name.
            (_, None, None) if may_keep && !self.questions.is_empty() => session.early.push(message),
            _ => {}
        }
    }

    fn handle_browser(&mut self, service_type: &'static str, member: &str, message: &Message, now: Instant) {
        match member {
            "ItemNew" => match ServiceKey::from_item(service_type, message) {
                Ok(key) => self.add_service(key),
                Err(why) => self.complain(why),
            },
            "ItemRemove" => {
                if let Ok(key) = ServiceKey::from_item(service_type, message) {
                    self.remove_service(&key);
                }
            }
            "AllForNow" => {
                if let Some(session) = &mut self.session
                    && session.complete.insert(service_type)
                    && session.complete.len() == SERVICE_TYPES.len()
                    && !self.remembered.is_empty()
                {
                    self.forget_at = now.checked_add(SETTLING);
                }
            }
            "Failure" => self.browsing_failed(&failure(message), now),
            _ => {}
        }
    }

    fn handle_resolver(&mut self, key: &ServiceKey, member: &str, message: &Message, now: Instant) {
        match member {
            "Found" => self.resolved(key, message),
            "Failure" => self.resolving_failed(key, &failure(message), now),
            _ => {}
        }
    }

    fn resolved(&mut self, key: &ServiceKey, found: &Message) {
        // Without a name the interface is gone, and the service with it: Avahi is about to say so.
        let interface = (self.interface_name)(key.interface);
        let outcome = interface.map(|interface| announcement(found, &interface));
        if let Some(Err(why)) = &outcome {
            self.complain(format!("{} is ignored: {why}", self.describe(key)));
        }
        if let Some(service) = self.service(key) {
            service.failures = 0;
            service.announcement = outcome.and_then(Result::ok);
            self.changed = true;
        }
    }

    fn handle_reply(&mut self, message: &Message, now: Instant) {
        let serial = message.dynheader.response_serial;
        let Some((epoch, question)) = serial.and_then(|serial| self.questions.remove(&serial)) else {
            return;
        };
        if question == Question::Owner {
            // The error says that nobody has the name.
            let owner = message.body.parser().get::<String>().ok().filter(|_| message.typ == MessageType::Reply);
            if owner.is_none() && !std::mem::replace(&mut self.missed, true) {
                self.events.push_back(BusEvent::AvahiMissing);
            }
            return self.set_owner(owner, now);
        }
        let path = match message.typ {
            MessageType::Reply => message.body.parser().get::<ObjectPath<&str>>().map_err(|error| error.to_string()),
            _ => Err(message::error_text(message)),
        };
        let path = path.map(|path| path.as_ref().to_owned());
        match question {
            Question::Owner => {}
            Question::Browser(service_type) => self.browser_made(epoch, service_type, path, now),
            Question::Resolver(key) => self.resolver_made(epoch, &key, path, now),
        }
        if let Some(session) = &mut self.session {
            for signal in std::mem::take(&mut session.early) {
                self.handle_avahi_signal(signal, now);
            }
        }
    }

    fn browser_made(&mut self, epoch: u64, service_type: &'static str, path: Result<String, String>, now: Instant) {
        match (path, &mut self.session) {
            (Ok(path), Some(session)) if epoch == self.epoch => {
                session.browsers.insert(path, service_type);
            }
            (Ok(path), _) => self.free(&path, BROWSER),
            (Err(why), _) if epoch == self.epoch => self.browsing_failed(&printable(&why), now),
            (Err(_), _) => {}
        }
    }

    fn resolver_made(&mut self, epoch: u64, key: &ServiceKey, path: Result<String, String>, now: Instant) {
        match (path, &mut self.session) {
            (Ok(path), Some(session)) if epoch == self.epoch => match session.services.get_mut(key) {
                // A service that went and came meanwhile was asked for twice.
                Some(service) if service.resolver.is_none() => {
                    service.resolver = Some(path.clone());
                    session.resolvers.insert(path, key.clone());
                }
                _ => self.free(&path, RESOLVER),
            },
            (Ok(path), _) => self.free(&path, RESOLVER),
            (Err(why), _) if epoch == self.epoch => self.resolving_failed(key, &printable(&why), now),
            (Err(_), _) => {}
        }
    }
}

/// The reason in a `Failure` signal: the name of an error.
fn failure(signal: &Message) -> String {
    printable(signal.body.parser().get::<&str>().unwrap_or("no reason given"))
}

fn printable(text: &str) -> String {
    text.chars().take(120).map(|c| if c.is_control() { '?' } else { c }).collect()
}
