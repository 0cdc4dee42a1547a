//! What the firmware's boot table asks for is connected like what is configured, and never taken down.

use super::*;

fn of_firmware(entry: ControllerEntry) -> ControllerEntry {
    let options = ConnectOptions { of_firmware: true, ..entry.options };
    ControllerEntry { options, ..entry }
}

fn is_ours(world: &World) -> bool {
    world.machine.legacy(world.now).iter().any(|legacy| legacy.id == io(PATH) && legacy.ours)
}

fn booted() -> World {
    let mut world = World::new();
    world.settings.io = vec![of_firmware(entry("192.0.2.9", "nqn.a"))];
    world.configure();
    world.let_through("192.0.2.9");
    assert!(!is_ours(&world), "not even while it is being connected");
    world.connect_ok("nvme1");
    world.ours.clear();
    world
}

#[test]
fn no_configuration_takes_it_down() {
    let drop_it = |world: &mut World| world.settings.io.clear();
    let exclude_it = |world: &mut World| {
        world.settings.exclusions = vec![Exclusion { subsysnqn: "nqn.a".into(), ..Exclusion::default() }];
    };
    for change in [drop_it as fn(&mut World), exclude_it] {
        let mut world = booted();
        assert!(!is_ours(&world));
        change(&mut world);
        world.configure();
        world.pass_secs(60);
        world.assert_nothing_to_do();
        assert!(!world.machine.links().is_wanted(&io(PATH)) && !is_ours(&world));
        // Lost, it is not connected again.
        world.removed("nvme1");
        world.pass_secs(60);
        world.assert_nothing_to_do();
    }
}

#[test]
fn no_log_page_takes_it_down() {
    let mut world = booted();
    world.settings.discovery = vec![entry(DC, "")];
    world.configure();
    world.connect(DC, "nvme0");
    world.page(&[PATH]);
    world.aen("nvme0");
    world.page(&[]);
    world.pass_secs(60);
    world.assert_nothing_to_do();
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
}

#[test]
fn another_spelling_of_it_that_is_ours_is_not_taken_down_while_it_serves() {
    let mut world = World::with_discovery();
    world.page(&[PATH]);
    world.connect("192.0.2.9", "nvme1");
    // The interface that the table means is found only now.
    world.settings.io = vec![of_firmware(via("eth0", entry("192.0.2.9", "nqn.a")))];
    world.configure();
    assert_eq!(world.device_of(&io("nqn.a@192.0.2.9%eth0")), Some("nvme1"));
    world.aen("nvme0");
    world.page(&[]);
    world.pass_secs(60);
    world.assert_nothing_to_do();
    world.settings.io.clear();
    world.configure();
    world.pass_secs(60);
    assert_eq!(world.disconnecting(), Vec::<&str>::new());
}

#[test]
fn what_is_lost_is_tried_for_ever() {
    let mut world = booted();
    world.pass_secs(60);
    world.removed("nvme1");
    for _ in 0..20 {
        world.fail_probe("192.0.2.9");
        world.pass_to_deadline();
    }
    world.connect("192.0.2.9", "nvme2");
    assert_eq!(world.device_of(&io(PATH)), Some("nvme2"));
}
