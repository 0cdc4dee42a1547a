//! `stas run`: both roles in one process, on a machine without D-Bus.

use crate::restart::restarted;
use crate::stas::{Form, Part, SOON, STAFD_CONF, Stas, controller, nqn};
use crate::storage::{becomes_storage, follows_changes};
use crate::vm::scenario;

/// Its `ls` finds the daemon by its private socket.
#[test]
fn subsystems_become_storage_in_one_process() {
    scenario(|guest| becomes_storage(guest, Form::OneProcess));
}

#[test]
fn the_log_page_changes_in_one_process() {
    scenario(|guest| follows_changes(guest, Form::OneProcess));
}

#[test]
fn one_process_is_restarted() {
    scenario(|guest| restarted(guest, Form::OneProcess, Part::Both));
}

/// A bus that comes later gets both names, and one that goes takes nothing with it.
#[test]
fn a_bus_comes_and_goes() {
    scenario(|guest| {
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        port.link(&a);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let mut stas = Stas::start(guest, Form::OneProcess);
        guest.wait_for_storage(&[&a.nqn], SOON);
        let before = guest.controllers();

        let ask = |role: &str| {
            let (to, object) = (format!("--dest=org.nvmexpress.{role}"), format!("/org/nvmexpress/{role}"));
            let method = format!("org.nvmexpress.{role}.list_controllers");
            guest.run("dbus-send", &["--system", "--print-reply", &to, &object, &method, "boolean:false"])
        };
        for _ in 0..2 {
            let bus = guest.start_bus();
            guest.wait_until("the bus serves both", 2 * SOON, || {
                [ask("staf"), ask("stac")].iter().all(|asked| asked.code == Some(0))
            });
            assert!(ask("stac").ok().contains(&a.nqn));
            bus.terminate();
        }
        port.link(&b);
        guest.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
        assert!(guest.run("stacctl", &["ls"]).ok().contains(&b.nqn));
        guest.assert_untouched(&before);
        stas.assert_running();
    });
}
