//! What the bus and the control socket tell, other than the calls that they answer.

use std::time::Instant;

use log::Level;

use super::Daemon;
use crate::bus::signal::Signal;
use crate::bus::{BusEvent, FinderPage, SystemBus};
use crate::core::Event;
use crate::daemon::options::Program;
use crate::daemon::reports::reports;

impl Daemon {
    pub(super) fn handle_bus_events(&mut self, now: Instant) {
        while let Some(event) = self.bus.as_mut().and_then(SystemBus::poll_event).or_else(|| self.private.poll_event())
        {
            self.handle_bus_event(now, event);
        }
        if self.awaited_names.is_empty() && self.ready_by.take().is_some() {
            self.manager.ready();
            self.tell_status();
        }
    }

    fn handle_bus_event(&mut self, now: Instant, event: BusEvent) {
        match event {
            BusEvent::NameOwned(role) => {
                log::info!("D-Bus: serving as {}", role.name());
                self.awaited_names.retain(|awaited| *awaited != role);
            }
            BusEvent::NameRefused(role, why) => {
                log::error!("D-Bus: the name {} was refused: {why}; going on without it", role.name());
                self.awaited_names.retain(|awaited| *awaited != role);
            }
            BusEvent::NameLost(role) => log::warn!("D-Bus: the name {} was taken from us", role.name()),
            BusEvent::Disconnected(why) => {
                // One process with both roles needs no bus.
                let level = if self.program == Program::Run { Level::Info } else { Level::Warn };
                let lost = match self.program {
                    Program::Stacd => ", and without what stafd finds (`stas run` needs no bus)",
                    _ => "",
                };
                log::log!(level, "D-Bus: {why}; going on without it until it is there{lost}");
                self.awaited_names.clear();
            }
            BusEvent::TronSet(role, on) => self.emit(now, &Signal::TronChanged(role, on)),
            BusEvent::FinderAppeared => log::info!("D-Bus: a finder is there, asking for its log pages"),
            BusEvent::FinderGone => {
                log::warn!("D-Bus: the finder is gone; its last log pages stay in force");
                self.finder_is_ours = false;
                self.machine.handle(now, Event::FinderGone);
            }
            BusEvent::FinderPages(pages) => self.hear_finder(now, pages),
            BusEvent::FinderUnreadable(why) if self.finder_complaint.as_ref() != Some(&why) => {
                log::warn!("D-Bus: the finder's log pages cannot be had: {why}; its last ones stay in force");
                self.finder_complaint = Some(why);
            }
            BusEvent::FinderUnreadable(_) => {}
            BusEvent::AvahiAppeared => log::info!("mDNS: Avahi is there, looking for discovery controllers"),
            BusEvent::AvahiMissing => log::info!(
                "mDNS: Avahi does not run: discovery controllers that announce themselves are not found until it does"
            ),
            BusEvent::AvahiGone => log::warn!("mDNS: Avahi is gone; what it told stays in force"),
            BusEvent::Announced(announcements) => {
                log::debug!("mDNS: {} announced", announcements.len());
                self.facts.announcements = self.facts.announcements.is_some().then(|| announcements.clone());
                self.machine.handle(now, Event::Announced(announcements));
            }
            BusEvent::AvahiComplaint(why) => log::warn!("mDNS: {why}"),
        }
    }

    /// A finder of ours has all that it is to have from its first word on, and tells how far its pages are evidence.
    /// That another one does not list something (any more) may mean anything.
    fn hear_finder(&mut self, now: Instant, pages: Vec<FinderPage>) {
        self.finder_complaint = None;
        self.finder_is_ours |= pages.iter().any(|page| page.state.is_some());
        let reports = reports(&pages);
        self.machine.handle(
            now,
            match self.finder_is_ours {
                true => Event::FinderReports(reports),
                false => Event::FinderMentions(reports),
            },
        );
        self.facts.finder_pages = pages;
    }
}
