//! From wanted to connected, and back again when the kernel loses it.

use super::*;

/// I/O controllers configured one per address, 192.0.2.`host` each.
fn world_of(hosts: std::ops::Range<u8>) -> World {
    let mut world = World::new();
    world.settings.io = hosts.map(|host| entry(&format!("192.0.2.{host}"), "nqn.a")).collect();
    world.configure();
    world
}

/// Many subsystems behind one address.
fn world_behind_one_portal(subsystems: usize) -> World {
    let mut world = World::new();
    world.settings.io = (0..subsystems).map(|number| entry("192.0.2.9", &format!("nqn.{number:03}"))).collect();
    world.configure();
    world
}

#[test]
fn from_the_configuration_to_io() {
    let mut world = World::with_discovery();
    assert_eq!(world.page_reads.len(), 1);
    world.page(&["nqn.a@192.0.2.9"]);
    assert_eq!(world.probing(), ["192.0.2.9"]);
    world.connect("192.0.2.9", "nvme1");
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.9")), Some("nvme1"));
    assert!(world.published.contains(&Change::LogPage { tid: dc(DC).tid, device: "nvme0".into() }));
    assert!(world.published.contains(&Change::Up { id: dc(DC), device: "nvme0".into() }));
    world.assert_nothing_to_do();
    assert_eq!(world.machine.poll_deadline(), None, "with nothing to do it does not wake up");
}

#[test]
fn nothing_is_connected_after_the_stop() {
    let mut world = world_of(9..10);
    world.event(Event::Stop);
    world.answer_probe("192.0.2.9");
    // Its answer to what was asked at the start.
    world.event(Event::FabricsReady(true));
    world.assert_nothing_to_do();
}

#[test]
fn nothing_is_connected_before_the_kernel_can() {
    let mut world = World::new();
    world.event(Event::FabricsReady(false));
    world.settings.io = vec![entry("192.0.2.9", "nqn.a")];
    world.configure();
    world.answer_probe("192.0.2.9");
    world.assert_nothing_to_do();
    world.event(Event::FabricsReady(true));
    assert_eq!(world.connecting(), ["192.0.2.9"]);
}

#[test]
fn reachable_portals_never_wait_for_silent_ones() {
    let mut world = world_of(1..25);
    for host in 1..9 {
        world.answer_probe(&format!("192.0.2.{host}"));
    }
    for host in 1..9 {
        assert_eq!(world.connecting()[0], format!("192.0.2.{host}"));
        world.connect_ok(&format!("nvme{host}"));
    }
    assert_eq!(world.probing().len(), 16);
    for host in 9..25 {
        world.fail_probe(&format!("192.0.2.{host}"));
    }
    assert_eq!(world.connecting(), [""; 0]);
    assert_eq!(world.notes.iter().filter(|note| note.contains("silence")).count(), 16);
    world.pass_secs(1);
    assert_eq!(world.probing().len(), 16, "each is tried again");
}

#[test]
fn a_dead_portal_costs_one_probe_at_a_time_and_one_line() {
    let mut world = world_behind_one_portal(250);
    for _ in 0..20 {
        assert_eq!(world.probing(), ["192.0.2.9"]);
        world.fail_probe("192.0.2.9");
        assert_eq!(world.probing(), [""; 0]);
        world.pass_secs(60);
    }
    assert_eq!(world.notes.len(), 1, "{:?}", world.notes);
    assert!(world.notes[0].contains("250 waiting"), "{}", world.notes[0]);
    let (failures, retry_at) = world.machine.links().attempts(&io("nqn.000@192.0.2.9"));
    assert_eq!((failures, retry_at), (20, None));
    world.fail_probe("192.0.2.9");
    assert!(world.machine.links().attempts(&io("nqn.000@192.0.2.9")).1.is_some());
}

#[test]
fn at_most_two_connects_at_once_and_one_that_failed_before() {
    let mut world = world_of(1..5);
    for host in 1..5 {
        world.answer_probe(&format!("192.0.2.{host}"));
    }
    assert_eq!(world.connecting(), ["192.0.2.1", "192.0.2.2"]);
    world.connect_fails(Errno::EIO);
    world.connect_fails(Errno::EIO);
    world.connect_ok("nvme3");
    world.connect_ok("nvme4");
    world.pass_secs(1);
    // Their portals' answers may be too old by now.
    world.probes.clone().iter().for_each(|portal| world.answer_probe(&portal.traddr));
    assert_eq!(world.connecting().len(), 1, "suspects go alone");
    world.connect_ok("nvme1");
    assert_eq!(world.connecting().len(), 1);
}

