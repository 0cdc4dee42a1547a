//! Which functions of the program are called while it does its work: for the order in which they stand in the static file
//! (`init/static/used.ld`), which `tests/order` makes of it.

use crate::guest::calls;
use crate::stas::{SOON, STACD_CONF, STAFD_CONF, controller, nqn};
use crate::vm::Scenario;
use std::process::Command;

const COUNT: usize = 8;

#[test]
#[ignore = "not a test: run tests/order"]
fn calls_at_work() {
    Scenario::new().narrated().run(|guest| {
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        let nqns: Vec<String> = (0..=COUNT).map(|number| nqn(&number.to_string())).collect();
        let (last, others) = nqns.split_last().unwrap();
        others.iter().for_each(|nqn| port.link(&guest.target().subsystem(nqn)));
        let last = guest.target().subsystem(last);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        guest.write(STACD_CONF, "nr-io-queues = 1\nqueue-size = 16\n");
        let mut stas = Command::new("stas");
        let called = calls::during(stas.arg("run"), || {
            guest.wait_until("all are attached", SOON, || guest.live_io_controllers().len() == COUNT);
            let bus = guest.start_bus();
            guest.wait_until("it serves clients", SOON, || guest.run("stafctl", &["ls"]).ok().contains("8009"));
            port.link(&last);
            guest.wait_until("one more is", SOON, || guest.live_io_controllers().len() == COUNT + 1);
            port.unlink(&last);
            guest.wait_until("it is gone", SOON, || guest.live_io_controllers().len() == COUNT);
            drop(bus);
        });
        called.iter().for_each(|address| guest.tell(&format!("called: {address:x}")));
    });
}
