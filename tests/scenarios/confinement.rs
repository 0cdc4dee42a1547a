//! The process that reads what others wrote can do nothing else: it is taken over and made to try.

use crate::guest::Argument::{Number, Text};
use crate::guest::{Argument, Daemon, Guest, Puppet};
use crate::stas::{Form, SOON, STAFD_CONF, Stas, controller, nqn};
use crate::vm::{Kernel, Scenario, scenario};
use nix::errno::Errno;
use nix::libc;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const HOST_KEY: &str = "/etc/nvme/hostkey";
const KEY: &str = "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
const HERE: Argument<'static> = Number(libc::AT_FDCWD as i64);

#[test]
fn the_daemons_are_confined() {
    scenario(|guest| are_confined(guest, Form::TwoDaemons));
}

#[test]
fn one_process_is_confined_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(|guest| are_confined(guest, Form::OneProcess));
}

fn are_confined(guest: &Guest, form: Form) {
    let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
    let port = guest.target().tcp_port("127.0.0.1", 8009);
    port.link(&a);
    guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
    guest.write(HOST_KEY, &format!("{KEY}\n"));
    fs::set_permissions(HOST_KEY, Permissions::from_mode(0o600)).unwrap();
    let mut stas = Stas::start(guest, form);
    stas.wait_for_storage(&[&a.nqn], SOON);
    let before = guest.controllers();

    let mut daemons = vec![stas.finder()];
    daemons.extend((form == Form::TwoDaemons).then(|| stas.connector()));
    for daemon in daemons {
        assert_eq!(daemon.count_log("privileges"), 0, "{}", daemon.log());
        has_no_privileges(daemon);
        cannot_get_out(daemon);
    }

    // All of it goes on as ever.
    guest.assert_untouched(&before);
    port.link(&b);
    stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
    guest.assert_untouched(&before);
    stas.finder().reload();
    stas.finder().wait_log("reading the configuration again", SOON);
    guest.write(STAFD_CONF, "");
    stas.finder().reload();
    guest.wait_until("what is not configured any more is gone", SOON, || guest.controllers().is_empty());
    stas.assert_running();
}

fn has_no_privileges(daemon: &Daemon) {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).unwrap();
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(capabilities), "0000000000000000", "{capabilities} of {}", daemon.name);
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1", "2"), "{}", daemon.name);
}

