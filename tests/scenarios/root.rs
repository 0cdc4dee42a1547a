//! The root file system on NVMe/TCP: a machine without a disk, told by its firmware's boot table where its root is, boots
//! from another machine. Its first path is made in the initramfs; the daemon that starts in the booted system takes it over
//! and adds the second; the first is cut, and work goes on; and a reboot leaves a clean file system.

use crate::guest::{Guest, HOSTID, HOSTNQN, Subsystem};
use crate::nbft::build::{Hfi, Host, Ssns, Table, ip};
use crate::vm::{Initramfs, OFF, Pair, ROLE, Role};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

const ROOT: &str = "nqn.2026-01.example:root";
const DATA: &str = "nqn.2026-01.example:data";

/// What the table says of the root's namespace.
const ROOT_UUID: &str = "abababab-abab-abab-abab-abababababab";

/// Of the target and of the machine that boots, on the first and on the second cable.
const TARGET: [&str; 2] = ["10.0.1.1", "10.0.2.1"];
const BOOTED: [&str; 2] = ["10.0.1.2", "10.0.2.2"];

/// Emulated, a system takes its time, and so does the kernel until it gives a path up.
const LONG: Duration = Duration::from_secs(90);

/// What the booted machine has the target do: cut the first cable, and mend it.
const CUT: &str = "cut";
const MEND: &str = "mend";

#[test]
fn an_initramfs_made_by_hand_boots_openrc() {
    let booted = |booted: &Guest| {
        live_on_two_paths(booted, &OPENRC);
        makes_an_image_for_itself(booted);
    };
    Pair::new(Initramfs::HandMade, "root=LABEL=debian ro init=/usr/sbin/openrc-init", boot_table())
        .run(|target| serve(target, &OPENRC), booted);
}

#[test]
fn an_initramfs_of_dracut_boots_systemd() {
    Pair::new(Initramfs::Dracut, "root=LABEL=debian rw", boot_table())
        .run(|target| serve(target, &SYSTEMD), |booted| live_on_two_paths(booted, &SYSTEMD));
}

#[test]
fn an_initramfs_of_initramfs_tools_boots_systemd_with_two_daemons() {
    Pair::new(Initramfs::Debian, "root=LABEL=debian rw init=/usr/lib/systemd/systemd", boot_table())
        .run(|target| serve(target, &TWO_SERVICES), |booted| live_on_two_paths(booted, &TWO_SERVICES));
}

/// Names the first path only.
pub fn boot_table() -> Vec<u8> {
    let id = u128::from_str_radix(&HOSTID.replace('-', ""), 16).unwrap().to_be_bytes();
    let mac = Role::Booted.mac(1);
    Table {
        host: Host { nqn: HOSTNQN.to_owned(), id, ..Host::default() },
        hfis: vec![Hfi { mac, address: ip(BOOTED[0]), ..Hfi::default() }],
        // libnvme takes no table without a list of further HFIs.
        ssns: vec![Ssns { nqn: ROOT.to_owned(), traddr: ip(TARGET[0]), secondary_hfis: vec![1], ..Ssns::default() }],
        ..Table::default()
    }
    .bytes()
}

/// How the booted system starts and stops things.
pub struct ServiceManager {
    /// Files besides those in `init/`, with their modes.
    files: &'static [(&'static str, u32, &'static str)],
    /// From and to.
    links: &'static [(&'static str, &'static str)],
    /// What is copied from `init/`, and where to.
    ours: (&'static str, &'static str),
    status: &'static [&'static str],
    reload: &'static [&'static str],
    reboot: &'static str,
}

const OPENRC: ServiceManager = ServiceManager {
    files: &[
        (
            "etc/init.d/root",
            0o755,
            "#!/sbin/openrc-run\ndepend() { before *; }\nstart() { mount -o remount,rw /; }\n\
             stop() { mount -o remount,ro /; }\n",
        ),
        (
            "etc/init.d/second-card",
            0o755,
            "#!/sbin/openrc-run\ndepend() { provide net; }\n\
             rename() { ip link set eth0 name storage; }\n\
             start() { rename && ip addr add 10.0.2.2/24 dev eth1 && ip link set eth1 up; }\n",
        ),
        ("etc/init.d/scenario", 0o755, "#!/sbin/openrc-run\ndepend() { need stas; }\nstart() { /scenario & }\n"),
        ("etc/conf.d/stas", 0o644, "stas_args=\nerror_log=/dev/console\n"),
    ],
    links: &[
        ("/etc/init.d/root", "etc/runlevels/boot/root"),
        ("/etc/init.d/second-card", "etc/runlevels/default/second-card"),
        ("/etc/init.d/stas", "etc/runlevels/default/stas"),
        ("/etc/init.d/scenario", "etc/runlevels/default/scenario"),
    ],
    ours: ("openrc/stas", "etc/init.d/stas"),
    status: &["rc-service", "stas", "status"],
    reload: &["rc-service", "stas", "reload"],
    reboot: "openrc-shutdown --reboot now",
};

