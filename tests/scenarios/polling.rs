//! Discovery controllers that do not tell when something changes: read again by time, and left in between if they support no
//! lasting connection.

use crate::guest::Guest;
use crate::hostile::Storage;
use crate::sim::{DISCOVERY_NQN, Entry, Handle, Kind, Simulator};
use crate::stas::{Form, KERNEL_WAITS, SOON, STACD_CONF, STAFD_CONF, Stas, controller, nqn};
use crate::vm::{Kernel, Scenario, scenario};
use std::fs;

/// Longer than any scenario.
const SELDOM: &str = "polling-interval = \"1hour\"\n";
/// What the target calls itself.
const NAME: &str = "/sys/kernel/config/nvmet/discovery_nqn";
const OFTEN: &str = "polling-interval = 2\n";

/// A controller that says that it supports no lasting connection.
struct Fleeting {
    dc: Simulator,
    storage: Storage,
}

impl Fleeting {
    fn start(guest: &Guest, count: usize) -> Self {
        let dc = Simulator::start("127.0.0.1:8009").unwrap();
        dc.behave(|b| b.identity.notices = false);
        Fleeting { dc, storage: Storage::offer(guest, count) }
    }

    fn list(&self, which: std::ops::Range<usize>) {
        let itself = Entry { eflags: 0, ..Entry::this_controller(DISCOVERY_NQN, "127.0.0.1", "8009") };
        self.dc.set_entries([vec![itself], self.storage.entries(which)].concat());
    }
}

fn is_left(guest: &Guest) -> bool {
    guest.controllers().iter().all(|controller| !controller.is_discovery())
}

fn pages(dc: &Handle) -> usize {
    dc.recording().count(Kind::DiscoveryLogPage)
}

#[test]
fn read_left_and_read_again() {
    scenario(|guest| read_again(guest, Form::TwoDaemons));
}

#[test]
fn read_left_and_read_again_in_one_process_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(|guest| read_again(guest, Form::OneProcess));
}

fn read_again(guest: &Guest, form: Form) {
    let fleeting = Fleeting::start(guest, 3);
    fleeting.list(0..2);
    guest.write(STAFD_CONF, &format!("{OFTEN}{}", controller("127.0.0.1", 8009)));
    guest.write(STACD_CONF, KERNEL_WAITS);
    let mut stas = Stas::start(guest, form);
    let attached = guest.wait_for_storage(&fleeting.storage.nqns(..2), SOON);
    guest.wait_until("it is left", SOON, || is_left(guest));
    let lists = || guest.run("stafctl", &["ls"]).stdout;
    guest.wait_until("stafctl tells", SOON, || lists().contains("PARKED FOR"));

    // Page after page is the same, and nobody is told.
    let so_far = fleeting.dc.recording().accepted;
    assert!(fleeting.dc.wait(SOON, |seen| seen.accepted >= so_far + 4 && seen.open == 0), "it is not polled");
    guest.assert_untouched(&attached);
    for part in ["connected as", "supports no lasting connection"] {
        let told = stas.finder().log().lines().filter(|line| line.contains(":8009") && line.contains(part)).count();
        assert_eq!(told, 1, "{}", stas.finder().log());
    }

    // A poll gives and takes.
    fleeting.list(1..3);
    let after = guest.wait_for_storage(&fleeting.storage.nqns(1..3), SOON);
    assert_eq!(after[0], attached[1]);
    guest.wait_until("it is left", SOON, || is_left(guest));
    stas.assert_running();
}

#[test]
fn asked_for_by_a_reload() {
    scenario(|guest| {
        let fleeting = Fleeting::start(guest, 2);
        fleeting.list(0..1);
        guest.write(STAFD_CONF, &format!("{SELDOM}{}", controller("127.0.0.1", 8009)));
        let stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&fleeting.storage.nqns(..1), SOON);
        guest.wait_until("it is left", SOON, || is_left(guest));
        fleeting.list(0..2);
        stas.finder().reload();
        guest.wait_for_storage(&fleeting.storage.nqns(..2), SOON);
        guest.wait_until("it is left", SOON, || is_left(guest));
    });
}

