//! The main job: what a discovery controller lists becomes storage, and what it no longer lists goes.

use crate::guest::Guest;
use crate::stas::{Form, KERNEL_WAITS, SOON, STACD_CONF, STAFD_CONF, Stas, controller};
use crate::vm::{Kernel, Scenario, scenario};

const NQNS: [&str; 4] =
    ["nqn.2026-01.example:a", "nqn.2026-01.example:b", "nqn.2026-01.example:c", "nqn.2026-01.example:d"];

#[test]
fn subsystems_become_storage() {
    scenario(|guest| becomes_storage(guest, Form::TwoDaemons));
}

#[test]
fn subsystems_become_storage_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(|guest| becomes_storage(guest, Form::TwoDaemons));
}

pub fn becomes_storage(guest: &Guest, form: Form) {
    let port = guest.target().tcp_port("127.0.0.1", 8009);
    NQNS[..3].iter().for_each(|nqn| port.link(&guest.target().subsystem(nqn)));
    guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));

    let mut stas = Stas::start(guest, form);
    stas.wait_for_storage(&NQNS[..3], SOON);
    assert_eq!(guest.controllers().len(), 4, "three I/O controllers and one discovery controller");

    let discovery = guest.controllers().into_iter().find(|controller| controller.is_discovery()).expect("there is one");
    let found = guest.run("stafctl", &["ls"]).ok();
    let [_heading, line] = found.lines().collect::<Vec<_>>()[..] else { panic!("{found}") };
    assert!([discovery.name.as_str(), "127.0.0.1", "8009"].iter().all(|word| line.contains(word)), "{found}");
    stas.assert_running();
}

#[test]
fn the_log_page_changes() {
    scenario(|guest| follows_changes(guest, Form::TwoDaemons));
}

#[test]
fn the_log_page_changes_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(|guest| follows_changes(guest, Form::TwoDaemons));
}

pub fn follows_changes(guest: &Guest, form: Form) {
    let port = guest.target().tcp_port("127.0.0.1", 8009);
    let subsystems = NQNS.map(|nqn| guest.target().subsystem(nqn));
    subsystems[..3].iter().for_each(|subsystem| port.link(subsystem));
    guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
    guest.write(STACD_CONF, KERNEL_WAITS);

    let stas = Stas::start(guest, form);
    guest.wait_for_storage(&NQNS[..3], SOON);
    let first_four = guest.controllers();

    // Twice, because a controller that is not told that its event was handled sends no other.
    for round in 1..=2 {
        port.link(&subsystems[3]);
        guest.wait_for_storage(&NQNS, SOON);
        port.unlink(&subsystems[3]);
        guest.wait_for_storage(&NQNS[..3], SOON);
        guest.assert_untouched(&first_four);
        assert_eq!(guest.controllers(), first_four);
        assert_eq!(stas.connector().count_log("no longer wanted, disconnecting"), round);
    }
}

/// A burst of changes ends in the right state, whichever of them were seen.
#[test]
fn the_log_page_changes_faster_than_it_is_read() {
    scenario(|guest| {
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        let subsystems = NQNS.map(|nqn| guest.target().subsystem(nqn));
        port.link(&subsystems[0]);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        guest.write(STACD_CONF, KERNEL_WAITS);
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&NQNS[..1], SOON);
        let first_two = guest.controllers();

        for _ in 0..10 {
            subsystems[1..].iter().for_each(|subsystem| port.link(subsystem));
            subsystems[1..].iter().for_each(|subsystem| port.unlink(subsystem));
        }
        subsystems[2..].iter().for_each(|subsystem| port.link(subsystem));
        guest.wait_for_storage(&[NQNS[0], NQNS[2], NQNS[3]], 2 * SOON);
        guest.assert_untouched(&first_two);
        stas.assert_running();
    });
}

/// The dialect of nvme-stas at the same paths, and I/O controllers that only stacd's configuration names.
#[test]
fn an_nvme_stas_configuration_works() {
    scenario(|guest| {
        let target = guest.target();
        target.tcp_port("127.0.0.1", 8009).link(&target.subsystem(NQNS[0]));
        target.tcp_port("::1", 4420).link(&target.subsystem(NQNS[1]));
        guest.write(STAFD_CONF, "[Controllers]\ncontroller=transport=tcp;traddr=127.0.0.1;trsvcid=8009\n");
        let io = format!("controller=transport=tcp;traddr=::1;trsvcid=4420;nqn={}", NQNS[1]);
        guest.write(STACD_CONF, &format!("[Global]\ntron=false\nkato=20\n\n[Controllers]\n{io}\n"));
        let _stas = Stas::start(guest, Form::TwoDaemons);
        let attached = guest.wait_for_storage(&NQNS[..2], SOON);
        for controller in attached {
            let kato = std::fs::read_to_string(format!("/sys/class/nvme/{}/kato", controller.name)).unwrap();
            assert_eq!(kato.trim(), "20", "{controller:?}");
        }
    });
}
