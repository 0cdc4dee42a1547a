//! What the guest boots from: the base that `tests/setup` made, and after it, in the same file, an archive of ours. And what
//! a machine without a disk boots from (see pair.rs): what was made for it, and after it the program under test.
//!
//! The kernel unpacks concatenated cpio archives one over the other. Ours has the first process, this very test
//! executable, the program under test with its names, and the repository's `etc/`.
//!
//! Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst, "newc".

use super::Initramfs;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is tested in place of the program that was built together with the scenarios.
const OTHER_PROGRAM: &str = "STAS_PROGRAM";

/// The names that `stas` answers to.
const NAMES: [&str; 5] = ["stafd", "stacd", "stafctl", "stacctl", "stasadm"];

/// Writes the whole initramfs: `base`, then ours.
pub fn build(base: &Path, to: &Path) -> io::Result<()> {
    let mut out = File::create(to)?;
    io::copy(&mut File::open(base)?, &mut out)?;
    let mut archive = Archive { out, inode: 0 };
    archive.file("init", 0o755, include_bytes!("init"))?;
    archive.file("scenarios", 0o755, &std::fs::read(std::env::current_exe()?)?)?;
    archive.file("usr/bin/stas", 0o755, &std::fs::read(program())?)?;
    for name in NAMES {
        archive.link(&format!("usr/bin/{name}"), "stas")?;
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    archive.tree("etc", &repository.join("etc"))?;
    archive.directory("usr/share/stas")?;
    archive.tree("usr/share/stas/init", &repository.join("init"))?;
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n")?;
    archive.directory("etc/nvme")?;
    archive.file("etc/nvme/hostnqn", 0o644, format!("{}\n", crate::guest::HOSTNQN).as_bytes())?;
    archive.file("etc/nvme/hostid", 0o644, format!("{}\n", crate::guest::HOSTID).as_bytes())?;
    archive.finish()
}

/// The libraries of the program under test. In use it is linked statically.
const LIBRARIES: [&str; 4] = [
    "lib64/ld-linux-x86-64.so.2",
    "lib/x86_64-linux-gnu/libc.so.6",
    "lib/x86_64-linux-gnu/libgcc_s.so.1",
    "lib/x86_64-linux-gnu/libm.so.6",
];

/// What the kernel needs to reach a root file system over the network of these machines.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_net", "nvme-tcp", "ext4"];

/// Writes the initramfs of a machine without a disk. `vm` is where `tests/setup` puts things.
pub fn boot(kind: Initramfs, vm: &Path, to: &Path) -> io::Result<()> {
    let program = &program();
    let mut out = File::create(to)?;
    let base = match kind {
        Initramfs::Compared(name) => {
            let mut archive = compared(name, vm, out)?;
            for (path, text) in MARKS {
                archive.file(path, 0o755, text.as_bytes())?;
            }
            return archive.finish();
        }
        Initramfs::Dracut => "debian/dracut.cpio",
        Initramfs::Debian => "debian/initramfs-tools.cpio",
        Initramfs::HandMade => {
            let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("init/initramfs/build");
            let modules = vm.join("6.12/lib/modules").join(std::fs::read_to_string(vm.join("6.12/version"))?.trim());
            let command = &mut Command::new(recipe);
            command.args([program, Path::new("/bin/busybox"), &modules]).args(MODULES);
            let status = command.stdout(out.try_clone()?).status()?;
            if !status.success() {
                return Err(io::Error::other(format!("{command:?}: {status}")));
            }
            let mut archive = Archive { out, inode: 0 };
            for directory in ["lib64", "lib", "lib/x86_64-linux-gnu"] {
                archive.directory(directory)?;
            }
            for library in LIBRARIES {
                archive.file(library, 0o755, &std::fs::read(Path::new("/").join(library))?)?;
            }
            return archive.finish();
        }
    };
    io::copy(&mut File::open(vm.join(base))?, &mut out)?;
    let mut archive = Archive { out, inode: 0 };
    archive.file("usr/sbin/stas", 0o755, &std::fs::read(program)?)?;
    archive.finish()
}

/// The program under test.
fn program() -> PathBuf {
    std::env::var_os(OTHER_PROGRAM).map_or_else(|| env!("CARGO_BIN_EXE_stas").into(), PathBuf::from)
}

/// Have the kernel's log say when dracut begins with what is asked for on the command line, when udev has settled, and when a
/// disk appears.
const MARKS: [(&str, &str); 3] = [
    ("var/lib/dracut/hooks/cmdline/91-mark.sh", "echo mark: cmdline >/dev/kmsg\n"),
    ("var/lib/dracut/hooks/initqueue/settled/94-mark.sh", "echo mark: settled >/dev/kmsg\n"),
    (
        "usr/lib/udev/rules.d/00-mark.rules",
        "ACTION==\"add\", SUBSYSTEM==\"block\", KERNEL==\"nvme*n*\", RUN+=\"/bin/sh -c 'echo mark: disk >/dev/kmsg'\"\n",
    ),
];

/// An initramfs that is compared, as somebody would have it: with the program as it is installed, where it is ours.
pub fn write_compared(name: &str, vm: &Path, to: &Path) -> io::Result<()> {
    compared(name, vm, File::create(to)?)?.finish()
}

fn compared(name: &str, vm: &Path, mut out: File) -> io::Result<Archive> {
    io::copy(&mut File::open(vm.join(format!("bench/{name}.cpio")))?, &mut out)?;
    let mut archive = Archive { out, inode: 0 };
    if name == "stas" {
        archive.file("usr/sbin/stas", 0o755, &std::fs::read(program())?)?;
    }
    Ok(archive)
}

struct Archive {
    out: File,
    inode: u32,
}

impl Archive {
    fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, 0o040_755, b"")
    }

    fn file(&mut self, name: &str, mode: u32, data: &[u8]) -> io::Result<()> {
        self.entry(name, 0o100_000 | mode, data)
    }

    fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.entry(name, 0o120_777, target.as_bytes())
    }

    /// A directory of the host with all that is in it.
    fn tree(&mut self, name: &str, from: &Path) -> io::Result<()> {
        self.directory(name)?;
        for entry in from.read_dir()? {
            let entry = entry?;
            let name = format!("{name}/{}", entry.file_name().display());
            if entry.file_type()?.is_dir() {
                self.tree(&name, &entry.path())?;
            } else {
                self.file(&name, 0o644, &std::fs::read(entry.path())?)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, b"")
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let (owner, links, time, device, checksum) = (0, 1, 0, 0, 0);
        write!(self.out, "070701{:08x}{mode:08x}{owner:08x}{owner:08x}{links:08x}{time:08x}", self.inode)?;
        write!(self.out, "{:08x}{device:08x}{device:08x}{device:08x}{device:08x}", data.len())?;
        write!(self.out, "{:08x}{checksum:08x}", name.len() + 1)?;
        // The header has 110 bytes; the name with its NUL, and the data, end on a multiple of four.
        write!(self.out, "{name}\0{}", padding(110 + name.len() + 1))?;
        self.out.write_all(data)?;
        write!(self.out, "{}", padding(data.len()))
    }
}

fn padding(length: usize) -> &'static str {
    ["", "\0\0\0", "\0\0", "\0"][length % 4]
}