#[test]
fn away_when_it_is_due() {
    scenario(|guest| {
        let mut fleeting = Fleeting::start(guest, 2);
        fleeting.list(0..1);
        guest.write(STAFD_CONF, &format!("{OFTEN}{}", controller("127.0.0.1", 8009)));
        guest.write(STACD_CONF, KERNEL_WAITS);
        let stas = Stas::start(guest, Form::TwoDaemons);
        let attached = guest.wait_for_storage(&fleeting.storage.nqns(..1), SOON);
        guest.wait_until("it is left", SOON, || is_left(guest));
        fleeting.dc.stop_listening();
        stas.finder().wait_log("nothing listens", SOON);
        guest.assert_untouched(&attached);
        fleeting.list(1..2);
        fleeting.dc.listen().unwrap();
        guest.wait_for_storage(&fleeting.storage.nqns(1..2), SOON * 2);
    });
}

#[test]
fn the_administrator_insists() {
    scenario(|guest| {
        let fleeting = Fleeting::start(guest, 2);
        fleeting.list(0..1);
        guest.write(STAFD_CONF, &format!("{OFTEN}persistent = \"force\"\n{}", controller("127.0.0.1", 8009)));
        let stas = Stas::start(guest, Form::OneProcess);
        guest.wait_for_storage(&fleeting.storage.nqns(..1), SOON);
        let before = guest.controllers();
        let so_far = pages(&fleeting.dc);
        assert!(fleeting.dc.wait(SOON, |seen| seen.count(Kind::DiscoveryLogPage) >= so_far + 4), "it is not read");
        guest.assert_untouched(&before);
        assert_eq!(fleeting.dc.recording().open, 1);

        guest.write(STAFD_CONF, &format!("{OFTEN}{}", controller("127.0.0.1", 8009)));
        stas.finder().reload();
        guest.wait_until("it is left", SOON, || is_left(guest));
    });
}

#[test]
fn somebody_elses_connection_stays() {
    scenario(|guest| {
        let fleeting = Fleeting::start(guest, 2);
        fleeting.list(0..1);
        guest.connect(&format!("nqn={DISCOVERY_NQN},transport=tcp,traddr=127.0.0.1,trsvcid=8009")).unwrap();
        let theirs = guest.controllers();
        guest.write(STAFD_CONF, &format!("{OFTEN}{}", controller("127.0.0.1", 8009)));
        let _stas = Stas::start(guest, Form::OneProcess);
        guest.wait_for_storage(&fleeting.storage.nqns(..1), SOON);
        fleeting.list(0..2);
        guest.wait_for_storage(&fleeting.storage.nqns(..2), SOON);
        guest.assert_untouched(&theirs);
    });
}

/// It does not claim to support lasting connections, whatever it is called; but it does support them.
#[test]
fn linux_own_target_is_not_left() {
    scenario(target_is_not_left);
}

#[test]
fn linux_own_target_is_not_left_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(target_is_not_left);
}

fn target_is_not_left(guest: &Guest) {
    let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
    let port = guest.target().tcp_port("127.0.0.1", 8009);
    port.link(&a);
    // 6.1 does not have it.
    let named = fs::exists(NAME).unwrap();
    if named {
        fs::write(NAME, nqn("discovery")).unwrap();
    }
    guest.write(STAFD_CONF, &format!("{OFTEN}{}", controller("127.0.0.1", 8009)));
    let mut stas = Stas::start(guest, Form::OneProcess);
    guest.wait_for_storage(&[&a.nqn], SOON);
    let before = guest.controllers();
    let page = guest.run("stafctl", &["adlp", "-o", "json"]).ok();
    let pages: serde_json::Value = serde_json::from_str(&page).unwrap();
    let entries = pages[0]["log-pages"].as_array().unwrap();
    let itself = entries.iter().find(|entry| entry["subtype"] == "discovery").expect("it describes itself");
    let expected = if named { nqn("discovery") } else { DISCOVERY_NQN.to_owned() };
    assert_eq!((&itself["eflags"], &itself["subnqn"]), (&"0".into(), &expected.into()));

    port.link(&b);
    guest.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
    guest.assert_untouched(&before);
    assert_eq!(stas.finder().count_log("supports no lasting connection"), 0);
    stas.assert_running();
}
