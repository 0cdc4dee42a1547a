//! The kernel is the truth: what it has is adopted, nothing is connected twice.

use super::*;

/// What `nvme discover` connects for the time it takes.
#[test]
fn a_discovery_controller_for_one_look_is_not_relied_on() {
    let passing = || Device { kato: Some(0), ..serving(&dc(DC), "nvme7") };
    let mut world = World::new();
    world.event(Event::DevicesRead(vec![passing()]));
    world.settings.discovery = vec![entry(DC, "")];
    world.configure();
    world.connect(DC, "nvme0");
    world.up(&passing());
    world.removed("nvme7");
    assert_eq!(world.device_of(&dc(DC)), Some("nvme0"));
    world.page(&[]);
    world.assert_nothing_to_do();

    // It is ours, or as good as what we would make.
    let ours = Device { owner: Some("stas".into()), ..passing() };
    world.event(Event::DevicesRead(vec![ours]));
    assert_eq!(world.device_of(&dc(DC)), Some("nvme7"));
}

#[test]
fn what_somebody_else_manages_is_used_and_never_taken_down() {
    let mut world = World::new();
    let id = io(PATH);
    let theirs = Device { owner: Some("nbft".into()), ..serving(&id, "nvme7") };
    world.inherit(vec![Legacy { ours: true, ..Legacy::new(id.clone()) }], vec![theirs]);
    world.settings.io = vec![wanted()];
    world.configure();
    assert_eq!(world.device_of(&id), Some("nvme7"));
    world.settings.io = vec![];
    world.configure();
    world.assert_nothing_to_do();
    assert_eq!(world.device_of(&id), None);
}

#[test]
fn what_was_made_anew_while_nothing_ran_is_somebody_elses() {
    let is_ours = |before, now| {
        let legacy = Legacy { ours: true, inode: before, ..Legacy::new(io(PATH)) };
        let mut world = World::new();
        world.inherit(vec![legacy], vec![Device { inode: now, ..serving(&io(PATH), "nvme7") }]);
        world.settings.io = vec![wanted()];
        world.configure();
        assert_eq!(world.device_of(&io(PATH)), Some("nvme7"));
        let remembered = world.machine.legacy(world.now).iter().any(|legacy| legacy.ours && legacy.inode == now);
        world.settings.io = vec![];
        world.configure();
        assert_eq!(remembered, world.disconnecting() == ["nvme7"]);
        remembered
    };
    assert!(is_ours(3, 3));
    assert!(!is_ours(3, 4));
    assert!(is_ours(0, 4), "written by an earlier version");
}

/// A connection to [`PATH`] with these facts of pinning, as sysfs has them.
fn pinned(src_addr: &str, src_iface: &str, host_traddr: &str, host_iface: &str) -> Device {
    Device {
        src_addr: src_addr.into(),
        src_iface: src_iface.into(),
        host_traddr: host_traddr.into(),
        host_iface: host_iface.into(),
        ..serving(&io(PATH), "nvme7")
    }
}

/// Whether a configured controller is connected by adopting `device`.
fn adopts(wanted: ControllerEntry, device: Device) -> bool {
    let mut world = World::new();
    world.event(Event::DevicesRead(vec![device]));
    world.settings.io = vec![wanted];
    world.configure();
    let adopted = world.machine.links().served_by("nvme7").next().is_some();
    assert_eq!(world.probes.len() + world.connects.len(), usize::from(!adopted), "adopted or sought, never both");
    adopted
}

fn wanted() -> ControllerEntry {
    entry("192.0.2.9", "nqn.a")
}

#[test]
fn pinning_by_interface() {
    let eth0 = || via("eth0", wanted());
    assert!(adopts(eth0(), pinned("192.0.2.200", "eth0", "", "")), "the source address is the interface's");
    assert!(!adopts(eth0(), pinned("192.0.2.200", "eth1", "", "")));
    assert!(adopts(eth0(), pinned("", "", "", "eth0")), "an old kernel, or not connected at the moment");
    assert!(!adopts(eth0(), pinned("", "", "", "eth1")));
    assert!(adopts(eth0(), pinned("", "", "", "")), "a duplicate is worse than an unpinned path");
    assert!(adopts(wanted(), pinned("192.0.2.200", "eth1", "", "eth1")), "any will do");
}

