//! The firmware's boot tables, as a kernel hands them on: `stas nbft`.

#[path = "../build/nbft.rs"]
pub mod build;

use crate::guest::Guest;
use crate::vm::{Scenario, scenario};
use build::{Host, Ssns, Table, ip};
use serde_json::Value;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn table(host: &str, nqn: &str) -> Table {
    Table {
        host: Host { nqn: host.to_owned(), ..Host::default() },
        ssns: vec![Ssns { nqn: nqn.to_owned(), traddr: ip("192.0.2.7"), ..Ssns::default() }],
        ..Table::default()
    }
}

#[test]
fn the_boot_table_is_shown() {
    let table = table("nqn.2026-01.example:host", "nqn.2026-01.example:root").bytes();
    Scenario::new().acpi_table(table).run(|guest| {
        let text = guest.run("stas", &["nbft"]).ok();
        let first = text.lines().next().unwrap_or_default();
        assert_eq!(first.split_whitespace().collect::<Vec<_>>(), ["NBFT", "revision", "1.0", "STAS", "TABLE"]);
        for shown in ["nqn.2026-01.example:host", "192.0.2.7", "nqn.2026-01.example:root", "52:54:00:00:00:01"] {
            assert!(text.contains(shown), "{shown} is not shown:\n{text}");
        }
        let found = json(guest, 0);
        assert_eq!(found["tables"][0]["subsystems"][0]["subsysnqn"], "nqn.2026-01.example:root");
        assert_eq!(found["damaged"], serde_json::json!([]));

        // A host that has no name is who it was to the storage that it booted from; but once it has one, it keeps that.
        fs::remove_dir_all("/etc/nvme").unwrap();
        let made = |what: &str| {
            let file = format!("/etc/nvme/{what}");
            guest.run("stasadm", &[what, "--if-missing", "-f", &file]).ok();
            fs::read_to_string(file).unwrap().trim().to_owned()
        };
        let id = "a1b2c3d4-e5f6-4708-890a-0b0c0d0e0f10";
        assert_eq!([made("hostnqn"), made("hostid")], ["nqn.2026-01.example:host", id]);
        let uuid = "0f1e2d3c-4b5a-4697-8879-6a5b4c3d2e1f";
        let other = format!("nqn.2014-08.org.nvmexpress:uuid:{uuid}");
        guest.write("/etc/nvme/hostnqn", &other);
        fs::remove_file("/etc/nvme/hostid").unwrap();
        assert_eq!([made("hostnqn"), made("hostid")], [&other, uuid]);

        // Only root may read it, but who has a copy may read that.
        let as_user = |arguments: &[&str]| {
            let output = Command::new("stas").arg("nbft").args(arguments).uid(65534).gid(65534).output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let (code, stderr) = as_user(&[]);
        assert!(code == Some(1) && stderr.contains("NBFT: cannot be read") && stderr.contains("as root"), "{stderr}");
        let copy = fs::read("/sys/firmware/acpi/tables/NBFT").unwrap();
        fs::write("/tmp/copy", &copy).unwrap();
        assert_eq!(as_user(&["--file", "/tmp/copy"]), (Some(0), String::new()));

        // One bit is wrong.
        let last = copy.len() - 1;
        fs::write("/tmp/copy", [&copy[..last], &[copy[last] ^ 1]].concat()).unwrap();
        let (code, stderr) = as_user(&["--file", "/tmp/copy"]);
        assert!(code == Some(1) && stderr.contains("/tmp/copy: damaged, ignored: its checksum"), "{stderr}");
    });
}

#[test]
fn of_several_boot_tables_a_damaged_one_is_ignored() {
    let mut damaged = table("nqn.2026-01.example:host", "nqn.2026-01.example:b").bytes();
    // The heap begins far behind its end.
    damaged[36..40].copy_from_slice(&[0xff; 4]);
    let machine = Scenario::new()
        .acpi_table(table("nqn.2026-01.example:host", "nqn.2026-01.example:a").bytes())
        .acpi_table(damaged)
        .acpi_table(table("nqn.2026-01.example:host", "nqn.2026-01.example:c").bytes());
    machine.run(|guest| {
        let found = json(guest, 1);
        let shown = |at: usize| {
            let table = &found["tables"][at];
            (
                table["name"].as_str().unwrap_or_default(),
                table["subsystems"][0]["subsysnqn"].as_str().unwrap_or_default(),
            )
        };
        assert_eq!([shown(0), shown(1)], [("NBFT1", "nqn.2026-01.example:a"), ("NBFT3", "nqn.2026-01.example:c")]);
        assert_eq!(found["damaged"][0]["name"], "NBFT2");
        let shown = guest.run("stas", &["nbft"]);
        assert_eq!(shown.code, Some(1));
        assert!(shown.stdout.contains("example:a") && shown.stdout.contains("example:c"), "{}", shown.stdout);
        assert!(shown.stderr.contains("NBFT2: damaged, ignored: its heap lies outside of it"), "{}", shown.stderr);
    });
}

#[test]
fn no_boot_table_is_told() {
    scenario(|guest| {
        let none = guest.run("stas", &["nbft"]);
        assert_eq!((none.code, none.stdout.as_str()), (Some(3), ""));
        assert!(none.stderr.contains("no table in /sys/firmware/acpi/tables"), "{}", none.stderr);
        assert_eq!(json(guest, 3)["tables"], serde_json::json!([]));
    });
}

#[track_caller]
fn json(guest: &Guest, code: i32) -> Value {
    let shown = guest.run("stas", &["nbft", "-o", "json"]);
    assert_eq!(shown.code, Some(code), "{}", shown.stderr);
    serde_json::from_str(&shown.stdout).unwrap()
}
