//! What a newcomer does wrong, and what he is told: each message says what to do next.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

const STAS: &str = env!("CARGO_BIN_EXE_stas");

fn called(words: &[&str]) -> Output {
    // Nobody is there to be asked.
    Command::new(STAS).args(words).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent").output().unwrap()
}

fn told(words: &[&str], status: i32) -> String {
    let output = called(words);
    assert_eq!(output.status.code(), Some(status), "{words:?}: {output:?}");
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn a_mistyped_word_is_guessed_and_the_help_is_named() {
    for (line, is_told) in [
        ("rnu", "stas: there is no \"rnu\", perhaps run is meant; `stas -h` lists all"),
        ("stafd --no-wiat", "stafd: unknown option '--no-wiat', perhaps --no-wait is meant; `stafd -h` tells how"),
        ("run -f x", "stas run: unknown option '-f'"),
        ("run --stacd-cof=x", "perhaps --stacd-conf is meant"),
        ("stacd -f", "stacd: the '-f' option"),
        ("boot --deadlin 5", "unknown option '--deadlin', perhaps --deadline is meant; `stas boot -h` tells how"),
        ("boot --deadline soon", "stas boot: --deadline: \"soon\" is not a number of seconds; `stas boot -h`"),
        ("boot --until root", "stas boot: \"root\" is neither a path below /dev, nor an NQN"),
        ("stafctl staus", "stafctl: there is no command 'staus', perhaps status is meant; `stafctl -h` tells how"),
        ("stacctl ls --detialed", "'--detialed' is not understood here, perhaps --detailed is meant"),
        ("stacctl", "stacctl: no command given; `stacctl -h` tells how it is used"),
        ("stasadm chek", "there is no command 'chek', perhaps check is meant; `stasadm -h` tells how"),
        ("stasadm hostnqn --if-mising", "there is no option '--if-mising', perhaps --if-missing is meant"),
        ("tree --outptu json", "perhaps --output is meant"),
        ("nbft --fiel x", "perhaps --file is meant"),
    ] {
        let told = told(&line.split(' ').collect::<Vec<_>>(), 2);
        assert!(told.contains(is_told) && told.lines().count() == 1, "{line}: {told}");
    }
}

#[test]
fn a_daemon_that_does_not_run_is_named() {
    for (line, daemon) in [("stafctl ls", "stafd"), ("stacctl status", "stacd"), ("tree", "stafd")] {
        let told = told(&line.split(' ').collect::<Vec<_>>(), 1);
        let expected = format!("cannot reach {daemon}, start it or `stas run` (system bus: ");
        assert!(told.contains(&expected), "{line}: {told}");
    }
}

#[test]
fn whoever_is_not_root_is_told() {
    let mut program = PathBuf::from(STAS);
    let scratch = std::env::temp_dir().join(format!("stas-mistakes-{}", std::process::id()));
    let key = scratch.join("key");
    std::fs::create_dir_all(&scratch).unwrap();
    std::fs::write(&key, "").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o0)).unwrap();
    std::fs::write(scratch.join("sys.conf"), format!("key = \"file://{}\"\n", key.display())).unwrap();
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        // Where others can get at it; by another process, for a file that a fork of ours has open cannot be run.
        program = scratch.join("stas");
        assert!(Command::new("cp").arg(STAS).arg(&program).status().unwrap().success());
    }
    let called = |words: &[&str]| {
        let mut command = Command::new(&program);
        if is_root {
            command.uid(65534).current_dir("/");
        }
        command.args(words).output().unwrap()
    };
    let run = called(&["run"]);
    let check = called(&["stasadm", "-c", scratch.join("sys.conf").to_str().unwrap(), "check"]);
    std::fs::remove_dir_all(&scratch).unwrap();
    let told = String::from_utf8(run.stderr).unwrap();
    assert_eq!(told, "stas: must be run as root: connecting controllers is the kernel's privilege\n");
    assert_eq!(run.status.code(), Some(1));
    let told = String::from_utf8(check.stdout).unwrap();
    assert!(
        told.contains(&format!("cannot read {}: Permission denied (os error 13); run this as root\n", key.display())),
        "{told}"
    );
}