#[test]
fn pinning_by_source_address() {
    let from = |host_traddr: &str| ControllerEntry { host_traddr: host_traddr.into(), ..wanted() };
    assert!(adopts(from("192.0.2.200"), pinned("192.0.2.200", "eth0", "", "")));
    assert!(adopts(from("::ffff:192.0.2.200"), pinned("192.0.2.200", "eth0", "", "")));
    assert!(!adopts(from("192.0.2.201"), pinned("192.0.2.200", "eth0", "", "")));
    assert!(adopts(from("192.0.2.200"), pinned("", "", "192.0.2.200", "")));
    assert!(!adopts(from("192.0.2.200"), pinned("", "", "192.0.2.201", "")));
    assert!(adopts(from("192.0.2.200"), pinned("", "", "", "")));
}

#[test]
fn pinning_of_other_transports() {
    let rdma = |host: &str| ControllerEntry { transport: Transport::Rdma, host_traddr: host.into(), ..wanted() };
    let device = |host| Device { transport: Transport::Rdma, ..pinned("", "", host, "") };
    assert!(adopts(rdma(""), device("192.0.2.200")));
    assert!(adopts(rdma("192.0.2.200"), device("192.0.2.200")));
    assert!(!adopts(rdma("192.0.2.200"), device("192.0.2.201")));
    assert!(!adopts(rdma("192.0.2.200"), device("")));

    let [here, there] = ["nn-0x10:pn-0x0a", "nn-0x20:pn-0x0b"];
    let fc = |host: &str| ControllerEntry {
        transport: Transport::Fc,
        host_traddr: host.into(),
        ..entry(&there.to_uppercase().replace("0X", "0x").replace("NN", "nn").replace("PN", "pn"), "nqn.a")
    };
    let device =
        Device { transport: Transport::Fc, traddr: there.into(), trsvcid: "".into(), ..pinned("", "", here, "") };
    assert!(adopts(fc("nn-0x10:pn-0x0A"), device.clone()));
    assert!(!adopts(fc("nn-0x10:pn-0x0c"), device.clone()));
    assert!(!adopts(fc(""), device));
}

#[test]
fn everything_else_has_to_be_equal() {
    let device = || serving(&io(PATH), "nvme7");
    assert!(adopts(wanted(), device()));
    assert!(adopts(entry("::ffff:192.0.2.9", "nqn.a"), device()), "another spelling");
    assert!(adopts(ControllerEntry { trsvcid: "04420".into(), ..wanted() }, device()), "another spelling");
    assert!(!adopts(wanted(), Device { traddr: "192.0.2.10".into(), ..device() }));
    assert!(!adopts(wanted(), Device { trsvcid: "4421".into(), ..device() }));
    assert!(!adopts(wanted(), Device { subsysnqn: "nqn.b".into(), ..device() }));
    assert!(!adopts(wanted(), Device { host_nqn: "nqn.other-host".into(), ..device() }));
    assert!(!adopts(wanted(), Device { kind: ControllerKind::Discovery, ..device() }));
    assert!(!adopts(wanted(), Device { state: "deleting".into(), ..device() }));
    assert!(adopts(wanted(), Device { state: "connecting".into(), ..device() }), "the kernel still works at it");
}

#[test]
fn an_adopted_discovery_controller_is_read_at_once() {
    let mut world = World::new();
    world.event(Event::DevicesRead(vec![serving(&dc(DC), "nvme0")]));
    world.settings.discovery = vec![entry(DC, "")];
    world.configure();
    assert_eq!(world.page_reads.len(), 1);
    assert_eq!(world.probing(), [""; 0]);
}