#[test]
fn all_storage_is_there_before_any_is_there_twice() {
    let mut world = World::new();
    let paths = ["nqn.a@192.0.2.1", "nqn.b@192.0.2.1", "nqn.a@192.0.2.2", "nqn.b@192.0.2.2", "nqn.c@192.0.2.2"];
    world.settings.io = paths.iter().filter_map(|path| path.split_once('@')).map(|(nqn, at)| entry(at, nqn)).collect();
    world.event(Event::FabricsReady(false));
    world.configure();
    world.answer_probe("192.0.2.1");
    world.answer_probe("192.0.2.2");
    world.event(Event::FabricsReady(true));
    let mut order = Vec::new();
    while let Some((_, id)) = world.connects.first() {
        order.push(format!("{}@{}", id.tid.subsysnqn(), id.tid.traddr()));
        world.connect_ok(&format!("nvme{}", order.len()));
    }
    assert_eq!(order, [paths[0], paths[1], paths[4], paths[2], paths[3]]);
}

#[test]
fn a_page_that_was_read_stands_for_a_probe() {
    let listing = |nqns: &[&str]| {
        let entries: Vec<String> = nqns.iter().map(|nqn| format!("{nqn}@{DC}")).collect();
        let mut bytes = page(&entries.iter().map(String::as_str).collect::<Vec<_>>());
        // At the discovery controller's own port.
        bytes[1024..].chunks_mut(1024).for_each(|entry| entry[32..36].copy_from_slice(b"8009"));
        Ok(bytes.into())
    };
    let mut world = World::with_discovery();
    world.page(&[]);
    world.pass_secs(60);
    world.aen("nvme0");
    world.page_read(listing(&["nqn.a"]));
    assert_eq!((world.probing(), world.connecting()), (vec![], vec![DC]));

    // That the controller answers does not mean that others can be connected there.
    world.connect_fails(Errno::ECONNREFUSED);
    world.aen("nvme0");
    world.page_read(listing(&["nqn.a", "nqn.b"]));
    assert_eq!((world.probing(), world.connecting()), (vec![], vec![]));
    world.pass_secs(1);
    assert_eq!((world.probing(), world.connecting()), (vec![DC], vec![]));
}

#[test]
fn a_portal_that_held_up_the_kernel_is_penalised_and_goes_last() {
    let mut world = world_of(1..4);
    world.answer_probe("192.0.2.1");
    world.answer_probe("192.0.2.2");
    world.pass_secs(10);
    world.connect_fails(Errno::EIO);
    world.connect_ok("nvme2");
    world.pass_secs(99);
    assert_eq!(world.probing(), ["192.0.2.3"], "ten times as long as it held up the others");
    world.pass_secs(1);
    world.answer_probe("192.0.2.1");
    world.answer_probe("192.0.2.3");
    // It got the kernel first, for nobody else was there; now the others do not wait for it any longer.
    assert_eq!(world.connecting(), ["192.0.2.1", "192.0.2.3"]);
}

#[test]
fn a_lone_target_that_hangs_is_tried_again_soon() {
    let mut world = world_of(1..2);
    world.answer_probe("192.0.2.1");
    world.pass_secs(60);
    world.connect_fails(Errno::EIO);
    world.pass_secs(1);
    assert_eq!(world.probing(), ["192.0.2.1"]);
}

