//! Storage that could not be reached is attached as soon as the network is there, not when the next try is due.

use std::time::Duration;

use crate::guest::Guest;
use crate::stas::{SOON, STACD_CONF, io_controller, nqn};
use crate::vm::scenario;

/// A wait that nothing ends by itself while a scenario waits for something.
const LONG: f64 = 9.0;

/// How long the connector is going to wait before it tries this address again, in seconds.
fn wait_of(guest: &Guest, traddr: &str) -> f64 {
    let list = guest.run("stacctl", &["ls", "-d", "-o", "json"]).stdout;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap_or_default();
    let controllers = list.as_array().cloned().unwrap_or_default();
    let text = |controller: &serde_json::Value, key: &str| controller[key].as_str().unwrap_or_default().to_owned();
    let it = controllers.iter().find(|controller| text(controller, "traddr") == traddr);
    let timer = it.map(|it| text(it, "retry connect timer")).unwrap_or_default();
    timer.split('s').next().and_then(|left| left.parse().ok()).unwrap_or_default()
}

#[test]
fn a_link_or_an_address_that_comes_up_attaches_storage_at_once() {
    scenario(|guest| {
        let old = guest.namespace("old", "10.98.0.1/24", "10.98.0.2/24");
        let new = guest.namespace("new", "fd00:98::1/64", "fd00:98::2/64");
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        guest.target().tcp_port("10.98.0.2", 4420).link_in(&old, &a);
        guest.target().tcp_port("fd00:98::2", 4420).link_in(&new, &b);
        guest.run("ip", &["link", "set", "old", "down"]).ok();
        guest.run("ip", &["address", "flush", "dev", "new"]).ok();
        let pinned = format!("{}host-iface = \"new\"\n", io_controller("fd00:98::2", 4420, &b.nqn));
        guest.write(STACD_CONF, &(io_controller("10.98.0.2", 4420, &a.nqn) + &pinned));
        let stas = guest.spawn("stas", &["run"]);
        let patience = Duration::from_secs(60);
        let mut waits = (0.0, 0.0);
        guest.wait_until("the waits are long", patience, || {
            waits = (wait_of(guest, "10.98.0.2"), wait_of(guest, "fd00:98::2"));
            waits.0 > LONG && waits.1 > LONG
        });

        guest.run("ip", &["link", "set", "old", "up"]).ok();
        let took = guest.wait_for_storage(&[&a.nqn], SOON);
        assert_eq!(took.len(), 1);
        assert!(wait_of(guest, "fd00:98::2") > 1.0, "what is bound to another interface waits on");

        // With the usual check for duplicates: it is tentative for a while.
        guest.run("ip", &["address", "add", "fd00:98::1/64", "dev", "new"]).ok();
        let took = guest.wait_until("b is attached", Duration::from_secs_f64(LONG / 2.0), || {
            guest.live_io_controllers().len() == 2
        });
        guest.tell(&format!("after {took:?}"));
        assert_eq!(stas.count_log("next try in"), 2, "{}", stas.log());
    });
}