/// `stasadm check` with a `stafd.conf`, and what it says of that.
fn check(name: &str, stafd_conf: &str) -> String {
    let directory: PathBuf = std::env::temp_dir().join(format!("stas-mistakes-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    std::fs::write(file("stafd.conf"), stafd_conf).unwrap();
    let (sys, stafd, stacd) = (file("sys.conf"), file("stafd.conf"), file("stacd.conf"));
    std::fs::write(&sys, "nqn = \"file:///nonexistent/hostnqn\"\nid = \"file:///nonexistent/hostid\"\n").unwrap();
    let told = told(&["stasadm", "-c", &sys, "check", "--stafd-conf", &stafd, "--stacd-conf", &stacd], 1);
    std::fs::remove_dir_all(&directory).unwrap();
    told
}

#[test]
fn a_host_without_names_is_told_how_to_get_them() {
    let told = check("names", "");
    for name in ["hostnqn", "hostid"] {
        assert!(told.contains(&format!("`stasadm {name} -f /nonexistent/{name}` makes one")), "{told}");
    }
    assert!(told.contains("note: ") && told.contains("stacd.conf: does not exist, defaults are used"), "{told}");
}

#[test]
fn mistakes_in_a_file_are_told_with_the_way_out() {
    let toml =
        "katoo = 5\nzeroconf = \"on\"\n[[controller]]\ntransport = \"tcp\"\ntraddr = \"192.0.2.1:8009\"\npleo = true\n";
    let told = check("toml", toml);
    for expected in [
        "stafd.conf:1: unknown key \"katoo\", perhaps kato is meant\n",
        "stafd.conf:2: zeroconf: \"on\" is not one of: enabled, disabled",
        "stafd.conf:3: controller: traddr: \"192.0.2.1:8009\" is not an address of a controller; accepted: an IPv4 or IPv6 \
         address, without brackets, or a host name; the port is trsvcid",
        "stafd.conf:6: controller: \"pleo\" is no key of a table; top-level keys stand before the first table",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let told = check("link-local", "[[controller]]\ntransport = \"tcp\"\ntraddr = \"fe80::1\"\n");
    assert!(
        told.contains("warning: ") && told.contains("stafd.conf:1: controller: fe80::1 is a link-local address"),
        "{told}"
    );
    let told = check("place", "transport = \"tcp\"\nnothing = 1\n[[controller]]\ndhchap-secret = \"/etc/nvme/key\"\n");
    for expected in [
        "stafd.conf:1: \"transport\" belongs into a table, below [[controller]] or [[exclude]]",
        "stafd.conf:2: unknown key \"nothing\"; accepted: tron, ",
        "stafd.conf:4: dhchap-secret: the name of a key file begins with file://",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    for value in ["192.0.2.1", "fe80::1", "tcp", "/dev/null"] {
        let told = check("bare", &format!("# Nothing.\ntraddr = {value}\n"));
        assert!(
            told.contains("stafd.conf:2: no TOML: ") && told.contains("; text stands in quotation marks\n"),
            "{told}"
        );
    }
    let told =
        check("ini", "[Global]\nkat=5\nzeroconf=disabled\n[Controlers]\ncontroller=transport=tcp;traddr=192.0.2.1\n");
    for expected in [
        "warning: ",
        "stafd.conf:2: unknown key \"kat\" in [Global], perhaps kato is meant, ignored",
        "stafd.conf:3: unknown key \"zeroconf\" in [Global], it belongs into [Service Discovery], ignored",
        "stafd.conf:4: unknown section \"Controlers\", ignored; known: [Global], ",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
}
