//! Debian 13 inside the guest, for what others wrote and Debian packaged: nvme-stas with its Python, gdbus, busctl.
//!
//! Its file system is on a disk that can only be read; over it lie the guest's own `/proc`, `/sys`, `/dev`, `/run`, `/tmp` and
//! configuration, so that its programs see the same devices, sockets and settings as ours.

use super::{Daemon, Finished, Guest};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const ROOT: &str = "/debian";

/// Where ours are for Debian's programs.
pub const OURS: &str = "/tmp/ours";

/// What Debian's programs share with the rest of the guest.
const SHARED: [&str; 8] = ["proc", "sys", "dev", "run", "tmp", "etc/dbus-1", "etc/nvme", "etc/stas"];

impl Guest {
    /// Mounts it. Needs [`crate::vm::Scenario::with_debian`].
    #[track_caller]
    pub fn debian(&self) -> Debian<'_> {
        self.run("modprobe", &["-a", "virtio_pci", "virtio_blk", "ext4"]).ok();
        self.wait_until("the disk is there", Duration::from_secs(5), || Path::new("/dev/vda").exists());
        self.run("mkdir", &["-p", ROOT, "/etc/stas", "/etc/nvme"]).ok();
        self.run("mount", &["-t", "ext4", "-o", "ro", "/dev/vda", ROOT]).ok();
        for directory in SHARED {
            self.run("mount", &["--bind", &format!("/{directory}"), &format!("{ROOT}/{directory}")]).ok();
        }
        Debian { guest: self }
    }
}

#[derive(Debug)]
pub struct Debian<'a> {
    guest: &'a Guest,
}

impl Debian<'_> {
    /// Runs one of its programs to its end.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> Finished {
        self.guest.run("chroot", &[&[ROOT, program], arguments].concat())
    }

    /// Starts one of its programs that keeps running.
    #[track_caller]
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Daemon {
        let name = format!("Debian's {}", Path::new(program).file_name().unwrap_or_default().display());
        let path = format!("{OURS}:/usr/sbin:/usr/bin:/sbin:/bin");
        self.guest.spawn_command(&name, Command::new("chroot").args([ROOT, program]).args(arguments).env("PATH", path))
    }

    /// Has its programs find ours.
    pub fn install(&self) {
        self.guest.run("mkdir", &["-p", OURS]).ok();
        self.guest.run("cp", &["-P", "/usr/bin/stas", "/usr/bin/stasadm", OURS]).ok();
    }
}
