//! A machine with Debian on its disk, as an administrator has it: systemd, and packages that dpkg knows.
//!
//! The machine begins like any other. There the test, the packages of this tree and the test's service are put into the file
//! system on the disk, which is then what the machine goes on with; systemd starts the same test again, and that runs the
//! closure. What is written to the disk is forgotten.

use super::machine::{Ear, Machine, Peer, Start};
use super::{ROLE, Role, in_directory, initramfs, judge, kernel_and_disk, on_host};
use crate::guest::{self, Guest};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the disk is mounted before the machine goes on there. `init` looks for it.
const ROOT: &str = "/installed";

/// Where the packages of this tree are in it.
pub const PACKAGES: &str = "/var/cache/stas";

const LIMIT: Duration = Duration::from_secs(600);

/// What systemd is to start, with what every service needs.
const SERVICE: &str = "[Unit]\nRequires=dbus.service\nAfter=dbus.service\n[Service]\nExecStart=/scenario\n";

/// What such a machine can do without.
const NEEDLESS: [&str; 12] = [
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
    "modprobe@fuse.service",
    "systemd-modules-load.service",
    "systemd-random-seed.service",
    "systemd-sysctl.service",
    "systemd-tmpfiles-setup-dev-early.service",
    "systemd-udev-load-credentials.service",
    "systemd-udev-trigger.service",
];

/// To be called by the `#[test]` itself.
pub fn installed(body: impl FnOnce(&Guest)) {
    match Role::here() {
        Some(_) => guest::run(body),
        None if guest::is_here() => guest::prepare(prepare),
        None => on_host(boot),
    }
}

/// In the machine as it begins.
fn prepare(guest: &Guest) {
    guest.run("modprobe", &["-a", "virtio_pci", "virtio_blk", "ext4"]).ok();
    guest.wait_until("the disks are there", Duration::from_secs(10), || Path::new("/dev/vdb").exists());
    fs::create_dir(ROOT).unwrap();
    guest.run("mount", &["-t", "ext4", "/dev/vda", ROOT]).ok();
    let at = |path: &str| format!("{ROOT}{path}");
    let write = |path: &str, mode: u32, text: &str| {
        guest.write(at(path), text);
        fs::set_permissions(at(path), Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir_all(at(PACKAGES)).unwrap();
    guest.run("tar", &["-xf", "/dev/vdb", "-C", &at(PACKAGES)]).ok();
    guest.run("cp", &["/scenarios", &at("/scenarios")]).ok();
    guest.run("cp", &["-r", "/etc/nvme", &at("/etc")]).ok();
    let test = std::env::var("STAS_SCENARIO").unwrap();
    let script = format!(
        "#!/bin/sh\nexport STAS_SCENARIO={test} {ROLE}=booted PATH=/usr/sbin:/usr/bin\nexec >/dev/console 2>&1\n\
         /scenarios --exact \"$STAS_SCENARIO\" --include-ignored --nocapture --quiet --test-threads=1\n\
         echo b >/proc/sysrq-trigger\n"
    );
    write("/scenario", 0o755, &script);
    write("/etc/systemd/system/scenario.service", 0o644, SERVICE);
    // Emulated, they would take seconds each time that systemd reads its units anew.
    fs::remove_dir_all(at("/usr/lib/systemd/system-generators")).unwrap();
    for unit in NEEDLESS {
        symlink("/dev/null", at(&format!("/etc/systemd/system/{unit}"))).unwrap();
    }
    // It has been started before: nobody is asked how to set it up.
    write("/etc/machine-id", 0o444, "0123456789abcdef0123456789abcdef\n");
    fs::remove_dir_all(at("/usr/lib/udev/rules.d")).unwrap();
    fs::rename(at("/usr/lib/udev/rules.all"), at("/usr/lib/udev/rules.d")).unwrap();
}

fn boot(test: &str) -> Result<(), String> {
    let [vm, kernel, disk] = kernel_and_disk()?;
    let file = test.replace("::", ".");
    let [image, packages] = [".cpio", ".packages"].map(|end| in_directory(&vm.join("run"), &format!("{file}{end}")));
    let (image, packages) = (image?, packages?);
    let log = in_directory(&vm.join("logs"), &format!("{file}.log"))?;
    initramfs::build(&kernel.join("initramfs.cpio"), &image)
        .map_err(|error| format!("cannot make the guest's file system {}: {error}", image.display()))?;
    let archive = build_packages(&packages)?;
    let drive = |path: &Path, name: &str| {
        let drive = format!("file={},format=raw,if=none,id={name},snapshot=on,cache=unsafe", path.display());
        ["-drive".to_owned(), drive, "-device".to_owned(), format!("virtio-blk-pci,drive={name}")]
    };
    let devices = [drive(&disk, "disk"), drive(&archive, "packages")].concat();
    let nobody = Ear::default();
    let machine = Machine {
        kernel: &kernel.join("vmlinux"),
        initramfs: &image,
        disk: None,
        peer: Some(Peer { devices: &devices, own: &nobody, other: &nobody }),
        acpi_tables: &[],
        start: Start::Scenario(test),
        boot_option: "systemd.unit=scenario.service",
        memory: 1024,
        limit: LIMIT,
        log: &log,
        narrated: false,
        counts_instructions: false,
    };
    let report = machine.run();
    let _ = fs::remove_file(image);
    let _ = fs::remove_dir_all(packages);
    let report = report.map_err(|error| format!("cannot run QEMU: {error}; tests/setup installs what is missing"))?;
    judge(test, &report, LIMIT).map_err(|why| format!("{why}\nThe guest's log is {}", log.display()))
}

/// The packages of this tree, with the program under test, in an archive.
fn build_packages(directory: &Path) -> Result<PathBuf, String> {
    let _ = fs::remove_dir_all(directory);
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/debian/build");
    let mut command = Command::new(build);
    command.arg(format!("--binary={}", env!("CARGO_BIN_EXE_stas"))).arg(directory);
    // Compressing would take longer than all the rest.
    command.env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    run(&mut command)?;
    let archive = directory.join("packages.tar");
    run(Command::new("sh").args(["-c", "cd \"$1\" && tar -cf packages.tar ./*.deb", "sh"]).arg(directory))?;
    Ok(archive)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}\n{said}", output.status)) }
}
