//! What holds for all programs of the host: what none of them is to connect, and the names under which they do.

use super::*;

fn with_path() -> World {
    let mut world = World::new();
    world.settings.io = vec![entry("192.0.2.9", "nqn.a")];
    world
}

#[test]
fn what_the_host_excludes_is_not_connected_until_it_is_no_longer() {
    let mut world = with_path();
    world.exclude(&["nqn.a"]);
    world.configure();
    world.pass_secs(600);
    world.assert_nothing_to_do();
    let told = world.notes.iter().filter(|note| note.contains("/etc/nvme/exclusions.conf:3")).count();
    assert_eq!(told, 1, "{:?}", world.notes);
    world.exclude(&["nqn.b"]);
    world.connect("192.0.2.9", "nvme0");
}

#[test]
fn an_exclusion_takes_nothing_down_and_lets_nothing_back() {
    let mut world = with_path();
    world.configure();
    world.connect("192.0.2.9", "nvme0");
    world.pass_secs(60);
    world.exclude(&["nqn.a"]);
    world.configure();
    world.assert_nothing_to_do();
    assert_eq!(world.device_of(&io(PATH)), Some("nvme0"));
    world.removed("nvme0");
    world.pass_secs(600);
    world.assert_nothing_to_do();
    // Whoever connects it on purpose is not hindered.
    world.up(&serving(&io(PATH), "nvme1"));
    assert_eq!(world.device_of(&io(PATH)), Some("nvme1"));
}

#[test]
fn an_excluded_discovery_controller_that_is_connected_is_listened_to() {
    let mut world = World::with_discovery();
    world.exclude(&[DISCOVERY_NQN]);
    world.page(&[PATH]);
    world.let_through("192.0.2.9");
    assert_eq!(world.connecting(), ["192.0.2.9"]);
}

#[test]
fn what_is_excluded_while_it_waits_for_its_turn_is_not_connected() {
    let mut world = with_path();
    world.configure();
    world.exclude(&["nqn.a"]);
    world.answer_probe("192.0.2.9");
    world.assert_nothing_to_do();
}

#[test]
fn a_connect_has_the_host_id_that_the_kernel_has() {
    let mut world = with_path();
    world.event(Event::HostNamed(HostIds::new(HOST, "configured", std::iter::empty()).0));
    let of_firmware = Device { host_id: "firmware".into(), ..serving(&io("nqn.boot@192.0.2.7"), "nvme0") };
    world.event(Event::DevicesRead(vec![of_firmware]));
    world.configure();
    world.let_through("192.0.2.9");
    assert_eq!((world.connecting(), world.host_id.as_str()), (vec!["192.0.2.9"], "firmware"));
    world.connect_fails(Errno::EIO);
    world.removed("nvme0");
    world.pass_to_deadline();
    world.let_through("192.0.2.9");
    assert_eq!((world.connecting(), world.host_id.as_str()), (vec!["192.0.2.9"], "configured"));
    assert_eq!(world.notes.iter().filter(|note| note.contains("host ID")).count(), 1, "{:?}", world.notes);
}
