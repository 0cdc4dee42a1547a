//! The install command: what it puts where, that it takes away just that, and that it leaves the configuration alone.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const NAMES: [&str; 5] = ["stafd", "stacd", "stafctl", "stacctl", "stasadm"];

/// A directory to install into.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Tree {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("install-{name}"));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        Tree(root)
    }

    fn try_install(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("init/install"));
        command.env("DESTDIR", &self.0).arg("--binary").arg(env!("CARGO_BIN_EXE_stas")).args(arguments);
        command.output().unwrap()
    }

    #[track_caller]
    fn install(&self, arguments: &[&str]) -> String {
        let output = self.try_install(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Files and links, by their paths from the root on; empty directories too, with a slash.
    fn files(&self) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        self.walk(&self.0, &mut files);
        files
    }

    fn walk(&self, directory: &Path, files: &mut BTreeSet<String>) {
        let entries: Vec<_> = fs::read_dir(directory).unwrap().map(Result::unwrap).collect();
        let name = |path: &Path| path.strip_prefix(&self.0).unwrap().to_str().unwrap().to_owned();
        if entries.is_empty() && directory != self.0 {
            files.insert(name(directory) + "/");
        }
        for entry in entries {
            match entry.file_type().unwrap().is_dir() {
                true => self.walk(&entry.path(), files),
                false => drop(files.insert(name(&entry.path()))),
            }
        }
    }
}

/// The files of a directory of the repository, for a place in the tree; nothing if there is no such directory.
fn of_repository(directory: &str, wanted: impl Fn(&str) -> bool, to: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| wanted(name)).map(|name| format!("{to}/{name}")).collect()
}

/// What every installation below `prefix` has.
fn everywhere(prefix: &str) -> BTreeSet<String> {
    let share = format!("{prefix}/share");
    let fish = if prefix == "usr" { "usr/share/fish/vendor_completions.d" } else { "etc/fish/completions" };
    let mut files = vec![
        format!("{prefix}/sbin/stas"),
        format!("{share}/zsh/site-functions/_stas"),
        format!("{share}/bash-completion/completions/stas"),
        format!("{fish}/stas.fish"),
        "etc/stas/stafd.conf".to_owned(),
        "etc/stas/stacd.conf".to_owned(),
        "etc/stas/sys.conf".to_owned(),
    ];
    for name in NAMES {
        let directory = if name.ends_with('d') { "sbin" } else { "bin" };
        files.push(format!("{prefix}/{directory}/{name}"));
        files.push(format!("{share}/bash-completion/completions/{name}"));
        files.push(format!("{fish}/{name}.fish"));
    }
    for section in ["1", "5", "8"] {
        let of_section = |name: &str| name.ends_with(&format!(".{section}"));
        files.extend(of_repository("man", of_section, &format!("{share}/man/man{section}")));
    }
    let documents = |name: &str| name.ends_with(".md") || name.starts_with("LICENSE");
    files.extend(of_repository(".", documents, &format!("{share}/doc/stas")));
    files.extend(of_repository("doc", |name| name.ends_with(".md"), &format!("{share}/doc/stas")));
    files.extend(of_repository("etc/stas", |_| true, &format!("{share}/doc/stas/examples")));
    files.into_iter().collect()
}

fn and(mut files: BTreeSet<String>, more: &[&str]) -> BTreeSet<String> {
    files.extend(more.iter().map(|&path| path.to_owned()));
    files
}

const POLICIES: [&str; 2] =
    ["etc/dbus-1/system.d/org.nvmexpress.staf.conf", "etc/dbus-1/system.d/org.nvmexpress.stac.conf"];

const LIST: &str = "usr/local/share/stas/installed";

const UNITS: [&str; 9] = [
    "stacd.service",
    "stacd.service.d/hardening.conf",
    "stafd.service",
    "stafd.service.d/hardening.conf",
    "stas-config.target",
    "stas-config@.service",
    "stas-config@hostid.service.d/order.conf",
    "stas.service",
    "stas.service.d/hardening.conf",
];

