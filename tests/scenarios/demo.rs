//! `tests/demo`: the main job, told step by step to somebody who watches. A scenario like any other, but
//! not one of the tests.

use crate::guest::{Daemon, Guest};
use crate::stas::{Form, Part, STAFD_CONF, Stas, controller};
use crate::vm::Scenario;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const NQNS: [&str; 4] = [
    "nqn.2026-01.example:alpha",
    "nqn.2026-01.example:bravo",
    "nqn.2026-01.example:charlie",
    "nqn.2026-01.example:delta",
];

#[test]
#[ignore = "a demonstration: run tests/demo"]
fn demo() {
    Scenario::new().narrated().run(|guest| {
        heading(guest, "A storage target appears: nvmet, on 127.0.0.1 port 8009, with three subsystems");
        let subsystems = NQNS.map(|nqn| guest.target().subsystem(nqn));
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        for subsystem in &subsystems[..3] {
            port.link(subsystem);
            guest.tell(&format!("    {}", subsystem.nqn));
        }

        heading(
            guest,
            "stafd and stacd start, with a system bus. All they are told is the discovery controller's address",
        );
        guest.write(STAFD_CONF, controller("127.0.0.1", 8009).trim_start());
        quote(guest, "cat", &[STAFD_CONF]);
        let started = Instant::now();
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        attached(guest, &stas, started, &NQNS[..3], "all three subsystems are disks");
        quote(guest, "stafctl", &["ls"]);
        tables(guest);

        heading(guest, "The storage administrator adds a fourth subsystem. Nobody touches this host");
        let started = Instant::now();
        port.link(&subsystems[3]);
        attached(guest, &stas, started, &NQNS, "it is a disk, the others untouched");
        tables(guest);

        heading(guest, "The storage administrator takes it away again");
        let started = Instant::now();
        port.unlink(&subsystems[3]);
        attached(guest, &stas, started, &NQNS[..3], "its controller and its disk are gone");
        tables(guest);

        heading(guest, "Both daemons are killed. Meanwhile a subsystem is added");
        let before = guest.controllers();
        stas.end(Part::Both, Daemon::kill);
        port.link(&subsystems[3]);
        guest.assert_untouched(&before);
        guest.tell("  The disks are still there:");
        disks(guest);
        guest.tell("\n  The daemons start again");
        let started = Instant::now();
        stas.start_again();
        attached(guest, &stas, started, &NQNS, "they have taken over the connections, and made the new one");
        guest.assert_untouched(&before);
        tables(guest);
        guest.tell("");
    });
}

/// Waits for it, and tells how long it took.
fn attached(guest: &Guest, stas: &Stas<'_>, since: Instant, nqns: &[&str], what: &str) {
    guest.wait_for_storage(nqns, PATIENCE);
    let took = since.elapsed();
    stas.wait_for_storage(nqns, PATIENCE);
    guest.tell(&format!("  {} ms later {what}:", took.as_millis()));
}

fn tables(guest: &Guest) {
    quote(guest, "stacctl", &["ls"]);
    disks(guest);
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
