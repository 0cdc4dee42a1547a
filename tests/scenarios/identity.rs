//! A host that does not know who it is connects nothing, and says what to do about it.

use crate::guest::{Guest, HOSTID};
use crate::vm::scenario;
use std::fs;

#[test]
fn a_missing_identity_is_told() {
    scenario(|guest| {
        fs::remove_file("/etc/nvme/hostnqn").unwrap();
        let log = refuses(guest, "stafd", &[]);
        assert!(log.contains("/etc/nvme/hostnqn") && log.contains("stasadm hostnqn"), "{log}");
        assert!(!log.contains("hostid"), "that one is there: {log}");

        fs::remove_file("/etc/nvme/hostid").unwrap();
        for (program, arguments) in [("stafd", &[][..]), ("stacd", &[]), ("stas", &["run"])] {
            let log = refuses(guest, program, arguments);
            assert!(log.contains("stasadm hostnqn") && log.contains("stasadm hostid"), "{log}");
        }
    });
}

#[test]
fn a_wrong_identity_is_told() {
    scenario(|guest| {
        guest.write("/etc/nvme/hostnqn", "iqn.2026-01.example:initiator\n");
        guest.write("/etc/nvme/hostid", "00000000-0000-0000-0000-000000000000\n");
        let log = refuses(guest, "stas", &["run"]);
        assert!(log.contains("iqn.2026-01.example:initiator") && log.contains("stands for no host"), "{log}");

        guest.write("/etc/stas/sys.conf", &format!("nqn = \"nqn.{}\"\nid = \"{HOSTID}\"\n", "x".repeat(220)));
        let log = refuses(guest, "stas", &["run"]);
        assert!(log.contains("/etc/stas/sys.conf:1") && log.contains("223"), "{log}");

        guest.write("/etc/stas/sys.conf", "nqn = \nid = 7\n");
        let log = refuses(guest, "stas", &["run"]);
        assert!(log.contains("/etc/stas/sys.conf:1"), "{log}");
    });
}

/// What it says when it does not start.
#[track_caller]
fn refuses(guest: &Guest, program: &str, arguments: &[&str]) -> String {
    let finished = guest.run(program, arguments);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert_eq!(finished.stdout, "");
    finished.stderr
}
