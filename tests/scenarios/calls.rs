//! Which functions of the program are called while it does its work: for the order in which they stand in the static file
//! (`init/static/used.ld`), which `tests/order` makes of it.

use crate::guest::calls;
use crate::stas::{SMALL, SOON, STACD_CONF, STAFD_CONF, controller, nqn};
use crate::vm::Scenario;
use std::process::Command;

/// What most hosts have, and what few have.
const FEW: usize = 8;
const MANY: usize = 64;

#[test]
#[ignore = "not a test: run tests/order"]
fn calls_at_work() {
    Scenario::new().memory(1024).narrated().run(|guest| {
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        let subsystems: Vec<_> = (0..MANY).map(|number| guest.target().subsystem(&nqn(&number.to_string()))).collect();
        let (few, more) = subsystems.split_at(FEW);
        few.iter().for_each(|subsystem| port.link(subsystem));
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        guest.write(STACD_CONF, SMALL);
        let attached =
            |count| guest.wait_until("all are attached", SOON, || guest.live_io_controllers().len() == count);
        let mut stas = Command::new("stas");
        let called = calls::during(stas.arg("run"), || {
            attached(FEW);
            let bus = guest.start_bus();
            guest.wait_until("it serves clients", SOON, || guest.run("stafctl", &["ls"]).ok().contains("8009"));
            more.iter().for_each(|subsystem| port.link(subsystem));
            attached(MANY);
            few.iter().for_each(|subsystem| port.unlink(subsystem));
            attached(MANY - FEW);
            drop(bus);
        });
        called.iter().for_each(|address| guest.tell(&format!("called: {address:x}")));
    });
}
