//! Discovery controllers on Fibre Channel, which nobody configures: the kernel tells of them, when they come and when asked.

use crate::guest::Daemon;
use crate::stas::{Form, Part, SOON, STACD_CONF, STAFD_CONF, Stas, nqn};
use crate::vm::scenario;

#[test]
fn targets_are_found_kept_and_found_again() {
    scenario(|guest| {
        let fabric = guest.fibre_channel_unplugged();
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        fabric.port.link(&a);
        // The kernel gives up soon, so that it is we who connect again.
        for conf in [STAFD_CONF, STACD_CONF] {
            guest.write(conf, "reconnect-delay = 1\nctrl-loss-tmo = 2\n");
        }
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        stas.finder().wait_log("serving", SOON);
        fabric.plug_in();
        stas.wait_for_storage(&[&a.nqn], SOON);
        stas.finder().wait_log("found on the Fibre Channel fabric", SOON);
        assert!(guest.run("stafctl", &["ls", "-d"]).ok().contains("discovered"));
        fabric.port.link(&b);
        stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
        let before = guest.controllers();
        assert_eq!(before.len(), 3, "{before:?}");

        // What is connected already is told of too.
        stas.end(Part::Both, Daemon::kill);
        stas.start_again();
        stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
        guest.assert_untouched(&before);

        // Nothing that an earlier run knew is left: the ports are there, and the kernel has told of them long ago.
        stas.end(Part::Both, Daemon::terminate);
        before.iter().for_each(|controller| guest.disconnect(&controller.name));
        guest.run("rm", &["-r", "/run/stafd", "/run/stacd"]).ok();
        stas.start_again();
        stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);

        fabric.take_away();
        guest.wait_until("the kernel has given up", SOON, || guest.controllers().iter().all(|one| !one.is_live()));
        stas.finder().wait_log("the kernel removed", SOON);
        fabric.bring_back();
        stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
        guest.wait_until("all are back, once", SOON, || guest.controllers().len() == 3);
    });
}