#[test]
fn an_io_controller_at_its_address_is_not_the_discovery_controller() {
    let mut world = World::new();
    world.event(Event::DevicesRead(vec![Device { kind: ControllerKind::Io, ..serving(&dc(DC), "nvme0") }]));
    world.settings.discovery = vec![entry(DC, "")];
    world.configure();
    assert_eq!(world.probing(), [DC]);
}

#[test]
fn unpinned_and_pinned_wishes_share_a_connection() {
    let mut world = World::new();
    world.settings.io = vec![wanted(), via("eth0", wanted()), via("eth1", wanted())];
    world.configure();
    while let Some(portal) = world.probes.pop() {
        world.event(Event::Probed { portal, outcome: Ok(()) });
    }
    assert_eq!(world.connects.len(), 1, "the others wait to see whom it serves");
    world.connect_ok("nvme1");
    assert_eq!(world.connects.len(), 1, "one is left that is not served");
    world.connect_ok("nvme2");
    for path in [PATH, "nqn.a@192.0.2.9%eth0", "nqn.a@192.0.2.9%eth1"] {
        assert!(world.device_of(&io(path)).is_some(), "{path}");
    }
}

#[test]
fn a_discovery_controller_asked_for_by_either_name_is_one() {
    for own_name_first in [false, true] {
        let mut world = World::new();
        world.settings.discovery = vec![entry(DC, ""), entry(DC, "nqn.dc1")];
        world.configure();
        world.answer_probe(DC);
        let (ticket, id) = world.connects.remove(0);
        assert_eq!(world.connects, []);
        world.ours.insert("nvme0".into());
        let subsysnqn = if own_name_first { id.tid.subsysnqn() } else { "nqn.dc1" }.into();
        let device = Device { subsysnqn, ..serving(&id, "nvme0") };
        world.event(Event::Connected { ticket, outcome: Ok(Some(device)) });
        let served = world.machine.links().served_by("nvme0").count();
        assert_eq!((served, world.connects.len()), if own_name_first { (1, 1) } else { (2, 0) });
    }
}

/// A twin at the head of the queue must not hold up others.
#[test]
fn waiting_for_a_twin_holds_up_nobody_else() {
    let mut world = World::new();
    world.settings.io = vec![wanted(), via("eth0", wanted()), entry("192.0.2.10", "nqn.a")];
    world.configure();
    while let Some(portal) = world.probes.pop() {
        world.event(Event::Probed { portal, outcome: Ok(()) });
    }
    let mut connecting = world.connecting();
    connecting.sort();
    assert_eq!(connecting, ["192.0.2.10", "192.0.2.9"]);
}

#[test]
fn when_the_twin_fails_the_other_has_its_turn() {
    let mut world = World::new();
    world.settings.io = vec![wanted(), via("eth0", wanted())];
    world.configure();
    while let Some(portal) = world.probes.pop() {
        world.event(Event::Probed { portal, outcome: Ok(()) });
    }
    let first = world.connects[0].1.clone();
    world.connect_fails(Errno::ENOKEY);
    assert_eq!(world.connects.len(), 1);
    assert_ne!(world.connects[0].1, first);
}

#[test]
fn what_the_kernel_has_already_is_looked_up_and_adopted() {
    let mut world = World::new();
    world.settings.io = vec![wanted()];
    world.configure();
    world.answer_probe("192.0.2.9");
    world.connect_fails(Errno::EALREADY);
    assert_eq!(world.device_reads, 1);
    world.event(Event::DevicesRead(vec![serving(&io(PATH), "nvme7")]));
    assert_eq!(world.device_of(&io(PATH)), Some("nvme7"));
    world.pass_secs(60);
    world.assert_nothing_to_do();
}

#[test]
fn what_somebody_else_connected_meanwhile_is_adopted() {
    let mut world = World::new();
    world.settings.io = vec![wanted()];
    world.configure();
    world.up(&serving(&io(PATH), "nvme7"));
    assert_eq!(world.device_of(&io(PATH)), Some("nvme7"));
    world.answer_probe("192.0.2.9");
    world.assert_nothing_to_do();
}