fn cannot_get_out(daemon: &Daemon) {
    let runtime = format!("/run/{}", daemon.name);
    let puppet = Puppet::of(daemon.pid());
    let open = |path: &str, flags: i32| {
        puppet.call(libc::SYS_openat, &[HERE, Text(path), Number(flags.into()), Number(0o600)])
    };
    let close = |descriptor: i64| puppet.call(libc::SYS_close, &[Number(descriptor)]).unwrap();

    // That it can be made to do something at all.
    assert_eq!(puppet.call(libc::SYS_getpid, &[]), Ok(daemon.pid().into()));
    close(open("/sys/class/nvme/nvme0/state", libc::O_RDONLY).unwrap());
    let scratch = format!("{runtime}/scratch");
    close(open(&scratch, libc::O_CREAT | libc::O_WRONLY).unwrap());
    assert!(Path::new(&scratch).exists());
    puppet.call(libc::SYS_unlinkat, &[HERE, Text(&scratch), Number(0)]).unwrap();

    // What root may do otherwise, and may do here.
    let (read, write) = (libc::O_RDONLY, libc::O_WRONLY);
    for (path, flags) in [
        ("/dev/nvme-fabrics", libc::O_RDWR),
        ("/dev/nvme0", read),
        ("/sys/class/nvme/nvme0/delete_controller", write),
        ("/sys/class/mem/null/uevent", write),
        (HOST_KEY, read),
        (STAFD_CONF, read),
        (STAFD_CONF, write),
        ("/etc/nvme/hostnqn", write),
        ("/proc/sys/kernel/core_pattern", write),
        ("/proc/1/environ", read),
    ] {
        let anybody = OpenOptions::new().read(flags != write).write(flags != read).open(path);
        assert!(anybody.is_ok(), "{path} cannot be opened by anybody: {anybody:?}");
        assert_eq!(open(path, flags), Err(Errno::EACCES), "{path}");
    }
    for path in ["/run/udev/rules.d/x.rules", "/run/x", "/etc/stas/x", "/x", "/dev/x"] {
        assert!(matches!(open(path, libc::O_CREAT | write), Err(Errno::EACCES | Errno::ENOENT)), "{path}");
        assert!(!Path::new(path).exists(), "{path}");
    }
    let helper = fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid())).unwrap();
    let helper: i64 = helper.split_whitespace().next().unwrap().parse().unwrap();
    let number = |number: i32| Number(number.into());
    let calls: &[(&str, libc::c_long, &[Argument<'_>])] = &[
        ("another program", libc::SYS_execve, &[Text("/bin/busybox"), Number(0), Number(0)]),
        ("another process", libc::SYS_clone, &[number(libc::SIGCHLD)]),
        ("another process", libc::SYS_fork, &[]),
        ("a signal", libc::SYS_kill, &[Number(helper), number(libc::SIGKILL)]),
        ("a signal", libc::SYS_tgkill, &[Number(helper), Number(helper), number(libc::SIGKILL)]),
        ("another's memory", libc::SYS_ptrace, &[Number(libc::PTRACE_SEIZE.into()), Number(helper)]),
        ("another's limits", libc::SYS_prlimit64, &[Number(helper), Number(7), Number(0), Number(0)]),
        ("everybody's device", libc::SYS_chmod, &[Text("/dev/nvme-fabrics"), Number(0o666)]),
        ("everybody's device", libc::SYS_fchmodat, &[HERE, Text("/dev/nvme-fabrics"), Number(0o666)]),
        ("another user", libc::SYS_setfsuid, &[Number(1)]),
        ("a mount", libc::SYS_mount, &[Text("none"), Text("/mnt"), Text("tmpfs"), Number(0), Number(0)]),
        ("another root", libc::SYS_chroot, &[Text("/run")]),
        ("a namespace", libc::SYS_unshare, &[number(libc::CLONE_NEWUSER)]),
        ("a module", libc::SYS_finit_module, &[Number(0), Text(""), Number(0)]),
        ("a kernel", libc::SYS_kexec_load, &[Number(0), Number(0), Number(0), Number(0)]),
        ("keys", libc::SYS_keyctl, &[Number(0), Number(-3), Number(1)]),
        ("tracing", libc::SYS_perf_event_open, &[Number(0)]),
        ("code in the kernel", libc::SYS_bpf, &[Number(0)]),
        ("a file by its number", libc::SYS_open_by_handle_at, &[HERE, Number(0), Number(0)]),
        ("a device", libc::SYS_mknod, &[Text("/run/x"), Number(0o20_600), Number(0x0105)]),
        ("raw packets", libc::SYS_socket, &[number(libc::AF_PACKET), number(libc::SOCK_DGRAM), Number(0)]),
        ("new code", libc::SYS_mmap, &[Number(0), Number(4096), Number(7), Number(0x22), Number(-1), Number(0)]),
        ("the clock", libc::SYS_settimeofday, &[Number(0), Number(0)]),
        ("the end", libc::SYS_reboot, &[Number(0)]),
    ];
    for (what, call, arguments) in calls {
        assert_eq!(puppet.call(*call, arguments), Err(Errno::EPERM), "{what}, {arguments:?}");
    }
    drop(puppet);
    assert!(File::open(format!("/proc/{helper}/status")).is_ok(), "its helper was killed");
}

/// A kernel that does not confine as far: that is said, once, and storage comes first.
#[test]
fn a_kernel_without_landlock_is_said_to_be_one() {
    Scenario::new().boot_option("lsm=yama").run(|guest| {
        let a = guest.target().subsystem(&nqn("a"));
        guest.target().tcp_port("127.0.0.1", 8009).link(&a);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let mut stas = Stas::start(guest, Form::OneProcess);
        stas.wait_for_storage(&[&a.nqn], SOON);
        has_no_privileges(stas.finder());
        assert_eq!(stas.finder().count_log("not all privileges could be given up: Landlock"), 1);
        assert_eq!(stas.finder().count_log("privileges"), 1);
        stas.assert_running();
    });
}