const CONSOLE: &str = "[Service]\nStandardError=journal+console\n";
const SCENARIO: (&str, &str) =
    ("/etc/systemd/system/scenario.service", "etc/systemd/system/multi-user.target.wants/scenario.service");
const NETWORKD: (&str, &str) = (
    "/usr/lib/systemd/system/systemd-networkd.service",
    "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
);

/// `stafd` and `stacd`, which meet on the system bus.
const TWO_SERVICES: ServiceManager = ServiceManager {
    links: &[
        ("/etc/systemd/system/stafd.service", "etc/systemd/system/multi-user.target.wants/stafd.service"),
        ("/etc/systemd/system/stacd.service", "etc/systemd/system/multi-user.target.wants/stacd.service"),
        SCENARIO,
        NETWORKD,
    ],
    status: &["systemctl", "is-active", "stafd", "stacd"],
    reload: &["systemctl", "reload", "stacd"],
    ..SYSTEMD
};

pub const SYSTEMD: ServiceManager = ServiceManager {
    files: &[
        (
            "etc/systemd/network/second.network",
            0o644,
            "[Match]\nMACAddress=52:54:00:00:02:02\n[Network]\nAddress=10.0.2.2/24\n",
        ),
        (
            "etc/systemd/system/scenario.service",
            0o644,
            "[Unit]\nAfter=stas.service stafd.service stacd.service\n[Service]\nExecStart=/scenario\nStandardOutput=tty\n",
        ),
        ("etc/systemd/system/stas.service.d/console.conf", 0o644, CONSOLE),
        ("etc/systemd/system/stafd.service.d/console.conf", 0o644, CONSOLE),
        ("etc/systemd/system/stacd.service.d/console.conf", 0o644, CONSOLE),
    ],
    links: &[
        ("/etc/systemd/system/stas.service", "etc/systemd/system/multi-user.target.wants/stas.service"),
        SCENARIO,
        NETWORKD,
    ],
    ours: ("systemd/.", "etc/systemd/system"),
    status: &["systemctl", "is-active", "stas"],
    reload: &["systemctl", "reload", "stas"],
    reboot: "systemctl reboot",
};

/// None: the test itself is the first process (`init=/scenario`).
pub const NONE: ServiceManager = ServiceManager {
    files: &[],
    links: &[],
    status: &[],
    reload: &[],
    reboot: "sh -c 'mount -o remount,ro / && echo b >/proc/sysrq-trigger'",
    ..SYSTEMD
};

/// The target's part: the root file system is made ready, then served on both cables.
pub fn serve(target: &Guest, manager: &ServiceManager) {
    target.run("modprobe", &["-a", "virtio_pci", "virtio_blk", "virtio_net", "ext4"]).ok();
    target.wait_until("the disk is there", LONG, || Path::new("/dev/vda").exists());
    fs::create_dir("/mnt").unwrap();
    target.run("mount", &["-t", "ext4", "/dev/vda", "/mnt"]).ok();
    install(target, Path::new("/mnt"), manager);
    target.run("umount", &["/mnt"]).ok();

    let [root, data] = [target.target().empty_subsystem(ROOT), target.target().subsystem(DATA)];
    root.add_device(1, "/dev/vda", ROOT_UUID);
    let ports = [(TARGET[0], "eth0"), (TARGET[1], "eth1")].map(|(address, card)| {
        target.run("ip", &["address", "add", &format!("{address}/24"), "dev", card]).ok();
        target.run("ip", &["link", "set", card, "up"]).ok();
        target.target().tcp_port(address, 4420)
    });
    let link = |port: &crate::guest::Port, subsystem: &Subsystem| port.link(subsystem);
    link(&ports[0], &root);
    link(&ports[1], &root);
    link(&ports[1], &data);

    for line in target.heard() {
        match line.as_str() {
            CUT => drop(target.run("ip", &["link", "set", "eth0", "down"]).ok()),
            MEND => drop(target.run("ip", &["link", "set", "eth0", "up"]).ok()),
            OFF => break,
            other => panic!("what is {other:?}?"),
        }
    }
    assert!(is_clean("/dev/vda"), "the root file system was not unmounted");
}