#[test]
fn what_came_up_during_our_failing_connect_is_adopted_after_it() {
    let mut world = World::new();
    world.settings.io = vec![wanted()];
    world.configure();
    world.answer_probe("192.0.2.9");
    world.up(&serving(&io(PATH), "nvme7"));
    assert_eq!(world.device_of(&io(PATH)), None);
    world.connect_fails(Errno::EALREADY);
    assert_eq!(world.device_of(&io(PATH)), Some("nvme7"));
}

#[test]
fn events_lost() {
    let mut world = World::with_discovery();
    world.page(&["nqn.a@192.0.2.9", "nqn.b@192.0.2.10", "nqn.c@192.0.2.11"]);
    world.connect("192.0.2.9", "nvme1");
    world.connect("192.0.2.10", "nvme2");
    world.pass_secs(60);
    world.fail_probe("192.0.2.11");
    world.removed("nvme1");
    world.probes.clear();
    world.connects.clear();
    // nvme2 went away and came back under another name, its name is another's, and nvme.c was connected by somebody.
    world.event(Event::DevicesRead(vec![
        serving(&dc(DC), "nvme0"),
        serving(&io("nqn.other@192.0.2.77"), "nvme2"),
        serving(&io("nqn.b@192.0.2.10"), "nvme3"),
        serving(&io("nqn.c@192.0.2.11"), "nvme4"),
    ]));
    let devices = ["nqn.a@192.0.2.9", "nqn.b@192.0.2.10", "nqn.c@192.0.2.11"].map(|path| world.device_of(&io(path)));
    assert_eq!(devices, [None, Some("nvme3"), Some("nvme4")]);
    assert_eq!(world.page_reads.len(), 1, "the page may have changed");
    assert_eq!(world.connecting(), [""; 0]);
}

/// Of two connections to the same controller, the one that stays is found at once when both names changed hands.
#[test]
fn a_connection_that_is_gone_as_well_is_not_adopted_on_the_way() {
    let mut world = World::new();
    world.event(Event::DevicesRead(vec![serving(&io(PATH), "nvme1"), serving(&io(PATH), "nvme2")]));
    world.settings.io = vec![wanted()];
    world.configure();
    world.pass_secs(60);
    world.event(Event::DevicesRead(vec![]));
    assert_eq!(world.probing(), ["192.0.2.9"], "not taken for flapping");
    world.event(Event::DevicesRead(vec![serving(&io(PATH), "nvme1"), serving(&io(PATH), "nvme2")]));
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
    world.removed("nvme1");
    assert_eq!(world.device_of(&io(PATH)), Some("nvme2"));
}

/// What an earlier run left: the discovery controller is ours, and the kernel is still making it as nvme0.
fn world_with_nascent() -> World {
    let mut world = World::new();
    let nascent = Device { kind: ControllerKind::Io, state: "connecting".into(), ..serving(&dc(DC), "nvme0") };
    let nascent = Device { subsysnqn: String::new(), ..nascent };
    world.inherit(vec![Legacy { ours: true, ..Legacy::new(dc(DC)) }], vec![nascent]);
    world.settings.discovery = vec![entry(DC, "")];
    world.settings.io = vec![ControllerEntry { trsvcid: "8009".into(), ..entry(DC, "nqn.a") }];
    world.configure();
    world.pass_secs(600);
    world.assert_nothing_to_do();
    world
}

#[test]
fn what_the_kernel_is_still_making_is_waited_for() {
    let mut world = world_with_nascent();
    world.up(&serving(&dc(DC), "nvme0"));
    assert_eq!(world.device_of(&dc(DC)), Some("nvme0"));
    assert_eq!(world.probing(), [DC], "the other one is sought");
    world.settings.discovery.clear();
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme0"], "it still is ours");
}

