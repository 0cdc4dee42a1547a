//! The daemons stop and start, in any way, while storage is in use: it stays, and nothing that happened meanwhile is missed.

use crate::guest::{Controller, Daemon, Ended, Guest, Port, Subsystem};
use crate::stas::{AT_ONCE, Form, KERNEL_WAITS, Part, SOON, STACD_CONF, STAFD_CONF, Stas, controller};
use crate::vm::{Kernel, Scenario, scenario};

const NQNS: [&str; 4] =
    ["nqn.2026-01.example:a", "nqn.2026-01.example:b", "nqn.2026-01.example:c", "nqn.2026-01.example:d"];

#[test]
fn stafd_is_restarted() {
    scenario(|guest| restarted(guest, Form::TwoDaemons, Part::Finder));
}

#[test]
fn stacd_is_restarted() {
    scenario(|guest| restarted(guest, Form::TwoDaemons, Part::Connector));
}

#[test]
fn both_daemons_are_restarted() {
    scenario(|guest| restarted(guest, Form::TwoDaemons, Part::Both));
}

#[test]
fn both_daemons_are_restarted_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(|guest| restarted(guest, Form::TwoDaemons, Part::Both));
}

/// First with SIGTERM, then with SIGKILL; each time one subsystem goes and another comes while nobody looks.
pub fn restarted(guest: &Guest, form: Form, part: Part) {
    let port = guest.target().tcp_port("127.0.0.1", 8009);
    let [a, b, c, d] = NQNS.map(|nqn| guest.target().subsystem(nqn));
    [&a, &b, &c].iter().for_each(|subsystem| port.link(subsystem));
    guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
    guest.write(STACD_CONF, KERNEL_WAITS);
    let mut stas = Stas::start(guest, form);
    guest.wait_for_storage(&NQNS[..3], SOON);

    let terminated =
        one_restart(guest, &mut stas, part, Daemon::terminate, Change { port: &port, goes: &a, comes: &d });
    for ended in terminated {
        assert!(ended.status.success(), "{ended:?}");
        assert!(ended.elapsed < AT_ONCE, "{ended:?}");
    }
    one_restart(guest, &mut stas, part, Daemon::kill, Change { port: &port, goes: &d, comes: &a });
}

/// What happens while the daemon is away.
struct Change<'a> {
    port: &'a Port,
    goes: &'a Subsystem,
    comes: &'a Subsystem,
}

fn one_restart(
    guest: &Guest,
    stas: &mut Stas<'_>,
    part: Part,
    how: fn(Daemon) -> Ended,
    change: Change<'_>,
) -> Vec<Ended> {
    let before = guest.controllers();
    let (gone, kept): (Vec<Controller>, Vec<Controller>) =
        before.iter().cloned().partition(|controller| controller.subsysnqn == change.goes.nqn);
    assert_eq!(before.len(), 4);
    let ended = stas.end(part, how);
    guest.assert_untouched(&before);

    change.port.link(change.comes);
    change.port.unlink(change.goes);
    guest.wait_until("the kernel has noticed the loss", SOON, || {
        guest.controllers().iter().any(|controller| controller.name == gone[0].name && !controller.is_live())
    });
    guest.assert_untouched(&kept);

    stas.start_again();
    let unlike = |nqn: &&&str| **nqn != change.goes.nqn;
    let wanted: Vec<&str> = NQNS.iter().filter(unlike).copied().collect();
    guest.wait_for_storage(&wanted, SOON);
    guest.assert_untouched(&kept);
    assert_eq!(guest.controllers().len(), 4, "no duplicates");
    if part == Part::Both {
        let adopted = stas.logs().matches("already connected").count();
        assert_eq!(adopted, before.len(), "each is adopted, and once\n{}", stas.logs());
    }
    ended
}

/// The target is away just when the daemons come back: nobody can say that the storage is still wanted, so it stays.
#[test]
fn restarted_while_the_target_is_away() {
    scenario(|guest| {
        let target = guest.target();
        let disk = target.subsystem(NQNS[0]);
        let port = target.tcp_port("127.0.0.1", 8009);
        port.link(&disk);
        guest.write(STAFD_CONF, &("reconnect-delay = 1\n".to_owned() + &controller("127.0.0.1", 8009)));
        guest.write(STACD_CONF, "reconnect-delay = 1\n");
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&NQNS[..1], SOON);

        stas.end(Part::Both, Daemon::kill);
        port.remove();
        guest.wait_until("all connections are lost", SOON, || {
            guest.controllers().iter().all(|controller| !controller.is_live())
        });
        let names = || guest.controllers().into_iter().map(|controller| controller.name).collect::<Vec<_>>();
        let before = names();
        stas.start_again();
        stas.connector().wait_log("already connected", SOON);
        stas.finder().wait_log("already connected", SOON);
        assert_eq!(names(), before);

        target.tcp_port("127.0.0.1", 8009).link(&disk);
        guest.wait_for_storage(&NQNS[..1], SOON);
        assert_eq!(names(), before);
    });
}
