//! Log pages large and small, and what happens while they are read.

use crate::hostile::{LOW_MDTS, Storage};
use crate::sim::{Kind, Simulator, Times};
use crate::stas::{Form, SOON, STAFD_CONF, Stas, controller};
use crate::vm::{Scenario, scenario};
use std::time::Duration;

/// The last entry counts as much as the first; in commands as large as each controller allows.
#[test]
fn from_one_entry_to_four_thousand() {
    scenario(|guest| {
        let sizes = [1, 3, 4, 5, 64, 1000, 4000];
        let dcs = [(8009, 0), (8010, LOW_MDTS)].map(|(port, mdts)| {
            let dc = Simulator::start(("127.0.0.1", port)).unwrap();
            dc.behave(|b| b.identity.mdts = mdts);
            dc
        });
        let storage = Storage::offer(guest, sizes.len());
        guest.write(STAFD_CONF, &[8009, 8010].map(|port| controller("127.0.0.1", port)).concat());
        let mut stas = None;
        for (number, size) in sizes.into_iter().enumerate() {
            // All but the last one say the same.
            let first = storage.entries(..1).remove(0);
            let filler = std::iter::repeat_n(first, size - 1);
            dcs[number % 2].set_entries(filler.chain(storage.entries(number..=number)));
            let stas = stas.get_or_insert_with(|| Stas::start(guest, Form::TwoDaemons));
            // The other one's page is as before.
            let mut listed = vec![storage.nqns(..1)[0]];
            listed.extend(storage.nqns(number.saturating_sub(1).max(1)..=number));
            guest.wait_for_storage(&listed, SOON);
            stas.finder().wait_log(&format!("lists {size} entries"), SOON);
        }
        assert!(!stas.unwrap().logs().contains("could not be read"));
    });
}

/// It is read once more, and nobody needs to know.
#[test]
fn a_generation_that_changes_while_it_is_read() {
    scenario(|guest| {
        let dc = Simulator::start("127.0.0.1:8009").unwrap();
        let storage = Storage::offer(guest, 1);
        dc.behave(|b| {
            b.identity.mdts = LOW_MDTS;
            b.restless_generation = Times::Next(4);
        });
        dc.set_entries(storage.long_page(..1));
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let mut stas = Stas::start(guest, Form::OneProcess);
        guest.wait_for_storage(&storage.nqns(..1), SOON);
        assert!(dc.recording().count(Kind::DiscoveryLogPage) > 6, "it was read in one go");
        assert!(!stas.logs().contains("could not be read"), "{}", stas.logs());
        stas.assert_running();
    });
}

/// A page that is long in coming keeps nobody waiting, nor does one that never comes; then the kernel resets the controller.
#[test]
fn a_page_that_does_not_come() {
    Scenario::new().limit(Duration::from_secs(240)).run(|guest| {
        let storage = Storage::offer(guest, 3);
        let [slow, good] = [8009, 8010].map(|port| Simulator::start(("127.0.0.1", port)).unwrap());
        slow.set_entries(storage.entries(..1));
        let controllers = [8009, 8010].map(|port| controller("127.0.0.1", port)).concat();
        guest.write(STAFD_CONF, &format!("reconnect-delay = 1\n{controllers}"));
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&storage.nqns(..1), SOON);

        let reads = slow.recording().count(Kind::DiscoveryLogPage);
        slow.behave(|b| b.ignore(Kind::DiscoveryLogPage, Times::ONCE));
        slow.change_entries(|_| ());
        assert!(slow.wait(SOON, |seen| seen.count(Kind::DiscoveryLogPage) > reads), "it is not read");
        good.set_entries(storage.entries(1..2));
        let before = guest.wait_for_storage(&storage.nqns(..2), SOON);
        stas.finder().wait_log("log page could not be read from nvme", Duration::from_secs(90));
        guest.assert_untouched(&before);
        slow.set_entries(storage.entries(2..3));
        guest.wait_for_storage(&storage.nqns(1..3), SOON);
        stas.assert_running();
    });
}
