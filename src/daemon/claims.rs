//! What we note in the registry of the host, and when: see [`registry`](crate::kernel::registry).
//!
//! What we connect is noted at once, what we use of others' only if nobody manages it. The note goes when we no longer
//! use the controller; it stays when we stop, for we come back. It is ours to remove only as long as it bears the stamp
//! that we know: by then the number may be another controller's, and the note another daemon's.
//!
//! Two small files in memory for each connect: that is done in the loop.

use std::collections::BTreeMap;

use crate::core::Change;
use crate::core::device::US;
use crate::core::links::Links;
use crate::kernel::registry::{DIRECTORY, Registry};

#[derive(Debug)]
pub struct Claims {
    registry: Registry,
    /// By device, the stamps of our notes.
    stamps: BTreeMap<String, String>,
    complained: bool,
}

impl Claims {
    /// Removes what an earlier run noted about controllers that `exists` says are gone.
    pub fn new(exists: impl Fn(&str) -> bool) -> Claims {
        let claims = Claims { registry: Registry::new(DIRECTORY), stamps: BTreeMap::new(), complained: false };
        let left_over = |device: &&String| !exists(device) && claims.is_noted(device);
        for device in claims.registry.devices().iter().filter(left_over) {
            if let Err(error) = claims.registry.remove(device) {
                log::debug!("{DIRECTORY}: {error}");
            }
        }
        claims
    }

    /// We just connected it.
    pub fn made(&mut self, device: &str) {
        match self.registry.claim(device) {
            Ok(stamp) => {
                self.stamps.insert(device.to_owned(), stamp);
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
            Change::Up { device, .. } if links.device(device).is_some() => self.used(device),
            Change::Down { device, .. } if links.served_by(device).next().is_none() => self.left(device),
            _ => {}
        }
    }

    /// Those that never came into use and are gone. To be called when anything may have changed.
    pub fn drop_gone(&mut self, links: &Links) {
        let gone: Vec<String> = self.stamps.keys().filter(|device| links.device(device).is_none()).cloned().collect();
        gone.iter().for_each(|device| self.left(device));
    }

    /// We use it, whoever connected it.
    fn used(&mut self, device: &str) {
        if self.stamps.contains_key(device) {
            return;
        }
        match self.registry.owner(device) {
            None => self.made(device),
            Some(owner) if owner == US => {
                let stamp = self.registry.stamp(device).unwrap_or_default();
                self.stamps.insert(device.to_owned(), stamp);
            }
            Some(owner) => log::info!("{device}: managed by {owner}, used and left alone"),
        }
    }

    /// We no longer do; it may be gone.
    fn left(&mut self, device: &str) {
        let Some(stamp) = self.stamps.remove(device) else {
            return;
        };
        let is_that_note = self.registry.stamp(device).unwrap_or_default() == stamp;
        if is_that_note
            && self.is_noted(device)
            && let Err(error) = self.registry.remove(device)
        {
            log::debug!("{DIRECTORY}: {error}");
        }
    }

    fn is_noted(&self, device: &str) -> bool {
        self.registry.owner(device).as_deref() == Some(US)
    }
}