/// Puts the program, its configuration and its services into the file system at `root`, and this test with them.
fn install(target: &Guest, root: &Path, manager: &ServiceManager) {
    let at = |path: &str| root.join(path).to_string_lossy().into_owned();
    let copy = |from: &str, to: &str| drop(target.run("cp", &["-RL", from, &at(to)]).ok());
    let write = |path: &str, mode: u32, text: &str| {
        target.write(at(path), text);
        fs::set_permissions(at(path), Permissions::from_mode(mode)).unwrap();
    };
    copy("/usr/bin/stas", "usr/sbin/stas");
    for name in ["stafd", "stacd", "stafctl", "stacctl", "stasadm"] {
        // In place of nvme-stas.
        let _ = fs::remove_file(at(&format!("usr/bin/{name}")));
        target.run("ln", &["-sf", "stas", &at(&format!("usr/sbin/{name}"))]).ok();
    }
    copy("/scenarios", "scenarios");
    copy("/etc/stas", "etc/");
    copy("/etc/dbus-1/system.d/.", "etc/dbus-1/system.d");
    let controllers = TARGET
        .map(|address| format!("[[controller]]\ntransport = \"tcp\"\ntraddr = \"{address}\"\ntrsvcid = \"4420\"\n"));
    write("etc/stas/stafd.conf", 0o644, &format!("zeroconf = false\n{}", controllers.concat()));
    fs::remove_dir_all(at("usr/lib/udev/rules.d")).unwrap();
    fs::rename(at("usr/lib/udev/rules.all"), at("usr/lib/udev/rules.d")).unwrap();

    let (ours, to) = manager.ours;
    copy(&format!("/usr/share/stas/init/{ours}"), to);
    for (path, mode, text) in manager.files {
        write(path, *mode, text);
    }
    if manager.ours.0 == OPENRC.ours.0 {
        fs::set_permissions(at(to), Permissions::from_mode(0o755)).unwrap();
    }
    for (from, to) in manager.links {
        fs::create_dir_all(Path::new(&at(to)).parent().unwrap()).unwrap();
        symlink(from, at(to)).unwrap();
    }
    let environment = std::env::var("STAS_SCENARIO").unwrap();
    let script = format!(
        "#!/bin/sh\nexport STAS_SCENARIO={environment} {ROLE}=booted PATH=/usr/sbin:/usr/bin\n\
         exec >/dev/console 2>&1\n\
         /scenarios --exact \"$STAS_SCENARIO\" --include-ignored --nocapture --quiet --test-threads=1\n\
         exec {}\n",
        manager.reboot
    );
    write("scenario", 0o755, &script);
    // It has been started before: nobody is asked how to set it up.
    write("etc/machine-id", 0o444, "0123456789abcdef0123456789abcdef\n");
}

/// By the state in the superblock: the kernel clears this bit while an ext4 without journal is mounted to be written.
fn is_clean(device: &str) -> bool {
    use std::os::unix::fs::FileExt;
    let mut state = [0; 2];
    File::open(device).unwrap().read_exact_at(&mut state, 1024 + 0x3a).unwrap();
    u16::from_le_bytes(state) & 1 == 1
}

/// The booted machine's part.
fn live_on_two_paths(booted: &Guest, manager: &ServiceManager) {
    booted.wait_until("the root has two paths", LONG, || paths(booted, ROOT) == 2);
    booted.wait_until("the data is there", LONG, || paths(booted, DATA) == 1);
    let first = controllers_at(booted, TARGET[0]);
    assert_eq!(first.len(), 1, "the path of the initramfs was taken over, not made again: {first:?}");
    // At the first start it had none. The firmware has given it one.
    let names = ["hostnqn", "hostid"].map(|name| fs::read_to_string(format!("/etc/nvme/{name}")).unwrap_or_default());
    assert_eq!(names.each_ref().map(|name| name.trim()), [HOSTNQN, HOSTID]);
    let owner = || fs::read_to_string(format!("/run/nvme/registry/{}/owner", first[0])).unwrap_or_default();
    booted.wait_until("all of the program is in memory for good", LONG, is_locked);
    booted.wait_until("it is known as the firmware's", LONG, || owner().trim() == "nbft");
    let listed = booted.run("stacctl", &["ls"]).ok();
    assert!(TARGET.iter().all(|address| listed.contains(address)), "{listed}");

    // What the service manager allows is enough to end a connection.
    booted.write("/etc/stas/stacd.conf", &format!("[[exclude]]\nnqn = \"{DATA}\"\n"));
    run(booted, manager.reload);
    booted.wait_until("what is excluded is gone", LONG, || paths(booted, DATA) == 0);
    assert_eq!(paths(booted, ROOT), 2);

    booted.tell_peer(CUT);
    booted.wait_until("the first path is lost", LONG, || {
        write_through("/before");
        paths(booted, ROOT) == 1
    });
    write_through("/after");
    run(booted, manager.status);
    // The path was made in the initramfs: it has to come back whatever the network card is called by now (OpenRC: another name
    // since the change to this root; systemd: since udev in the initramfs).
    booted.tell_peer(MEND);
    booted.wait_until("the first path is back", LONG, || paths(booted, ROOT) == 2);
}