#[test]
fn what_the_kernel_is_still_making_for_us_goes_when_it_is_not_wanted_any_more() {
    let mut world = world_with_nascent();
    world.settings.discovery.clear();
    world.configure();
    world.pass_secs(600);
    world.assert_nothing_to_do();
    world.up(&serving(&dc(DC), "nvme0"));
    assert_eq!(world.disconnecting(), ["nvme0"]);
    assert_eq!(world.machine.legacy(world.now).len(), 1, "a restart knows that it is ours");

    // The configuration changed while nothing ran.
    let legacy = Legacy { ours: true, ..Legacy::new(dc(DC)) };
    let nascent = Device { subsysnqn: String::new(), state: "connecting".into(), ..serving(&dc(DC), "nvme0") };
    let mut world = World::new();
    world.inherit(vec![legacy], vec![nascent]);
    world.configure();
    assert_eq!(world.machine.legacy(world.now).len(), 1);
    world.up(&serving(&dc(DC), "nvme0"));
    assert_eq!(world.disconnecting(), ["nvme0"]);
}

/// It was made for a wish that is gone, and serves another.
#[test]
fn what_comes_up_for_nobody_may_serve_somebody() {
    let legacy = Legacy { ours: true, ..Legacy::new(io(PATH)) };
    let nascent = Device { subsysnqn: String::new(), state: "connecting".into(), ..serving(&io(PATH), "nvme7") };
    let mut world = World::new();
    world.inherit(vec![legacy], vec![nascent]);
    world.settings.io = vec![via("eth0", wanted())];
    world.configure();
    world.up(&serving(&io(PATH), "nvme7"));
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.9%eth0")), Some("nvme7"));
    world.pass_secs(600);
    world.assert_nothing_to_do();
    world.settings.io.clear();
    world.configure();
    assert_eq!(world.disconnecting(), ["nvme7"], "it is ours");
}

/// Fibre Channel connects in the background, for as long as ctrl_loss_tmo. What it makes may be for another subsystem.
#[test]
fn a_slow_controller_of_fibre_channel_keeps_others_waiting_for_a_while_only() {
    let [here, there] = ["nn-0x10:pn-0x0a", "nn-0x20:pn-0x0b"];
    let fc = |nqn| ControllerEntry { transport: Transport::Fc, host_traddr: here.into(), ..entry(there, nqn) };
    let nascent = |name| Device {
        transport: Transport::Fc,
        traddr: there.into(),
        trsvcid: "".into(),
        host_traddr: here.into(),
        subsysnqn: "".into(),
        state: "connecting".into(),
        ..serving(&io(PATH), name)
    };
    let mut world = World::new();
    world.event(Event::DevicesRead(vec![nascent("nvme7")]));
    world.settings.io = vec![fc("nqn.a")];
    world.configure();
    assert_eq!(world.connects.len(), 1, "the kernel does not make it twice");

    let mut world = World::new();
    world.event(Event::DevicesRead(vec![nascent("nvme7")]));
    world.settings.discovery = vec![fc("")];
    world.configure();
    assert_eq!(world.connects.len(), 0, "it may be just that");
    world.pass_secs(60);
    assert_eq!(world.connects.len(), 1);
}

#[test]
fn what_the_kernel_did_not_get_made_is_sought() {
    let mut world = world_with_nascent();
    world.removed("nvme0");
    assert_eq!(world.probing(), [DC]);
}

#[test]
fn a_discovery_controller_of_ours_that_reports_another_name_is_adopted_after_a_restart() {
    let asked = link(ControllerKind::Discovery, DC, "8009", "nqn.asked", "");
    for ours in [true, false] {
        let mut world = World::new();
        let misnamed = Device { subsysnqn: "nqn.reported".into(), ..serving(&asked, "nvme0") };
        world.inherit(vec![Legacy { ours, ..Legacy::new(asked.clone()) }], vec![misnamed]);
        world.settings.discovery = vec![entry(DC, "nqn.asked")];
        world.configure();
        assert_eq!(world.device_of(&asked), ours.then_some("nvme0"));
        assert_eq!(world.probing().is_empty(), ours);
        world.settings.discovery.clear();
        world.configure();
        assert_eq!(world.disconnecting().len(), usize::from(ours));
    }
}
