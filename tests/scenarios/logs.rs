//! Where messages go.

use crate::guest::Guest;
use crate::stas::SOON;
use crate::vm::scenario;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

#[test]
fn to_syslog() {
    scenario(|guest| {
        let syslog = UnixDatagram::bind("/dev/log").unwrap();
        syslog.set_read_timeout(Some(SOON)).unwrap();
        forget_identity();
        let finished = guest.run("stafd", &["--syslog"]);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(1), ""));
        let mut buffer = [0; 4096];
        let length = syslog.recv(&mut buffer).unwrap();
        let message = String::from_utf8_lossy(&buffer[..length]);
        // Facility 3, daemon; severity 3, error.
        assert!(message.starts_with("<27>stafd["), "{message}");
        assert!(message.contains("stasadm hostnqn"), "{message}");
    });
}

#[test]
fn to_standard_error_without_syslog() {
    scenario(|guest| {
        forget_identity();
        let finished = guest.run("stafd", &["--syslog"]);
        assert_eq!(finished.code, Some(1));
        assert!(finished.stderr.contains("stasadm hostnqn"), "{}", finished.stderr);
    });
}

#[test]
fn to_the_journal() {
    scenario(|guest| {
        forget_identity();
        let lines = |guest: &Guest, device_and_inode: &str| {
            let output = File::options().append(true).open("/tmp/journal").unwrap();
            let mut command = Command::new("stafd");
            command.env("JOURNAL_STREAM", device_and_inode).stderr(output);
            assert_eq!(command.status().unwrap().code(), Some(1));
            let text = fs::read_to_string("/tmp/journal").unwrap();
            guest.write("/tmp/journal", "");
            text
        };
        guest.write("/tmp/journal", "");
        let journal = fs::metadata("/tmp/journal").unwrap();
        let journal = format!("{}:{}", journal.dev(), journal.ino());
        let text = lines(guest, &journal);
        assert!(text.lines().any(|line| line.starts_with("<3>") && line.contains("stasadm hostnqn")), "{text}");
        assert!(text.lines().all(|line| line.starts_with('<')), "{text}");
        let text = lines(guest, "1:1");
        assert!(text.contains("stasadm hostnqn") && text.lines().all(|line| line.starts_with("stafd: ")), "{text}");
    });
}

/// So that there is something to say.
fn forget_identity() {
    fs::remove_file("/etc/nvme/hostnqn").unwrap();
}