#[test]
fn what_is_installed_is_uninstalled_and_nothing_else() {
    let tree = Tree::new("systemd");
    fs::create_dir_all(tree.at("usr/local/bin")).unwrap();
    fs::write(tree.at("usr/local/bin/mine"), "").unwrap();
    let said = tree.install(&["--service=systemd", "--initramfs", "dracut,initramfs-tools,mkinitcpio"]);
    assert_eq!(said, "", "there was no configuration");

    let units = UNITS.map(|unit| format!("usr/local/lib/systemd/system/{unit}"));
    let expected = and(everywhere("usr/local"), &units.each_ref().map(String::as_str));
    let expected = and(expected, &[&POLICIES[..], &[LIST, "usr/local/bin/mine"]].concat());
    let expected = and(
        expected,
        &[
            "usr/lib/dracut/modules.d/95stas/module-setup.sh",
            "usr/lib/dracut/modules.d/95stas/stas-boot.sh",
            "etc/initramfs-tools/hooks/stas",
            "etc/initramfs-tools/scripts/local-top/stas",
            "etc/initcpio/install/stas",
            "etc/initcpio/hooks/stas",
        ],
    );
    assert_eq!(tree.files(), expected);

    // Every name leads to the program, and what starts it knows where it is.
    for name in NAMES {
        let directory = if name.ends_with('d') { "sbin" } else { "bin" };
        let said = Command::new(tree.at(&format!("usr/local/{directory}/{name}"))).arg("--version").output().unwrap();
        assert!(String::from_utf8_lossy(&said.stdout).starts_with(name), "{said:?}");
    }
    for unit in ["stas.service", "stafd.service", "stas-config@.service"] {
        let text = tree.read(&format!("usr/local/lib/systemd/system/{unit}"));
        assert!(text.contains("ExecStart=/usr/local/sbin/sta"), "{unit}: {text}");
    }
    assert!(tree.read("etc/initramfs-tools/hooks/stas").contains("copy_exec /usr/local/sbin/stas /usr/sbin\n"));
    let dracut = tree.read("usr/lib/dracut/modules.d/95stas/module-setup.sh");
    assert!(dracut.contains("require_binaries /usr/local/sbin/stas "), "{dracut}");
    assert!(dracut.contains("inst_simple /usr/local/sbin/stas /usr/sbin/stas\n"), "{dracut}");

    tree.install(&["--uninstall"]);
    let left = and(BTreeSet::new(), &["etc/stas/stafd.conf", "etc/stas/stacd.conf", "etc/stas/sys.conf"]);
    assert_eq!(tree.files(), and(left, &["usr/local/bin/mine"]));
    let again = tree.try_install(&["--uninstall"]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("nothing was installed"));
}

#[test]
fn configuration_is_never_replaced() {
    let tree = Tree::new("configuration");
    fs::create_dir_all(tree.at("etc/stas")).unwrap();
    fs::write(tree.at("etc/stas/stafd.conf"), "[Global]\n").unwrap();
    let said = tree.install(&["--service=none"]);
    assert_eq!(said, "install: /etc/stas/stafd.conf stays as it is; this release's is /etc/stas/stafd.conf.new\n");
    assert_eq!(tree.read("etc/stas/stafd.conf"), "[Global]\n");
    let shipped = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/stas/stafd.conf")).unwrap();
    assert_eq!(tree.read("etc/stas/stafd.conf.new"), shipped);

    // The administrator takes it over.
    fs::write(tree.at("etc/stas/stafd.conf"), shipped).unwrap();
    assert_eq!(tree.install(&["--service=none"]), "");
    assert!(!tree.at("etc/stas/stafd.conf.new").exists());
}

#[test]
fn a_change_of_the_service_manager_takes_the_other_ones_files_away() {
    let tree = Tree::new("services");
    let before = |files: &[&str]| and(and(everywhere("usr/local"), &POLICIES), &[&[LIST], files].concat());
    tree.install(&["--service", "openrc"]);
    assert_eq!(tree.files(), before(&["etc/init.d/stas", "etc/init.d/stafd", "etc/init.d/stacd"]));
    assert!(tree.read("etc/init.d/stafd").contains("\ncommand=/usr/local/sbin/stas\n"));
    let mode = fs::metadata(tree.at("etc/init.d/stacd")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, Permissions::from_mode(0o755).mode());
    tree.install(&["--service", "runit"]);
    assert_eq!(tree.files(), before(&["etc/sv/stas/run"]));
    tree.install(&["--service", "s6"]);
    assert_eq!(tree.files(), before(&["etc/s6/sv/stas/run", "etc/s6/sv/stas/type"]));
    assert!(tree.read("etc/s6/sv/stas/run").contains("exec /usr/local/sbin/stas run\n"));
}

