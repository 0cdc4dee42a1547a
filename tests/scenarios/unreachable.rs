//! Controllers that cannot be reached hold up nobody.

use crate::guest::{Daemon, Guest};
use crate::sim::{Accept, Simulator};
use crate::stas::{AT_ONCE, STACD_CONF, STAFD_CONF, controller, io_controller, nqn};
use crate::vm::scenario;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const REACHABLE: u16 = 8;
const SILENT: u16 = 16;

#[test]
fn silence_holds_up_nobody() {
    scenario(|guest| {
        guest.silent_network("10.99.0.254/24");
        let mute = Simulator::start("127.0.0.1:5000").unwrap();
        mute.behave(|b| b.accept = Accept::Silent);
        let nqns: Vec<String> = (0..REACHABLE).map(|number| nqn(&number.to_string())).collect();
        for (port, nqn) in (4420..).zip(&nqns) {
            guest.target().tcp_port("127.0.0.1", port).link(&guest.target().subsystem(nqn));
        }
        let good: String = (4420..).zip(&nqns).map(|(port, nqn)| io_controller("127.0.0.1", port, nqn)).collect();
        let bad_addresses: Vec<String> = (1..=SILENT).map(|host| format!("10.99.0.{host}")).collect();
        let bad: String = bad_addresses.iter().map(|traddr| io_controller(traddr, 4420, &nqn("nobody"))).collect();
        let mute_io = io_controller("127.0.0.1", 5000, &nqn("mute"));
        let bad_discovery: String = bad_addresses.iter().map(|traddr| controller(traddr, 8009)).collect();
        let mute_discovery = controller("127.0.0.1", 5000);

        // The better of two, for the first time everything is slower, and the machine under the emulator has other work.
        let best = || attach(guest, &nqns).min(attach(guest, &nqns));
        guest.write(STAFD_CONF, "");
        guest.write(STACD_CONF, &good);
        let alone = best();
        guest.write(STAFD_CONF, &(bad_discovery + &mute_discovery));
        // The bad ones are first in the file.
        guest.write(STACD_CONF, &(bad + &mute_io + &good));
        let accompanied = best();
        guest.tell(&format!("{REACHABLE} controllers alone: {alone:?}; among {SILENT} silent ones: {accompanied:?}"));
        assert!(mute.recording().accepted > 0, "the one that never answers was not even tried");
        let bound = alone.mul_f64(1.5) + Duration::from_secs(1);
        assert!(accompanied <= bound, "alone {alone:?}, among silent ones {accompanied:?}");
    });
}

/// From the start of the program until all are attached. Leaves no connection and no program behind.
fn attach(guest: &Guest, nqns: &[String]) -> Duration {
    let started = Instant::now();
    let stas = guest.spawn("stas", &["run"]);
    guest.wait_until("all are attached", PATIENCE, || guest.live_io_controllers().len() == nqns.len());
    let took = started.elapsed();
    stop_at_once(stas);
    for controller in guest.controllers() {
        guest.disconnect(&controller.name);
    }
    let _ = std::fs::remove_dir_all("/run/stas");
    took
}

fn stop_at_once(stas: Daemon) {
    let ended = stas.terminate();
    assert!(ended.status.success() && ended.elapsed < AT_ONCE, "{ended:?}");
}

/// One that answers the probe and falls silent at Connect makes the kernel hang for a minute: nobody can help the other
/// connects then, but everything else goes on.
#[test]
fn a_kernel_that_hangs_holds_up_only_connects() {
    scenario(|guest| {
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        port.link(&a);
        port.link(&b);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        guest.write(STACD_CONF, "reconnect-delay = 60\n");
        let stas = guest.spawn("stas", &["run"]);
        guest.wait_for_storage(&[&a.nqn, &b.nqn], PATIENCE);

        let trap = Simulator::start("127.0.0.1:5000").unwrap();
        trap.behave(|b| b.ignore(crate::sim::Kind::Connect, crate::sim::Times::Always));
        guest.write(STACD_CONF, &format!("reconnect-delay = 60\n{}", io_controller("127.0.0.1", 5000, &nqn("trap"))));
        stas.reload();
        let trapped = trap.wait(PATIENCE, |seen| seen.count(crate::sim::Kind::Connect) > 0);
        assert!(trapped, "the kernel did not try it");

        port.unlink(&b);
        guest.wait_until("b is disconnected", PATIENCE, || {
            guest.controllers().iter().all(|controller| controller.subsysnqn != b.nqn)
        });
        assert!(guest.run("stacctl", &["ls"]).ok().contains(&a.nqn));
        stop_at_once(stas);
    });
}
