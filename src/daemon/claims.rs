//! What we note in the registry of the host, and when: see [`registry`](crate::kernel::registry).
//!
//! What we connect is noted at once, what we use of others' only if nobody manages it. The note goes when we no longer
//! use the controller; it stays when we stop, for we come back. It is ours to remove only as long as it bears the stamp
//! that we know: by then the number may be another controller's, and the note another daemon's.
//!
//! What the firmware's boot table asks for is noted as the firmware's, and that note goes with the controller only.
//!
//! Two small files in memory for each connect: that is done in the loop, but not while connects are under way, which come first;
//! unless they take long.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::core::Change;
use crate::core::device::{FIRMWARE, US};
use crate::core::links::Links;
use crate::kernel::registry::{DIRECTORY, Registry};

/// Nothing is noted later than that.
const PATIENCE: Duration = Duration::from_secs(1);

/// Those whom we note controllers for.
const OWNERS: [&str; 2] = [US, FIRMWARE];

#[derive(Debug)]
pub struct Claims {
    registry: Registry,
    /// By device, whose we noted it to be, and the stamps of these notes.
    notes: BTreeMap<String, (&'static str, String)>,
    /// By device, for whom it is still to be noted.
    pending: BTreeMap<String, &'static str>,
    note_by: Option<Instant>,
    complained: bool,
}

impl Claims {
    /// Removes what an earlier run noted about controllers that `exists` says are gone.
    pub fn new(exists: impl Fn(&str) -> bool) -> Claims {
        let claims = Claims {
            registry: Registry::new(DIRECTORY),
            notes: BTreeMap::new(),
            pending: BTreeMap::new(),
            note_by: None,
            complained: false,
        };
        let is_ours = |device: &str| OWNERS.iter().any(|owner| claims.is_noted(device, owner));
        let left_over = |device: &&String| !exists(device) && is_ours(device);
        for device in claims.registry.devices().iter().filter(left_over) {
            if let Err(error) = claims.registry.remove(device) {
                log::debug!("{DIRECTORY}: {error}");
            }
        }
        claims
    }

    /// We just connected it, on behalf of `owner`.
    pub fn made(&mut self, now: Instant, device: &str, owner: &'static str) {
        self.notes.remove(device);
        self.pending.insert(device.to_owned(), owner);
        self.note_by = self.note_by.or_else(|| now.checked_add(PATIENCE));
    }

    /// When [`Claims::settle`] wants to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.note_by
    }

    /// Notes what is to be noted, unless that can wait.
    pub fn settle(&mut self, now: Instant, can_wait: bool) {
        if !can_wait || self.note_by.is_some_and(|by| by <= now) {
            self.note_by = None;
            for (device, owner) in std::mem::take(&mut self.pending) {
                self.note(&device, owner);
            }
        }
    }

    fn note(&mut self, device: &str, owner: &'static str) {
        match self.registry.claim(device, owner) {
            Ok(stamp) => {
                self.notes.insert(device.to_owned(), (owner, stamp));
            }
            Err(error) if !self.complained => {
                log::warn!("{DIRECTORY}: cannot be written: {error}; other programs will not know what we manage");
                self.complained = true;
            }
            Err(_) => {}
        }
    }

    /// Keeps the registry in line with what we use.
    pub fn follow(&mut self, change: &Change, links: &Links) {
        match change {
            Change::Up { device, .. } if links.device(device).is_some() => {
                let is_firmwares = links.served_by(device).any(|id| links.is_of_firmware(id));
                self.used(device, if is_firmwares { FIRMWARE } else { US });
            }
            Change::Down { device, .. } if links.served_by(device).next().is_none() => {
                let is_firmwares = self.notes.get(device).is_some_and(|(owner, _)| *owner == FIRMWARE);
                if !is_firmwares {
                    self.left(device);
                }
            }
            _ => {}
        }
    }

    /// Those that never came into use and are gone, and the firmware's. To be called when any may be gone.
    pub fn drop_gone(&mut self, links: &Links) {
        self.pending.retain(|device, _| links.device(device).is_some());
        let gone: Vec<String> = self.notes.keys().filter(|device| links.device(device).is_none()).cloned().collect();
        gone.iter().for_each(|device| self.left(device));
    }

    /// We use it, whoever connected it; on behalf of `owner`.
    fn used(&mut self, device: &str, owner: &'static str) {
        if self.notes.contains_key(device) || self.pending.contains_key(device) {
            return;
        }
        let Some(noted) = self.registry.owner(device) else {
            return self.note(device, owner);
        };
        // By another run of ours, or who follows the same rules.
        if let Some(owner) = OWNERS.into_iter().find(|owner| *owner == noted) {
            let stamp = self.registry.stamp(device).unwrap_or_default();
            self.notes.insert(device.to_owned(), (owner, stamp));
        }
        if noted != US && noted != owner {
            log::info!("{device}: managed by {noted}, used and left alone");
        }
    }

    /// We no longer do; it may be gone.
    fn left(&mut self, device: &str) {
        self.pending.remove(device);
        let Some((owner, stamp)) = self.notes.remove(device) else {
            return;
        };
        let is_that_note = self.registry.stamp(device).unwrap_or_default() == stamp;
        if is_that_note
            && self.is_noted(device, owner)
            && let Err(error) = self.registry.remove(device)
        {
            log::debug!("{DIRECTORY}: {error}");
        }
    }

    fn is_noted(&self, device: &str, owner: &str) -> bool {
        self.registry.owner(device).as_deref() == Some(owner)
    }
}
