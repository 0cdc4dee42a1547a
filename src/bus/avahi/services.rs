//! The session with Avahi: a browser for each service type, a resolver for each service.

use std::time::Instant;

use rustbus::wire::errors::MarshalError;

use super::signals::{DOMAIN, INET, INET6, SERVICE_TYPES, ServiceKey};
use super::{AvahiClient, BROWSER, Question, RESOLVER, RETRY, SERVICES_MAX, Service, Session};
use crate::bus::message::{self, Message};
use crate::config::settings::IpFamily;

const SERVER: &str = "org.freedesktop.Avahi.Server";
/// Any interface, or either protocol.
const ANY: i32 = -1;
/// `AVAHI_LOOKUP_USE_MULTICAST`: never ask a unicast DNS server.
const USE_MULTICAST: u32 = 2;

impl AvahiClient {
    pub(super) fn open_session(&mut self) {
        if self.owner.is_none() || self.wanted.is_none() || self.session.is_some() {
            return;
        }
        self.session = Some(Session::default());
        for service_type in SERVICE_TYPES {
            self.ask("ServiceBrowserNew", Question::Browser(service_type), |call| {
                call.body.push_param5(ANY, ANY, service_type, DOMAIN, USE_MULTICAST)
            });
        }
    }

    /// Gives back what Avahi has for us.
    pub(super) fn close_session(&mut self, now: Instant) {
        self.remember(now);
        let Some(session) = self.session.take() else {
            return;
        };
        // Answers to what is not sent yet, or not answered yet, belong to a former session: their objects are freed.
        self.epoch = self.epoch.wrapping_add(1);
        self.calls.retain(|(_, question)| !matches!(question, Some(Question::Browser(_) | Question::Resolver(_))));
        for path in session.resolvers.keys() {
            self.free(path, RESOLVER);
        }
        for path in session.browsers.keys() {
            self.free(path, BROWSER);
        }
    }

    fn ask(&mut self, member: &str, question: Question, fill: impl FnOnce(&mut Message) -> Result<(), MarshalError>) {
        if let Some(owner) = &self.owner {
            let mut call = message::call(owner, "/", SERVER, member);
            if fill(&mut call).is_ok() {
                self.calls.push_back((call, Some(question)));
            }
        }
    }

    pub(super) fn free(&mut self, path: &str, interface: &str) {
        if let Some(owner) = &self.owner {
            let call = message::call(owner, path, interface, "Free");
            self.calls.push_back((message::without_reply(call), None));
        }
    }

    /// Asks where a service is: first for an address of the family by which it was announced, then for one of the
    /// other.
    pub(super) fn resolve(&mut self, key: &ServiceKey) {
        let families: &[i32] = match (self.wanted, key.protocol) {
            (Some(IpFamily::Ipv4), _) => &[INET],
            (Some(IpFamily::Ipv6), _) => &[INET6],
            (_, INET6) => &[INET6, INET],
            _ => &[INET, INET6],
        };
        let failures = self.service(key).map_or(0, |service| service.failures);
        let family = families.get(failures % families.len()).copied().unwrap_or(ANY);
        let interface = i32::try_from(key.interface).unwrap_or(ANY);
        self.ask("ServiceResolverNew", Question::Resolver(key.clone()), |call| {
            call.body.push_param5(interface, key.protocol, key.name.as_str(), key.service_type, DOMAIN)?;
            call.body.push_param2(family, USE_MULTICAST)
        });
    }

    pub(super) fn service(&mut self, key: &ServiceKey) -> Option<&mut Service> {
        self.session.as_mut()?.services.get_mut(key)
    }

    pub(super) fn add_service(&mut self, key: ServiceKey) {
        let Some(session) = &mut self.session else {
            return;
        };
        if session.services.contains_key(&key) {
            return;
        }
        if session.services.len() >= SERVICES_MAX {
            return self.complain(format!("more than {SERVICES_MAX} announcements: the rest is ignored"));
        }
        session.services.insert(key.clone(), Service { resolver: None, failures: 0, announcement: None });
        self.resolve(&key);
    }

    pub(super) fn remove_service(&mut self, key: &ServiceKey) {
        let Some(session) = &mut self.session else {
            return;
        };
        session.retries.cancel(key);
        if let Some(service) = session.services.remove(key) {
            self.changed |= service.announcement.is_some();
            self.free_resolver(service.resolver);
        }
    }

    fn free_resolver(&mut self, path: Option<String>) {
        if let (Some(path), Some(session)) = (path, &mut self.session) {
            session.resolvers.remove(&path);
            self.free(&path, RESOLVER);
        }
    }

    /// A service cannot be resolved now. There may be an address of another family, at once; else later again.
    pub(super) fn resolving_failed(&mut self, key: &ServiceKey, why: &str, now: Instant) {
        let Some(service) = self.service(key) else {
            return;
        };
        service.failures = service.failures.saturating_add(1);
        let failures = service.failures;
        let path = service.resolver.take();
        let had = service.announcement.take().is_some();
        self.changed |= had;
        self.free_resolver(path);
        if failures % 2 == 1 {
            return self.resolve(key);
        }
        self.complain(format!("{} cannot be resolved: {why}", self.describe(key)));
        if let (Some(session), Some(at)) = (&mut self.session, now.checked_add(RETRY)) {
            session.retries.set(key.clone(), at);
        }
    }

    pub(super) fn browsing_failed(&mut self, why: &str, now: Instant) {
        self.complain(format!("Avahi cannot look for discovery controllers: {why}; trying again later"));
        if let Some(session) = &mut self.session {
            session.restart_at = now.checked_add(RETRY);
        }
    }
}
