//! A discovery controller may be wanted under several names: by the well-known NQN and by its own (TP8013), with
//! pinning and without. They share the connection, which [`Links`](crate::core::links::Links) sees to, and the session
//! on it: what is done and read is done once, for the first of them, and counts for all.

use std::rc::Rc;

use crate::core::finder::Finder;
use crate::core::tid::TransportId;

impl Finder {
    /// Of all that have this one's connection, the one whose page is read.
    pub(super) fn reader_for(&self, tid: &Rc<TransportId>) -> Rc<TransportId> {
        self.sharing(tid).next().unwrap_or(tid).clone()
    }

    /// What is known from the session of `reader` is known of `other`, too.
    pub(super) fn share_session(&mut self, reader: &TransportId, other: &TransportId) {
        let session = self.controllers.get(reader).map(|discovery| discovery.session.clone());
        if let (Some(mut session), Some(discovery)) = (session, self.controllers.get_mut(other)) {
            session.presence = discovery.session.presence;
            discovery.session = session;
        }
    }

    /// The others that a page counts for that was read for this one.
    pub(super) fn others_sharing(&self, tid: &Rc<TransportId>) -> Vec<Rc<TransportId>> {
        self.sharing(tid).filter(|other| *other != tid).cloned().collect()
    }

    /// All that have this one's connection, itself among them, in order.
    fn sharing<'a>(&'a self, tid: &TransportId) -> impl Iterator<Item = &'a Rc<TransportId>> {
        let device = self.controllers.get(tid).and_then(|discovery| discovery.device.clone());
        let has_it = move |other: &Option<String>| device.is_some() && *other == device;
        self.controllers.iter().filter(move |(_, discovery)| has_it(&discovery.device)).map(|(other, _)| other)
    }
}
