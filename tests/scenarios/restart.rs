//! The daemons stop and start, in any way, while storage is in use: it stays, and nothing that happened meanwhile is missed.

use crate::guest::{Controller, Daemon, Ended, Guest, Port, Subsystem};
use crate::stas::{AT_ONCE, Form, KERNEL_WAITS, Part, SOON, STACD_CONF, STAFD_CONF, Stas, controller};
use crate::vm::{Kernel, Scenario, scenario};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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
    stas.wait_for_storage(&NQNS[..3], SOON);

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
    let helpers = children(stas.finder().pid());
    let ended = stas.end(part, how);
    if part != Part::Connector {
        guest.wait_until("its helper has ended too", SOON, || helpers.iter().all(has_ended));
    }
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
    stas.wait_for_storage(&wanted, SOON);
    guest.assert_untouched(&kept);
    assert_eq!(guest.controllers().len(), 4, "no duplicates");
    if part == Part::Both {
        let adopted = stas.logs().matches("already connected").count();
        assert_eq!(adopted, before.len(), "each is adopted, and once\n{}", stas.logs());
    }
    ended
}

/// The change is on its way from the one daemon to the other.
#[test]
fn stafd_stops_right_after_a_change() {
    scenario(|guest| {
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        let subsystems = NQNS.map(|nqn| guest.target().subsystem(nqn));
        subsystems[..2].iter().for_each(|subsystem| port.link(subsystem));
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&NQNS[..2], SOON);
        let before = guest.controllers();
        for count in [3, 4] {
            port.link(&subsystems[count - 1]);
            stas.end(Part::Finder, Daemon::terminate);
            stas.start_again();
            guest.wait_for_storage(&NQNS[..count], SOON);
            guest.assert_untouched(&before);
        }
    });
}

/// The bus goes and comes back: the daemons find each other again, and what happened meanwhile is made up for.
#[test]
fn the_bus_is_restarted() {
    scenario(|guest| {
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        let [a, b, c, d] = NQNS.map(|nqn| guest.target().subsystem(nqn));
        [&a, &b, &c].iter().for_each(|subsystem| port.link(subsystem));
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        guest.write(STACD_CONF, KERNEL_WAITS);
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&NQNS[..3], SOON);
        let before = guest.controllers();

        stas.kill_bus();
        port.link(&d);
        stas.finder().wait_log("lists 5 entries", SOON);
        port.unlink(&a);
        stas.finder().wait_log("(generation 9)", SOON);
        let kept: Vec<_> = before.into_iter().filter(|controller| controller.subsysnqn != a.nqn).collect();
        guest.assert_untouched(&kept);
        assert_eq!(guest.controllers().len(), 4, "nobody was disconnected, nobody was connected");

        stas.start_bus();
        guest.wait_for_storage(&NQNS[1..], 2 * SOON);
        guest.assert_untouched(&kept);
        stas.assert_running();
    });
}

/// The process that makes the blocking calls dies, as when memory is short. Another one takes its place.
#[test]
fn the_helper_is_killed() {
    scenario(|guest| {
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        let subsystems = NQNS.map(|nqn| guest.target().subsystem(nqn));
        port.link(&subsystems[0]);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let mut stas = Stas::start(guest, Form::OneProcess);
        guest.wait_for_storage(&NQNS[..1], SOON);
        let before = guest.controllers();
        let daemon = stas.finder().pid();
        let helpers = || children(daemon);
        for (count, subsystem) in (1..).zip(&subsystems[1..]) {
            guest.wait_until("one is in reserve", SOON, || helpers().len() == 2);
            // The older one is at work, and then the one in reserve.
            kill(helpers()[usize::from(count == 3)], Signal::SIGKILL).unwrap();
            port.link(subsystem);
            guest.wait_for_storage(&NQNS[..=count], SOON);
            assert_eq!(stas.finder().count_log("the helper process died"), count.min(2));
        }
        guest.wait_until("one is in reserve", SOON, || helpers().len() == 2);
        guest.assert_untouched(&before);
        stas.assert_running();

        // Without both there is no way to connect anything: whoever started the daemon has to start it again.
        helpers().into_iter().for_each(|helper| kill(helper, Signal::SIGKILL).unwrap());
        stas.finder().wait_log("only a new start can help", SOON);
        assert_eq!(stas.end(Part::Both, Daemon::terminate)[0].status.code(), Some(1));
        guest.assert_untouched(&before);
    });
}

/// The helpers of a daemon.
fn children(process: u32) -> Vec<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap();
    let children: Vec<_> = children.split_whitespace().map(|id| Pid::from_raw(id.parse().unwrap())).collect();
    assert!(!children.is_empty(), "there is no helper");
    children
}

/// Nobody may have collected its status.
fn has_ended(process: &Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.is_empty() || status.contains("State:\tZ")
}

#[test]
fn restarted_while_the_target_is_away() {
    scenario(|guest| returns_to_an_absent_target(guest, false));
}

#[test]
fn restarted_without_memory_while_the_target_is_away() {
    scenario(|guest| returns_to_an_absent_target(guest, true));
}

/// The target is away just when the daemons come back: nobody can say that the storage is still wanted, so it stays.
fn returns_to_an_absent_target(guest: &Guest, forgets: bool) {
    let target = guest.target();
    let [absent, present, new, _] = NQNS.map(|nqn| target.subsystem(nqn));
    let [absent_port, present_port] = [8009, 8010].map(|trsvcid| target.tcp_port("127.0.0.1", trsvcid));
    absent_port.link(&absent);
    present_port.link(&present);
    let finds = [8009, 8010].map(|trsvcid| controller("127.0.0.1", trsvcid)).concat();
    guest.write(STAFD_CONF, &format!("reconnect-delay = 1\n{finds}"));
    guest.write(STACD_CONF, "reconnect-delay = 1\n");
    let mut stas = Stas::start(guest, Form::TwoDaemons);
    stas.wait_for_storage(&NQNS[..2], SOON);
    let devices = || guest.controllers().into_iter().map(|found| (found.name, found.inode)).collect::<Vec<_>>();
    let before = devices();

    stas.end(Part::Both, Daemon::kill);
    if forgets {
        ["/run/stafd", "/run/stacd"].iter().for_each(|state| std::fs::remove_dir_all(state).unwrap());
    }
    absent_port.remove();
    guest.wait_until("its connections are lost", SOON, || {
        guest.controllers().iter().filter(|c| !c.is_live()).count() == 2
    });
    stas.start_again();
    // Once this is attached, stacd has heard all that stafd has to say of both discovery controllers.
    present_port.link(&new);
    guest.wait_until("the new one is attached", SOON, || {
        guest.live_io_controllers().iter().any(|controller| controller.subsysnqn == new.nqn)
    });
    assert_eq!(devices()[..4], before[..]);

    target.tcp_port("127.0.0.1", 8009).link(&absent);
    stas.wait_for_storage(&NQNS[..3], SOON);
    assert_eq!(devices()[..4], before[..]);
}