/// No page of the program has to be read from the disk that it keeps connected: the daemon, its helpers and those of their
/// children that stay have theirs in memory.
fn is_locked() -> bool {
    let ours: Vec<_> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let process = entry.unwrap().path();
            let program = fs::read_link(process.join("exe")).ok()?;
            let status = fs::read_to_string(process.join("status")).ok()?;
            let kilobytes = |field: &str| -> Option<u64> {
                let line = status.lines().find_map(|line| line.strip_prefix(field))?;
                line.split_whitespace().next()?.parse().ok()
            };
            (program == Path::new("/usr/sbin/stas")).then(|| kilobytes("VmLck:") >= kilobytes("VmExe:"))
        })
        .collect();
    ours.len() >= 3 && ours.into_iter().all(|is_locked| is_locked)
}

/// The modules of dracut that have to do with this; to look at the others takes minutes, emulated.
const DRACUT_MODULES: [&str; 9] = [
    "00bash",
    "00dash",
    "90kernel-modules",
    "90kernel-network-modules",
    "95rootfs-block",
    "95stas",
    "95udev-rules",
    "99base",
    "99shell-interpreter",
];

/// Whether dracut puts our module into an image for a dump, for which it has a list of devices.
const IN_A_DUMP: &str = ". /usr/lib/dracut/dracut-functions.sh
    . /usr/lib/dracut/modules.d/95stas/module-setup.sh
    require_binaries() { :; }
    mount_needs=1 host_devs=($1)
    check";

/// An image that dracut makes here for this host only has what the root needs. One for a dump has it if the dump goes there.
fn makes_an_image_for_itself(booted: &Guest) {
    // As udev, which this system does not have, would.
    let link = "mkdir -p /dev/block && ln -sf ../nvme0n1 /dev/block/$(cat /sys/block/nvme0n1/dev)";
    booted.run("sh", &["-c", link]).ok();
    for (device, included) in [("/dev/nvme0n1", 0), ("/dev/null", 255)] {
        assert_eq!(booted.run("bash", &["-c", IN_A_DUMP, "bash", device]).code, Some(included), "{device}");
    }
    for entry in fs::read_dir("/usr/lib/dracut/modules.d").unwrap().map(Result::unwrap) {
        if !DRACUT_MODULES.contains(&entry.file_name().to_str().unwrap()) {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    let arguments = ["--quiet", "--force", "--no-compress", "--no-kernel", "--hostonly", "/run/image", "6.12.0"];
    booted.run("dracut", &arguments).ok();
    let image =
        booted.run("sh", &["-c", "cd /run && cpio --quiet -idu <image 'etc/cmdline.d/*'; cpio --quiet -t <image"]);
    let image = image.ok();
    let needed = [
        "usr/sbin/stas",
        "95-stas-boot.sh",
        "99-default.link",
        "etc/nvme/hostnqn",
        "etc/nvme/hostid",
        "etc/stas/stafd.conf",
    ];
    for file in needed {
        assert!(image.contains(file), "{file} is not in\n{image}");
    }
    assert_eq!(fs::read_to_string("/run/etc/cmdline.d/95stas.conf").unwrap(), " rd.stas=1");
}

/// The live controllers of a subsystem.
fn paths(guest: &Guest, nqn: &str) -> usize {
    guest.live_io_controllers().iter().filter(|controller| controller.subsysnqn == nqn).count()
}

/// The names of the I/O controllers at an address.
fn controllers_at(guest: &Guest, address: &str) -> Vec<String> {
    let found = guest.controllers().into_iter();
    let found = found.filter(|controller| controller.is_io() && controller.address_field("traddr") == Some(address));
    found.map(|controller| controller.name).collect()
}

/// Writes a file of the root file system to the disk.
fn write_through(path: &str) {
    let mut file = File::create(path).unwrap();
    file.write_all(&[7; 4096]).unwrap();
    file.sync_all().unwrap();
}

fn run(guest: &Guest, command: &[&str]) {
    guest.run(command[0], &command[1..]).ok();
}
