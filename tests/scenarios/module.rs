//! The kernel's part is not there yet when the daemon starts.

use crate::guest::Guest;
use crate::stas::{Form, SOON, STAFD_CONF, Stas, controller, nqn};
use crate::vm::scenario;
use std::path::Path;

#[test]
fn the_module_comes_later() {
    scenario(|guest| {
        let disk = guest.target().subsystem(&nqn("a"));
        guest.target().tcp_port("127.0.0.1", 8009).link(&disk);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        unload(guest);

        let mut stas = Stas::start(guest, Form::TwoDaemons);
        stas.finder().wait_log("/dev/nvme-fabrics", SOON);
        stas.connector().wait_log("/dev/nvme-fabrics", SOON);
        stas.assert_running();
        assert_eq!(guest.run("stafctl", &["ls"]).code, Some(0));

        guest.run("modprobe", &["nvme-tcp"]).ok();
        guest.wait_for_storage(&[&disk.nqn], SOON);
    });
}

#[test]
fn no_wait() {
    scenario(|guest| {
        unload(guest);
        for (program, arguments) in
            [("stafd", &["--no-wait"][..]), ("stacd", &["--no-wait"]), ("stas", &["run", "--no-wait"])]
        {
            let finished = guest.run(program, arguments);
            assert_eq!(finished.code, Some(1), "{finished:?}");
            assert!(finished.stderr.contains("/dev/nvme-fabrics"), "{finished:?}");
        }
    });
}

fn unload(guest: &Guest) {
    for module in ["nvme_loop", "nvme_tcp", "nvme_fabrics"] {
        guest.run("modprobe", &["-r", module]);
    }
    assert!(!Path::new("/dev/nvme-fabrics").exists());
}