#[test]
fn a_package_has_the_distributions_paths_and_no_list() {
    let tree = Tree::new("package");
    tree.install(&["--package", "--prefix=/usr", "--service=systemd", "--gzip", "--initramfs=initramfs-tools"]);
    let files = tree.files();
    for path in [
        "usr/share/dbus-1/system.d/org.nvmexpress.staf.conf",
        "usr/lib/systemd/system/stas.service",
        "usr/share/initramfs-tools/hooks/stas",
        "usr/sbin/stas",
        "etc/stas/stafd.conf",
    ] {
        assert!(files.contains(path), "{path} of {files:#?}");
    }
    assert!(!files.contains("usr/share/stas/installed"));
    assert!(tree.read("usr/lib/systemd/system/stas.service").contains("ExecStart=/usr/sbin/stas run\n"));
    let pages: Vec<&String> = files.iter().filter(|path| path.starts_with("usr/share/man/")).collect();
    assert!(pages.iter().all(|path| path.ends_with(".gz")), "{pages:?}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_written() {
    let tree = Tree::new("nonsense");
    for (arguments, why) in [
        (&[][..], "with --destdir, say --service="),
        (&["--service=upstart"], "nothing for the service manager upstart"),
        (&["--service=none", "--prefix=local"], "begin with /"),
        (&["--service=none", "--prefix=/a|b"], "plain paths"),
        (&["--service=none", "--initramfs=tiny"], "no hooks for tiny"),
        (&["--service=none", "--binary=/nowhere"], "there is no program yet"),
        (&["--force"], "there is no option --force"),
        (&["--prefix"], "--prefix needs a value"),
    ] {
        let output = tree.try_install(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
        assert_eq!(tree.files(), BTreeSet::new(), "{arguments:?}");
    }
}

#[test]
fn whoever_is_not_root_is_told() {
    // Where others can get at it.
    let copy = std::env::temp_dir().join(format!("stas-install-{}", std::process::id()));
    fs::create_dir_all(copy.join("init")).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("init/install"), copy.join("init/install")).unwrap();
    fs::create_dir_all(copy.join("root")).unwrap();
    fs::set_permissions(copy.join("root"), Permissions::from_mode(0o555)).unwrap();
    for option in ["--service=none", "--uninstall"] {
        let mut command = Command::new("sh");
        command.arg(copy.join("init/install")).arg(option).env("DESTDIR", copy.join("root")).current_dir("/");
        if nix::unistd::geteuid().is_root() {
            command.uid(65534);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("/root cannot be written to: run this as root"), "{said}");
    }
    fs::remove_dir_all(&copy).unwrap();
}

/// What abuild does with the functions of the APKBUILD, as far as that can be done without it: each in a shell like Alpine's.
#[test]
fn the_apkbuild_packages_a_tree_for_openrc() {
    let tree = Tree::new("alpine");
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = tree.at("source/target/release");
    fs::create_dir_all(&program).unwrap();
    for entry in ["init", "etc", "completions", "packaging"] {
        std::os::unix::fs::symlink(source.join(entry), tree.at("source").join(entry)).unwrap();
    }
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stas"), program.join("stas")).unwrap();
    let script =
        "set -e; cd \"$1/source\"; pkgdir=$1/package; . packaging/alpine/APKBUILD; package; echo \"$pkgname $pkgver\"";
    let output = Command::new("busybox").args(["sh", "-c", script, "sh"]).arg(&tree.0).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("stas {}\n", env!("CARGO_PKG_VERSION")));
    for path in [
        "usr/sbin/stas",
        "etc/init.d/stas",
        "etc/stas/stafd.conf",
        "usr/share/dbus-1/system.d/org.nvmexpress.staf.conf",
    ] {
        assert!(tree.at("package").join(path).exists(), "{path}");
    }
}

/// A release has one version, in whatever package.
#[test]
fn packages_have_the_version_of_the_program() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        ("debian/changelog", format!("stas ({version}-")),
        ("rpm/stas.spec", format!("\nVersion:        {version}\n")),
        ("alpine/APKBUILD", format!("\npkgver={version}\n")),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(file);
        assert!(fs::read_to_string(path).unwrap().contains(&line), "{file}: {line}");
    }
}

/// What a distributor has to fill in is nobody's, and packaging/README.md tells of it.
#[test]
fn addresses_in_packages_are_evidently_none() {
    let read =
        |file: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(file)).unwrap();
    let told = read("README.md");
    for file in ["debian/control", "debian/changelog", "rpm/stas.spec", "alpine/APKBUILD"] {
        let text = read(file);
        let addresses =
            text.split(['<', '>', '"', ' ', '\n']).filter(|word| word.contains("://") || word.contains(".invalid"));
        let addresses: BTreeSet<&str> = addresses.collect();
        assert!(addresses.contains("stas@packages.invalid") && told.contains(file), "{file}");
        assert!(
            addresses.is_subset(&["stas@packages.invalid", "https://stas.invalid"].into()),
            "{file}: {addresses:?}"
        );
    }
}
