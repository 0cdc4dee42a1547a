//! The ports of Fibre Channel targets that the kernel told of.
//!
//! It tells of a port when that comes to the fabric, and of all ports once more when it is asked to: whatever it has
//! not told of between the question and the answer is there no more. It does not tell when a port goes (kernel:
//! drivers/nvme/host/fc.c, `nvme_fc_signal_discovery_scan`, `nvme_fc_nvme_discovery_store`).

use std::collections::BTreeSet;

use crate::core::announcement::Announcement;

/// What the kernel told of so far, and whether it has to be asked.
#[derive(Debug, Default)]
pub struct FcPorts {
    present: BTreeSet<Announcement>,
    /// To be asked for anew.
    wanted: bool,
    /// What was told of since the question that is not answered yet.
    heard: Option<BTreeSet<Announcement>>,
}

impl FcPorts {
    /// Wants to know which ports there are.
    pub fn ask(&mut self) {
        self.wanted = true;
    }

    /// Whether the kernel is to be asked now; if so, an answer has to follow.
    pub fn poll_question(&mut self) -> bool {
        let now = self.heard.is_none() && std::mem::take(&mut self.wanted);
        if now {
            self.heard = Some(BTreeSet::new());
        }
        now
    }

    /// Whether the kernel tells of the port on its own account: then something happened there.
    pub fn hear(&mut self, port: Announcement) -> bool {
        if let Some(heard) = &mut self.heard {
            heard.insert(port.clone());
        }
        self.present.insert(port);
        self.heard.is_none()
    }

    /// The question is answered, and all that was told in answer was heard; or, unless `answered`, could not be put.
    pub fn told(&mut self, answered: bool) {
        if let (Some(heard), true) = (self.heard.take(), answered) {
            self.present = heard;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Announcement> {
        self.present.iter()
    }
}
