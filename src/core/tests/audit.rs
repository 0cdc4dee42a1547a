//! What others connected and nobody wants, where the administrator has it audited.

use super::*;
use crate::core::Report;
use crate::core::finder::Origin;

fn audited(mut world: World) -> World {
    world.settings.scope = DisconnectScope::AllConnectionsMatchingDisconnectTrtypes;
    world.configure();
    world
}

const STRAY: &str = "nqn.stray@192.0.2.77";

/// A discovery controller that has been read, and [`STRAY`] connected by somebody as nvme7.
fn world_with_stray() -> World {
    let mut world = audited(World::with_discovery());
    world.page(&["nqn.a@192.0.2.9"]);
    world.connect("192.0.2.9", "nvme1");
    world.up(&serving(&io(STRAY), "nvme7"));
    world
}

#[test]
fn a_stray_goes_after_a_while() {
    let mut world = world_with_stray();
    world.pass_secs(9);
    assert_eq!(world.disconnecting(), [""; 0]);
    world.pass_secs(1);
    assert_eq!(world.disconnecting(), ["nvme7"]);
    world.disconnect_ok();
    world.pass_secs(600);
    world.assert_nothing_to_do();
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.9")), Some("nvme1"));
}

#[test]
fn at_start_too() {
    let mut world = World::new();
    world.event(Event::DevicesRead(vec![serving(&io(STRAY), "nvme7")]));
    world.settings.discovery = vec![entry(DC, "")];
    let mut world = audited(world);
    world.pass_secs(600);
    assert_eq!(world.disconnecting(), [""; 0], "as long as the discovery controller has not been heard");
    world.connect(DC, "nvme0");
    world.page(&[]);
    world.pass_secs(10);
    assert_eq!(world.disconnecting(), ["nvme7"]);
}

#[test]
fn whoever_cannot_be_asked_may_want_it() {
    let mut world = world_with_stray();
    world.pass_secs(9);
    world.aen("nvme0");
    world.page_read(Err("no".into()));
    world.pass_secs(1);
    assert_eq!(world.disconnecting(), [""; 0]);
    world.pass_secs(60);
    world.page(&["nqn.a@192.0.2.9"]);
    world.pass_secs(9);
    assert_eq!(world.disconnecting(), [""; 0], "time starts over");
    world.removed("nvme0");
    world.pass_secs(600);
    assert_eq!(world.disconnecting(), [""; 0]);
}

/// Somebody reads the log page sooner than we do.
#[test]
fn what_is_listed_in_time_is_no_stray() {
    let mut world = world_with_stray();
    world.pass_secs(5);
    world.aen("nvme0");
    world.page(&["nqn.a@192.0.2.9", STRAY]);
    assert_eq!(world.device_of(&io(STRAY)), Some("nvme7"));
    world.pass_secs(600);
    world.assert_nothing_to_do();
}

#[test]
fn only_io_controllers_of_the_transports_in_question() {
    let mut world = audited(World::new());
    world.up(&serving(&dc("192.0.2.66"), "nvme5"));
    world.up(&Device { transport: Transport::Rdma, ..serving(&io(STRAY), "nvme6") });
    world.up(&Device { subsysnqn: "".into(), state: "connecting".into(), ..serving(&io(STRAY), "nvme7") });
    world.up(&Device { state: "deleting".into(), ..serving(&io(STRAY), "nvme8") });
    world.pass_secs(600);
    world.assert_nothing_to_do();
    assert_eq!(world.machine.poll_deadline(), None);
}

#[test]
fn other_scopes_leave_it_alone() {
    let mut world = world_with_stray();
    world.settings.scope = DisconnectScope::OnlyStasConnections;
    world.configure();
    world.pass_secs(600);
    world.assert_nothing_to_do();

    let mut world = world_with_stray();
    world.pass_secs(10);
    world.disconnect_fails(Failure::InUse("it is mounted".into()));
    assert_eq!(world.machine.links().kept(ControllerKind::Io).count(), 1);
    world.settings.scope = DisconnectScope::OnlyStasConnections;
    world.configure();
    assert_eq!(world.machine.links().kept(ControllerKind::Io).count(), 0);
    world.pass_secs(1200);
    world.assert_nothing_to_do();
}

#[test]
fn it_stays_somebody_elses() {
    let mut world = world_with_stray();
    world.pass_secs(10);
    world.disconnect_fails(Failure::from(Errno::EBUSY));
    assert!(world.machine.legacy(world.now).iter().all(|legacy| legacy.id != io(STRAY)));
    world.pass_secs(60);
    assert_eq!(world.disconnecting(), ["nvme7"], "tried again");
}

#[test]
fn a_recycled_name_starts_anew() {
    let mut world = world_with_stray();
    world.pass_secs(9);
    let other = serving(&io("nqn.other@192.0.2.78"), "nvme7");
    let rest = [serving(&dc(DC), "nvme0"), serving(&io("nqn.a@192.0.2.9"), "nvme1")];
    world.event(Event::DevicesRead([&rest[..], &[other]].concat()));
    world.page(&["nqn.a@192.0.2.9"]);
    world.pass_secs(9);
    assert_eq!(world.disconnecting(), [""; 0]);
    world.pass_secs(1);
    assert_eq!(world.disconnecting(), ["nvme7"]);
}

#[test]
fn a_second_connection_to_what_is_wanted_is_no_stray() {
    let mut world = world_with_stray();
    world.removed("nvme7");
    world.up(&serving(&io("nqn.a@192.0.2.9"), "nvme8"));
    world.pass_secs(600);
    world.assert_nothing_to_do();
}

#[test]
fn with_a_finder_in_another_process() {
    let said = |testimony| Report {
        source: dc(DC).tid,
        testimony,
        referrals: BTreeSet::new(),
        origin: Origin::Configured,
        connected: true,
    };
    let mut world = audited(World::with_roles(CONNECTOR));
    world.up(&serving(&io(STRAY), "nvme7"));
    world.pass_secs(600);
    world.assert_nothing_to_do();
    world.event(Event::FinderMentions(vec![said(fresh(&[]))]));
    world.pass_secs(600);
    world.assert_nothing_to_do();
    world.event(Event::FinderReports(vec![said(fresh(&[]))]));
    world.pass_secs(9);
    world.event(Event::FinderGone);
    world.pass_secs(600);
    world.assert_nothing_to_do();
    world.event(Event::FinderReports(vec![said(stale(&[]))]));
    world.pass_secs(600);
    world.assert_nothing_to_do();
    world.event(Event::FinderReports(vec![said(fresh(&[]))]));
    world.pass_secs(10);
    assert_eq!(world.disconnecting(), ["nvme7"]);
}