#[test]
fn a_reload_ends_every_wait() {
    let mut world = world_of(1..4);
    world.answer_probe("192.0.2.1");
    world.answer_probe("192.0.2.2");
    world.pass_secs(60);
    world.fail_probe("192.0.2.3");
    world.connect_fails(Errno::EIO);
    world.connect_fails(Errno::ENOKEY);
    world.assert_nothing_to_do();
    world.configure();
    assert_eq!(world.probing(), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
}

#[test]
fn a_late_probe_answer_does_not_lift_a_penalty() {
    let mut world = world_behind_one_portal(2);
    world.answer_probe("192.0.2.9");
    assert_eq!(world.connects.len(), 2);
    world.pass_secs(10);
    world.connect_fails(Errno::EIO);
    world.connect_fails(Errno::EINVAL);
    assert_eq!(world.probing(), [""; 0]);
    let portal = PortalId::of(&io("nqn.000@192.0.2.9").tid, false).unwrap();
    world.event(Event::Probed { portal, outcome: Ok(()) });
    world.assert_nothing_to_do();
}

/// The kernel makes connects wait for each other, so the second of them is answered right after the first.
#[test]
fn a_subsystem_that_hangs_does_not_keep_its_siblings_out() {
    let mut world = world_behind_one_portal(3);
    world.answer_probe("192.0.2.9");
    world.pass_secs(60);
    let hung = world.connects[0].1.clone();
    world.connect_fails(Errno::EIO);
    world.connect_ok("nvme1");
    world.connect_ok("nvme2");
    world.pass_secs(119);
    world.assert_nothing_to_do();
    world.pass_secs(1);
    world.answer_probe("192.0.2.9");
    assert_eq!(world.connects[0].1, hung);
    world.pass_secs(60);
    world.connect_fails(Errno::EIO);
    // Others were connected there meanwhile: now it alone is to blame.
    world.settings.io.push(entry("192.0.2.9", "nqn.new"));
    world.configure();
    world.connect("192.0.2.9", "nvme3");
}

#[test]
fn who_was_held_up_is_not_blamed_for_it() {
    let mut world = world_of(1..3);
    world.answer_probe("192.0.2.1");
    world.answer_probe("192.0.2.2");
    world.pass_secs(60);
    world.connect_fails(Errno::EIO);
    world.connect_fails(Errno::EIO);
    world.pass_secs(1);
    world.connect("192.0.2.2", "nvme2");
}

#[test]
fn whoever_hung_comes_last() {
    let mut world = world_behind_one_portal(3);
    world.answer_probe("192.0.2.9");
    world.pass_secs(60);
    world.connect_fails(Errno::EIO);
    world.pass_secs(60);
    world.connect_fails(Errno::EIO);
    assert_eq!((world.probing(), world.connecting()), (vec![], vec![]), "the portal has to wait");
    world.pass_secs(600);
    world.answer_probe("192.0.2.9");
    assert_eq!(world.connects[0].1, io("nqn.002@192.0.2.9"));
}

#[test]
fn a_refusal_by_one_controller_does_not_concern_its_siblings() {
    let mut world = world_behind_one_portal(250);
    world.answer_probe("192.0.2.9");
    for number in 0..250 {
        match number % 2 {
            0 => world.connect_fails(Errno::EIO),
            _ => world.connect_ok(&format!("nvme{number}")),
        }
    }
    assert_eq!(world.connecting(), [""; 0]);
    assert_eq!(world.probing(), [""; 0]);
    assert_eq!(world.machine.links().devices().count(), 125);
}

#[test]
fn a_portal_that_dies_in_between_stops_its_queue() {
    let mut world = world_behind_one_portal(250);
    world.answer_probe("192.0.2.9");
    world.connect_fails(Errno::ECONNREFUSED);
    world.connect_fails(Errno::ECONNREFUSED);
    assert_eq!(world.connecting(), [""; 0], "the other 248 do not try one after the other");
    world.pass_secs(2);
    assert_eq!(world.probing(), ["192.0.2.9"]);
    world.answer_probe("192.0.2.9");
    assert_eq!(world.connects.len(), 1);
}

#[test]
fn an_answer_is_not_believed_for_long() {
    let mut world = world_of(1..4);
    world.answer_probe("192.0.2.1");
    world.answer_probe("192.0.2.2");
    world.answer_probe("192.0.2.3");
    world.pass_secs(10);
    world.connect_ok("nvme1");
    assert_eq!(world.connecting(), ["192.0.2.2"]);
    assert_eq!(world.probing(), ["192.0.2.3"], "it may have died while it waited for its turn");
}

#[test]
fn what_the_kernel_lost_is_connected_again_at_once() {
    let mut world = world_of(1..2);
    world.connect("192.0.2.1", "nvme1");
    world.pass_secs(600);
    world.removed("nvme1");
    world.connect("192.0.2.1", "nvme1");
    world.pass_secs(4);
    world.removed("nvme1");
    world.assert_nothing_to_do();
    world.pass_secs(1);
    world.connect("192.0.2.1", "nvme1");
    world.removed("nvme1");
    world.pass_secs(1);
    world.assert_nothing_to_do();
    world.pass_secs(1);
    assert_eq!(world.connecting(), ["192.0.2.1"], "flapping is backed off from, longer each time");
}

#[test]
fn a_discovery_controller_lost_is_connected_again_and_nothing_else_happens() {
    let mut world = World::with_discovery();
    world.page(&["nqn.a@192.0.2.9"]);
    world.connect("192.0.2.9", "nvme1");
    world.pass_secs(60);
    world.removed("nvme0");
    assert_eq!(world.probing(), [DC]);
    world.fail_probe(DC);
    world.pass_secs(600);
    assert_eq!((world.connecting(), world.disconnecting()), (vec![], vec![]));
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.9")), Some("nvme1"));
    world.connect(DC, "nvme2");
    assert_eq!(world.page_reads.len(), 1, "its page is read again");
}

#[test]
fn what_is_gone_before_the_reply_is_tried_again() {
    let mut world = world_of(1..2);
    world.answer_probe("192.0.2.1");
    let (ticket, _) = world.connects.remove(0);
    world.event(Event::Connected { ticket, outcome: Ok(None) });
    world.pass_secs(1);
    assert_eq!(world.connecting().len(), 1);
}

#[test]
fn a_name_recycled_before_the_reply_is_no_success() {
    let mut world = world_of(1..2);
    world.answer_probe("192.0.2.1");
    let (ticket, _) = world.connects.remove(0);
    let other = serving(&io("nqn.other@192.0.2.77"), "nvme1");
    world.event(Event::Connected { ticket, outcome: Ok(Some(other)) });
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.1")), None);
    assert!(world.machine.links().device("nvme1").is_some());
    world.pass_secs(1);
    world.connect_ok("nvme2");
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.1")), Some("nvme2"));
}

#[test]
fn a_recycled_name_ends_what_it_stood_for() {
    let mut world = world_of(1..2);
    world.connect("192.0.2.1", "nvme1");
    world.pass_secs(60);
    world.up(&serving(&io("nqn.other@192.0.2.77"), "nvme1"));
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.1")), None);
    world.connect("192.0.2.1", "nvme2");
}

#[test]
fn other_options_are_tried_at_once() {
    let mut world = world_of(1..2);
    world.answer_probe("192.0.2.1");
    for _ in 0..10 {
        world.connect_fails(Errno::ENOKEY);
        world.pass_to_deadline();
        world.let_through("192.0.2.1");
    }
    world.connect_fails(Errno::ENOKEY);
    world.settings.io[0].options.kato = Some(7);
    world.configure();
    assert_eq!(world.connecting(), ["192.0.2.1"]);
}

/// The portal is another one then: nothing may be left behind at the old one, nor wait there.
#[test]
fn tls_switched_while_connected() {
    let mut world = world_of(1..2);
    world.connect("192.0.2.1", "nvme1");
    world.settings.io[0].options.tls = Some(true);
    world.configure();
    world.assert_nothing_to_do();
    world.pass_secs(60);
    world.removed("nvme1");
    assert!(world.probes[0].tls);
    world.connect("192.0.2.1", "nvme1");
    world.settings.io.clear();
    world.configure();
    world.disconnect_ok();
    assert!(world.machine.links().is_empty());
}

#[test]
fn transports_that_cannot_be_probed_go_to_the_kernel_directly() {
    let mut world = World::new();
    world.settings.io = vec![ControllerEntry { transport: Transport::Rdma, ..entry("192.0.2.1", "nqn.a") }];
    world.configure();
    assert_eq!(world.connecting(), ["192.0.2.1"]);
    world.connect_fails(Errno::EIO);
    world.assert_nothing_to_do();
    world.pass_secs(1);
    assert_eq!(world.connecting(), ["192.0.2.1"]);
}

#[test]
fn one_line_for_each_change_none_for_each_retry() {
    let mut world = world_of(1..2);
    world.answer_probe("192.0.2.1");
    for _ in 0..10 {
        world.connect_fails(Errno::ENOKEY);
        world.pass_to_deadline();
        world.let_through("192.0.2.1");
    }
    assert_eq!(world.notes.len(), 1, "{:?}", world.notes);
    world.connect_ok("nvme1");
    assert_eq!(world.notes.len(), 2, "{:?}", world.notes);
}

#[test]
fn a_discovery_controller_that_reports_another_name_is_connected_once() {
    let mut world = World::new();
    world.settings.discovery = vec![entry(DC, "nqn.asked")];
    world.configure();
    world.event(Event::FabricsReady(true));
    world.answer_probe(DC);
    let (ticket, id) = world.connects.remove(0);
    let misnamed = Device { subsysnqn: "nqn.reported".into(), ..serving(&id, "nvme0") };
    world.event(Event::DeviceUp(misnamed.clone()));
    world.ours.insert("nvme0".into());
    world.event(Event::Connected { ticket, outcome: Ok(Some(misnamed)) });
    assert_eq!(world.device_of(&id), Some("nvme0"));
    world.pass_secs(600);
    assert_eq!(world.connecting(), Vec::<&str>::new());
}

#[test]
fn a_connect_in_flight_is_left_to_the_next_run() {
    let mut world = world_of(1..2);
    world.answer_probe("192.0.2.1");
    let (_, id) = world.connects[0].clone();
    assert!(world.saves > 0);
    let legacy = world.machine.legacy(world.now);
    assert_eq!(legacy, [Legacy { ours: true, ..Legacy::new(id.clone()) }]);

    let mut next = World::new();
    next.inherit(legacy, vec![serving(&id, "nvme3")]);
    next.configure();
    assert_eq!(next.disconnecting(), ["nvme3"], "ours, and not configured any more");
}
