//! What a finder in another process published, as testimony for the connector.

use std::rc::Rc;

use crate::bus::pages::treq;
use crate::bus::{EntryText, FinderPage, PageState};
use crate::core::Report;
use crate::core::evidence::Testimony;
use crate::core::page::{Contents, Listed, Subtype};
use crate::core::terms::Listing;
use crate::core::tid::{Transport, TransportId};

/// Leaves out discovery controllers of transports that we do not know; the finder has said what is wrong with entries.
pub fn reports(pages: &[FinderPage]) -> Vec<Report> {
    pages.iter().filter_map(|page| Some((Rc::new(page.id.transport_id()?), page))).map(report).collect()
}

fn report((source, page): (Rc<TransportId>, &FinderPage)) -> Report {
    let mut contents = Contents::default();
    for entry in &page.entries {
        let _ = contents.add(&listed(entry), &source);
    }
    let Contents { paths, referrals, .. } = contents;
    let testimony = if is_fresh(page, &paths) { Testimony::Fresh(paths) } else { Testimony::Stale(paths) };
    // A page that is current without a connection is that of a controller that is left in between.
    let connected = page.connected != Some(false) || page.state == Some(PageState::Fresh);
    Report { source, testimony, referrals, origin: page.origin, connected }
}

/// nvme-stas does not tell whether a page is current: its empty page may as well be one that it could not read.
fn is_fresh(page: &FinderPage, paths: &Listing) -> bool {
    match page.state {
        Some(state) => state == PageState::Fresh,
        None => page.connected == Some(true) && !paths.is_empty(),
    }
}

fn listed(entry: &EntryText) -> Listed<'_> {
    Listed {
        transport: Transport::parse(&entry.trtype),
        subtype: match entry.subtype.as_str() {
            "referral" => Subtype::Referral,
            "nvme" => Subtype::Nvme,
            "discovery" => Subtype::Current,
            other => Subtype::Other(other.parse().unwrap_or_default()),
        },
        traddr: &entry.traddr,
        trsvcid: &entry.trsvcid,
        subnqn: &entry.subnqn,
        treq: treq(&entry.treq),
        eflags: entry.eflags.parse().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::ControllerId;
    use crate::core::finder::Origin;
    use crate::core::terms::Terms;

    fn page(state: Option<PageState>, connected: bool, nqns: &[&str]) -> FinderPage {
        let entry = |nqn: &&str| EntryText {
            trtype: "tcp".into(),
            subtype: "nvme".into(),
            traddr: "192.0.2.9".into(),
            trsvcid: "4420".into(),
            subnqn: (*nqn).into(),
            ..EntryText::default()
        };
        let id = ControllerId {
            transport: "tcp".into(),
            traddr: "192.0.2.1".into(),
            trsvcid: "8009".into(),
            subsysnqn: "nqn.2014-08.org.nvmexpress.discovery".into(),
            host_iface: "eth1".into(),
            host_nqn: "nqn.host".into(),
            ..ControllerId::default()
        };
        FinderPage {
            id,
            connected: Some(connected),
            origin: Origin::Configured,
            state,
            entries: nqns.iter().map(entry).collect(),
        }
    }

    #[test]
    fn only_what_is_known_to_be_current_is_evidence() {
        let is_fresh = |page| matches!(reports(&[page])[..], [Report { testimony: Testimony::Fresh(_), .. }]);
        assert!(is_fresh(page(Some(PageState::Fresh), true, &[])));
        assert!(!is_fresh(page(Some(PageState::Stale), true, &["nqn.a"])));
        assert!(!is_fresh(page(Some(PageState::None), false, &[])));
        assert!(is_fresh(page(None, true, &["nqn.a"])));
        assert!(!is_fresh(page(None, true, &[])));
        assert!(!is_fresh(page(None, false, &["nqn.a"])));
    }

    #[test]
    fn who_is_left_in_between_is_not_lost() {
        let is_connected = |page| reports(&[page])[0].connected;
        assert!(is_connected(page(Some(PageState::Fresh), false, &[])));
        assert!(!is_connected(page(Some(PageState::Stale), false, &["nqn.a"])));
        assert!(!is_connected(page(None, false, &["nqn.a"])));
    }

    #[test]
    fn paths_inherit_from_their_discovery_controller_and_nonsense_is_left_out() {
        let page = page(Some(PageState::Fresh), true, &["nqn.a", "not an nqn"]);
        let Testimony::Fresh(paths) = &reports(&[page])[0].testimony else { panic!() };
        let paths: Vec<_> = paths.keys().collect();
        assert_eq!(paths.len(), 1);
        assert_eq!((paths[0].host_iface(), paths[0].host_nqn()), ("eth1", "nqn.host"));
        assert_eq!((paths[0].traddr(), paths[0].subsysnqn()), ("192.0.2.9", "nqn.a"));
    }

    #[test]
    fn terms_come_through_words() {
        let terms = |treq: &str, eflags: &str| {
            let mut page = page(Some(PageState::Fresh), true, &["nqn.a"]);
            page.entries[0].treq = treq.into();
            page.entries[0].eflags = eflags.into();
            let Testimony::Fresh(paths) = &reports(&[page])[0].testimony else { panic!() };
            *paths.values().next().unwrap()
        };
        assert_eq!(terms("not specified", "0"), Terms::default());
        assert!(terms("required", "0").needs_tls && terms("5", "0").needs_tls);
        assert!(terms("disable sqflow", "0").sqflow_optional && !terms("disable sqflow", "3").cut_off);
        assert!(terms("", "4").cut_off);
    }
}
