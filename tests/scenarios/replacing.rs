//! One way to a subsystem is replaced by another, and several ways are used at once.

use crate::guest::Daemon;
use crate::stas::{Form, Part, SOON, STACD_CONF, STAFD_CONF, Stas, controller, io_controller, nqn};
use crate::vm::scenario;

/// The administrator corrects a port. The old path goes when the new one is live.
#[test]
fn an_edited_controller_is_made_before_the_old_one_breaks() {
    scenario(|guest| {
        let disk = guest.target().subsystem(&nqn("disk"));
        guest.target().tcp_port("127.0.0.1", 4420).link(&disk);
        guest.write(STACD_CONF, &io_controller("127.0.0.1", 4420, &disk.nqn));
        let stas = Stas::start(guest, Form::OneProcess);
        let old = guest.wait_for_storage(&[&disk.nqn], SOON);

        guest.write(STACD_CONF, &io_controller("127.0.0.1", 4421, &disk.nqn));
        stas.connector().reload();
        stas.connector().wait_log("stays until what replaces it is connected", SOON);
        stas.connector().wait_log("127.0.0.1:4421: nothing listens", SOON);
        let shown = guest.run("stacctl", &["ls"]).ok();
        assert!(shown.contains("what replaces it is not connected yet"), "{shown}");
        guest.assert_untouched(&old);

        guest.target().tcp_port("127.0.0.1", 4421).link(&disk);
        guest.wait_until("the new path is the only one", SOON, || {
            let paths = guest.controllers();
            paths.len() == 1 && paths[0].is_live() && paths[0].address_field("trsvcid") == Some("4421")
        });
        assert_eq!(guest.block_devices().len(), 1, "the disk never went away");
        let log = guest.kernel_log();
        assert!(log.find("127.0.0.1:4421").unwrap() < log.find("Removing ctrl").unwrap(), "{log}");
    });
}

/// Two ports behind each of two cables: four paths, one disk; after a restart too.
#[test]
fn several_ports_and_interfaces_are_as_many_paths() {
    scenario(|guest| {
        let disk = guest.target().subsystem(&nqn("disk"));
        let mut finds = String::new();
        for (name, net) in [("east", 1), ("west", 2)] {
            let [here, there] = [1, 2].map(|host| format!("10.98.{net}.{host}"));
            let far = guest.namespace(name, &format!("{here}/24"), &format!("{there}/24"));
            for port in [8009, 8010] {
                guest.target().tcp_port(&there, port).link_in(&far, &disk);
                finds += &(controller(&there, port) + &format!("host-iface = \"{name}\"\n"));
            }
        }
        // The same once more, in another spelling and unpinned: no further path.
        finds += &controller("::ffff:10.98.1.2", 8009);
        guest.write(STAFD_CONF, &finds);
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_until("all paths are live", SOON, || guest.live_io_controllers().len() == 4);
        assert_eq!(guest.block_devices().len(), 1);
        let paths = guest.live_io_controllers();
        for here in ["10.98.1.1", "10.98.2.1"] {
            let from_here = paths.iter().filter(|path| path.address_field("src_addr") == Some(here));
            assert_eq!(from_here.count(), 2, "{paths:?}");
        }

        stas.end(Part::Both, Daemon::kill);
        stas.start_again();
        guest.wait_until("stacctl shows them", SOON, || {
            guest.run("stacctl", &["ls"]).stdout.lines().filter(|line| line.starts_with("nvme")).count() >= 4
        });
        guest.assert_untouched(&paths);
        assert_eq!(guest.live_io_controllers(), paths, "no duplicates");
        assert!(guest.run("stas", &["tree"]).ok().contains("on east"));
    });
}
