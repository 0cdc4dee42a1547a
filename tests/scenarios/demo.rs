//! `tests/demo`: the main job, told step by step to somebody who watches. A scenario like any other, but
//! not one of the tests.

use crate::guest::Guest;
use crate::vm::Scenario;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const NQNS: [&str; 4] = [
    "nqn.2026-01.example:alpha",
    "nqn.2026-01.example:bravo",
    "nqn.2026-01.example:charlie",
    "nqn.2026-01.example:delta",
];
const CONFIGURATION: &str = "[Controllers]\ncontroller = transport=tcp;traddr=127.0.0.1;trsvcid=8009\n";

#[test]
#[ignore = "a demonstration: run tests/demo"]
fn demo() {
    Scenario::new().narrated().run(|guest| {
        heading(guest, "A storage target appears: nvmet, on 127.0.0.1 port 8009, with three subsystems");
        let [first, second, third, fourth] = NQNS.map(|nqn| guest.target().subsystem(nqn));
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        for subsystem in [&first, &second, &third] {
            port.link(subsystem);
            guest.tell(&format!("    {}", subsystem.nqn));
        }

        heading(
            guest,
            "The system bus, stafd and stacd start. All they are told is the discovery controller's address",
        );
        guest.write("/etc/stas/stafd.conf", CONFIGURATION);
        quote(guest, "cat", &["/etc/stas/stafd.conf"]);
        let _bus = guest.start_bus();
        let _stafd = guest.spawn("stafd", &[]);
        let _stacd = guest.spawn("stacd", &[]);
        let took = guest.wait_until("all three subsystems are disks", PATIENCE, || guest.block_devices().len() == 3);
        guest.tell(&format!("  {} ms later all three are disks:", took.as_millis()));
        quote(guest, "stafctl", &["ls"]);
        quote(guest, "stacctl", &["ls"]);
        disks(guest);

        heading(guest, "The storage administrator adds a fourth subsystem. Nobody touches this host");
        port.link(&fourth);
        let took = guest.wait_until("the fourth is a disk", PATIENCE, || guest.block_devices().len() == 4);
        guest.tell(&format!("  {} ms later it is a disk, the others untouched:", took.as_millis()));
        quote(guest, "stacctl", &["ls"]);
        disks(guest);

        heading(guest, "The storage administrator takes it away again");
        port.unlink(&fourth);
        let gone = || guest.controllers().len() == 4 && guest.block_devices().len() == 3;
        let took = guest.wait_until("the fourth is gone", PATIENCE, gone);
        guest.tell(&format!("  {} ms later its controller and its disk are gone:", took.as_millis()));
        quote(guest, "stacctl", &["ls"]);
        disks(guest);
    });
}

fn heading(guest: &Guest, text: &str) {
    guest.tell(&format!("\n* {text}"));
}

/// Runs a program and shows what it printed, as on a terminal.
fn quote(guest: &Guest, program: &str, arguments: &[&str]) {
    let finished = guest.run(program, arguments);
    guest.tell(&format!("\n    # {}", finished.command));
    for line in finished.ok().lines() {
        guest.tell(&format!("    {line}"));
    }
}

fn disks(guest: &Guest) {
    guest.tell("\n    Block devices:");
    for device in guest.block_devices() {
        guest.tell(&format!("    /dev/{}  {} MiB  {}", device.name, device.bytes >> 20, device.subsysnqn));
    }
}
