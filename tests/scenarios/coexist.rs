//! Getting on with others: the registry of who manages what, the list of what nobody is to connect, several host names, and
//! the commands of nvme-cli.

use crate::guest::{DISCOVERY_NQN, Daemon, HOSTID, HOSTNQN, Port};
use crate::stas::{Form, KERNEL_WAITS, Part, SOON, STACD_CONF, STAFD_CONF, Stas, controller, io_controller, nqn};
use crate::vm::{Scenario, scenario};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Debian's programs in an emulated machine take their time.
const PATIENCE: Duration = Duration::from_secs(40);

const REGISTRY: &str = "/run/nvme/registry";
const EXCLUSIONS: &str = "/etc/nvme/exclusions.conf";
const OTHER_ID: &str = "01234567-89ab-4cde-8f01-23456789abcd";

/// The owner of each controller that has one, in the order of the controllers.
fn owners() -> Vec<(String, String)> {
    let entries = fs::read_dir(REGISTRY).into_iter().flatten().flatten();
    let mut owners: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path().join("owner")))
        .map(|(name, owner)| (name, fs::read_to_string(owner).unwrap_or_default().trim().to_owned()))
        .collect();
    owners.sort();
    owners
}

fn owned(names: &[&str]) -> Vec<(String, String)> {
    names.iter().map(|name| ((*name).to_owned(), "stas".to_owned())).collect()
}

#[test]
fn the_registry_says_what_is_ours_and_what_it_gives_others_is_left_alone() {
    scenario(|guest| {
        let [a, b, c] = ["a", "b", "c"].map(|name| guest.target().subsystem(&nqn(name)));
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        [&a, &b, &c].iter().for_each(|subsystem| port.link(subsystem));
        let connect = |nqn: &str| guest.connect(&format!("nqn={nqn},transport=tcp,traddr=127.0.0.1,trsvcid=8009"));
        // Two of others, of which one is managed by somebody; and what is left of a controller that is no more.
        assert_eq!([connect(&a.nqn).unwrap(), connect(&b.nqn).unwrap()], ["nvme0", "nvme1"]);
        guest.write(format!("{REGISTRY}/nvme0/owner"), "nbft\n");
        guest.write(format!("{REGISTRY}/nvme2/owner"), "autoconnect\n");
        guest.write(format!("{REGISTRY}/nvme2/note"), "stale\n");
        guest.write(format!("{REGISTRY}/nvme9/owner"), "stas\n");
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        stas.wait_for_storage(&[&a.nqn, &b.nqn, &c.nqn], SOON);
        let ours = owned(&["nvme1", "nvme2", "nvme3"]);
        let nbft = [("nvme0".to_owned(), "nbft".to_owned())];
        guest.wait_until("the registry is right", SOON, || owners() == [&nbft[..], &ours].concat());
        let stamp = fs::read_to_string(format!("{REGISTRY}/nvme3/seqnum")).unwrap();
        assert!(stamp.trim().parse::<u64>().unwrap() > 0);
        assert!(!Path::new(&format!("{REGISTRY}/nvme2/note")).exists());
        assert!(stas.connector().log().contains("nvme0: managed by nbft, used and left alone"));

        // Somebody takes over the third while we are away; it is no longer ours to take down.
        let third = guest.live_io_controllers().into_iter().find(|controller| controller.subsysnqn == c.nqn).unwrap();
        stas.end(Part::Both, crate::guest::Daemon::kill);
        guest.write(format!("{REGISTRY}/{}/owner", third.name), "somebody\n");
        guest.write(STAFD_CONF, "");
        stas.start_again();
        guest.wait_until("ours is gone", SOON, || guest.controllers().iter().all(|left| !left.is_discovery()));
        stas.connector().reload();
        stas.connector().wait_log("reading the configuration again", SOON);
        let left = guest.controllers().into_iter().map(|controller| controller.subsysnqn);
        assert_eq!(left.collect::<std::collections::BTreeSet<_>>(), [a.nqn, b.nqn, c.nqn].into());
        guest.wait_until("what we no longer use is not ours", SOON, || {
            owners().iter().any(|(name, owner)| *name == third.name && owner == "somebody") && owners()[0] == nbft[0]
        });
        stas.assert_running();
    });
}

#[test]
fn entries_of_the_registry_go_with_their_controllers() {
    scenario(|guest| {
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        [&a, &b].iter().for_each(|subsystem| port.link(subsystem));
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        guest.write(STACD_CONF, KERNEL_WAITS);
        let mut stas = Stas::start(guest, Form::OneProcess);
        stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
        assert_eq!(owners(), owned(&["nvme0", "nvme1", "nvme2"]));
        port.unlink(&b);
        stas.wait_for_storage(&[&a.nqn], SOON);
        guest.wait_until("the entry is gone", SOON, || owners().len() == 2);
        // What stays when we stop stays ours.
        let before = owners();
        stas.end(Part::Both, crate::guest::Daemon::terminate);
        assert_eq!(owners(), before);
        stas.start_again();
        stas.wait_for_storage(&[&a.nqn], SOON);
        assert_eq!(owners(), before);
    });
}

#[test]
fn a_registry_that_cannot_be_written_is_said_once() {
    scenario(|guest| {
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        [&a, &b].iter().for_each(|subsystem| port.link(subsystem));
        guest.write("/run/nvme", "no directory");
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let stas = Stas::start(guest, Form::OneProcess);
        stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
        assert_eq!(stas.finder().count_log("/run/nvme/registry: cannot be written"), 1);
    });
}

#[test]
fn what_the_host_excludes_is_not_connected_and_not_taken_down() {
    scenario(|guest| {
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        [&a, &b].iter().for_each(|subsystem| port.link(subsystem));
        let exclusion = |nqn: &str| format!("exclusion = transport=tcp;nqn={nqn}\n");
        guest.write(EXCLUSIONS, &format!("[exclusions]\n{}exclusion = nqn\n", exclusion(&b.nqn)));
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let stas = Stas::start(guest, Form::OneProcess);
        stas.finder().wait_log("exclusions.conf:2 excludes it", SOON);
        guest.wait_for_storage(&[&a.nqn], SOON);
        assert_eq!(stas.finder().count_log("exclusions.conf:3: exclusion: \"nqn\" has no value"), 1);
        assert!(guest.run("stasadm", &["check"]).stdout.contains("exclusions.conf:3"));

        // As `nvme disconnect --exclude` does it: first the list, with nobody told, then the connection.
        let [live] = guest.live_io_controllers().try_into().unwrap();
        guest.write(format!("{EXCLUSIONS}.d/maintenance.conf"), &format!("[exclusions]\n{}", exclusion(&a.nqn)));
        guest.assert_untouched(std::slice::from_ref(&live));
        guest.disconnect(&live.name);
        stas.finder().wait_log("maintenance.conf:2 excludes it", SOON);
        stas.finder().reload();
        stas.finder().wait_log("reading the configuration again", SOON);
        guest.wait_for_storage(&[], SOON);

        fs::remove_file(format!("{EXCLUSIONS}.d/maintenance.conf")).unwrap();
        guest.wait_for_storage(&[&a.nqn], SOON);
        fs::remove_file(EXCLUSIONS).unwrap();
        guest.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
    });
}

/// A host with a configuration of nvme-cli needs no second one.
#[test]
fn files_of_nvme_cli_name_controllers() {
    scenario(|guest| {
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        guest.target().tcp_port("127.0.0.1", 8009).link(&a);
        guest.target().tcp_port("127.0.0.1", 4420).link(&b);
        let options = "--transport=tcp --traddr=127.0.0.1 --trsvcid=8009 --keep-alive-tmo=17 --frobnicate=7";
        guest.write("/etc/nvme/discovery.conf", &format!("# as shipped\n{options}\n"));
        guest.write("/etc/nvme/nvme-fabrics.conf", "[I/O Controller Defaults]\nkeep-alive-tmo = 23\n");
        let subsystem = format!("[Subsystem]\nnqn = {}\ncontroller = transport=tcp;traddr=127.0.0.1\n", b.nqn);
        guest.write("/etc/nvme/nvme-fabrics.conf.d/b.conf", &subsystem);
        guest.write(STAFD_CONF, "sources = [\"/etc/nvme/discovery.conf\", \"/etc/nvme/nvme-fabrics.conf\"]\n");
        guest.write(STACD_CONF, "[Global]\nsources = /etc/nvme/nvme-fabrics.conf\n");
        let stas = Stas::start(guest, Form::TwoDaemons);
        stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
        let kato = |trsvcid: &str, is_discovery: bool| {
            let controllers = guest.controllers().into_iter().filter(|one| one.is_discovery() == is_discovery);
            let mut found = controllers.filter(|one| one.address_field("trsvcid") == Some(trsvcid));
            let name = found.next().unwrap().name;
            fs::read_to_string(format!("/sys/class/nvme/{name}/kato")).unwrap().trim().to_owned()
        };
        assert_eq!((kato("8009", true).as_str(), kato("4420", false).as_str()), ("17", "23"));
        let told = "/etc/nvme/discovery.conf:2: unknown option \"--frobnicate\", ignored";
        assert_eq!(stas.finder().count_log(told), 1);
        assert!(guest.run("stasadm", &["check"]).stdout.contains(told));

        // Gone by mistake, it takes nothing along.
        fs::remove_file("/etc/nvme/discovery.conf").unwrap();
        stas.finder().reload();
        stas.finder().wait_log("the running configuration stays in force", SOON);
        stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
    });
}

#[test]
fn each_host_nqn_has_its_host_id() {
    scenario(|guest| {
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        let guest_nqn = format!("nqn.2014-08.org.nvmexpress:uuid:{OTHER_ID}");
        let nvmet = "/sys/kernel/config/nvmet";
        fs::create_dir(format!("{nvmet}/hosts/{guest_nqn}")).unwrap();
        b.set("attr_allow_any_host", "0");
        let allowed = format!("{nvmet}/subsystems/{}/allowed_hosts/{guest_nqn}", b.nqn);
        std::os::unix::fs::symlink(format!("{nvmet}/hosts/{guest_nqn}"), allowed).unwrap();
        guest.target().tcp_port("127.0.0.1", 8009).link(&a);
        guest.target().tcp_port("127.0.0.1", 8010).link(&b);
        let second = controller("127.0.0.1", 8010) + &format!("host-nqn = \"{guest_nqn}\"\n");
        guest.write(STAFD_CONF, &(controller("127.0.0.1", 8009) + &second));
        let stas = Stas::start(guest, Form::TwoDaemons);
        stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
        let hosts = || {
            let ids = guest.controllers().into_iter().map(|controller| {
                let id = fs::read_to_string(format!("/sys/class/nvme/{}/hostid", controller.name)).unwrap();
                (controller.address_field("trsvcid").unwrap().to_owned(), controller.hostnqn, id.trim().to_owned())
            });
            let mut ids: Vec<_> = ids.collect();
            ids.sort();
            ids
        };
        let own = || ("8009".to_owned(), HOSTNQN.to_owned(), HOSTID.to_owned());
        let other = || ("8010".to_owned(), guest_nqn.clone(), OTHER_ID.to_owned());
        assert_eq!(hosts(), [own(), own(), other(), other()]);
        let table = guest.run("stacctl", &["-o", "json", "ls", "-d"]).ok();
        assert!(table.contains(OTHER_ID), "{table}");
    });
}

#[test]
fn two_host_nqns_are_two_paths_to_one_disk() {
    scenario(|guest| {
        let disk = guest.target().subsystem(&nqn("a"));
        guest.target().tcp_port("127.0.0.1", 8009).link(&disk);
        let other = format!("nqn.2014-08.org.nvmexpress:uuid:{OTHER_ID}");
        let second = controller("127.0.0.1", 8009) + &format!("host-nqn = \"{other}\"\n");
        guest.write(STAFD_CONF, &(controller("127.0.0.1", 8009) + &second));
        let mut stas = Stas::start(guest, Form::OneProcess);
        let paths = || {
            let mut hosts: Vec<_> = guest.live_io_controllers().into_iter().map(|path| path.hostnqn).collect();
            hosts.sort();
            hosts
        };
        let mut expected = [HOSTNQN.to_owned(), other];
        expected.sort();
        guest.wait_until("both paths are there", SOON, || paths() == expected);
        guest.wait_until("they lead to one disk", SOON, || guest.block_devices().len() == 1);
        let before = guest.controllers();
        stas.end(Part::Both, Daemon::kill);
        stas.start_again();
        guest.wait_until("stacctl shows both", SOON, || guest.run("stacctl", &["ls"]).stdout.lines().count() == 3);
        guest.assert_untouched(&before);
        assert_eq!(guest.controllers().len(), before.len());
    });
}

#[test]
fn a_host_id_that_is_in_use_is_used_and_said() {
    scenario(|guest| {
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        [&a, &b].iter().for_each(|subsystem| port.link(subsystem));
        // As an initramfs with another identity file does it.
        let by_firmware = format!("nqn={},transport=tcp,traddr=127.0.0.1,trsvcid=8009", a.nqn);
        guest.connect(&format!("{by_firmware},hostnqn={HOSTNQN},hostid={OTHER_ID}")).unwrap();
        let conf = io_controller("127.0.0.1", 8009, &a.nqn) + &io_controller("127.0.0.1", 8009, &b.nqn);
        guest.write(STACD_CONF, &conf);
        let stas = Stas::start(guest, Form::OneProcess);
        stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
        assert_eq!(fs::read_to_string("/sys/class/nvme/nvme1/hostid").unwrap().trim(), OTHER_ID);
        let said = format!("goes with host ID {HOSTID}, but nvme0 is connected under it with {OTHER_ID}");
        assert_eq!(stas.finder().count_log(&said), 1);
    });
}

#[test]
fn commands_of_nvme_cli_beside_us_make_no_duplicates_and_end_nothing() {
    Scenario::new().with_debian().run(|guest| {
        let debian = guest.debian();
        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        [&a, &b].iter().for_each(|subsystem| port.link(subsystem));
        guest.target().tcp_port("127.0.0.1", 8010).link(&a);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let stas = Stas::start(guest, Form::TwoDaemons);
        stas.wait_for_storage(&[&a.nqn, &b.nqn], SOON);
        let before = guest.controllers();
        let to = |port| ["-t", "tcp", "-a", "127.0.0.1", "-s", port];
        for arguments in [["discover"].to_vec(), ["connect-all"].to_vec(), ["connect-all", "--quiet"].to_vec()] {
            debian.run("/usr/sbin/nvme", &[&arguments[..], &to("8009")].concat());
            guest.assert_untouched(&before);
            assert_eq!(guest.controllers().len(), before.len(), "duplicates after {arguments:?}");
        }
        // One of a controller that is not ours leaves nothing behind, not with us either.
        assert!(debian.run("/usr/sbin/nvme", &[&["discover"][..], &to("8010")].concat()).ok().contains(&a.nqn));
        assert_eq!(guest.controllers(), before);
        assert_eq!(guest.run("stafctl", &["ls"]).ok().lines().count(), 2);

        // Persistent, it is theirs, and stays.
        debian.run("/usr/sbin/nvme", &[&["discover", "--persistent"][..], &to("8010")].concat()).ok();
        let theirs = guest.controllers().into_iter().find(|one| one.address_field("trsvcid") == Some("8010")).unwrap();
        guest.write(STAFD_CONF, &(controller("127.0.0.1", 8009) + &controller("127.0.0.1", 8010)));
        stas.finder().reload();
        stas.finder().wait_log(&format!("already connected as {}, kept", theirs.name), SOON);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        stas.finder().reload();
        guest.wait_until("only ours is shown", SOON, || guest.run("stafctl", &["ls"]).ok().lines().count() == 2);
        guest.assert_untouched(&before);
        guest.assert_untouched(&[theirs]);
    });
}

/// A discovery controller without keep alive is what `nvme discover` connects for the moment.
#[test]
fn a_discovery_controller_for_one_look_is_not_relied_on() {
    scenario(|guest| {
        let disk = guest.target().subsystem(&nqn("a"));
        let port = guest.target().tcp_port("127.0.0.1", 8009);
        port.link(&disk);
        let one_look = format!("nqn={DISCOVERY_NQN},transport=tcp,traddr=127.0.0.1,trsvcid=8009");
        assert_eq!(guest.connect(&one_look).unwrap(), "nvme0");
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let stas = Stas::start(guest, Form::OneProcess);
        stas.wait_for_storage(&[&disk.nqn], SOON);
        let ours = guest.controllers().split_off(1);
        assert_eq!(ours.len(), 2);
        guest.disconnect("nvme0");
        let more = guest.target().subsystem(&nqn("b"));
        port.link(&more);
        stas.wait_for_storage(&[&disk.nqn, &more.nqn], SOON);
        guest.assert_untouched(&ours);
        assert_eq!(stas.finder().count_log("the kernel removed"), 0);
    });
}

/// What nvme-cli's rule has systemctl do goes to a file: there is no systemd in the guest.
const SYSTEMCTL_LOG: &str = "/tmp/systemctl.log";
const RULE: &str = "/run/udev/rules.d/70-nvmf-autoconnect.rules";

#[test]
fn the_udev_rule_of_nvme_cli_is_out_of_force_while_we_run() {
    Scenario::new().with_debian().run(|guest| {
        let debian = guest.debian();
        fs::copy("/bin/busybox", "/tmp/busybox").unwrap();
        guest.write("/tmp/systemctl", &format!("#!/tmp/busybox sh\necho \"$@\" >>{SYSTEMCTL_LOG}\n"));
        fs::set_permissions("/tmp/systemctl", fs::Permissions::from_mode(0o755)).unwrap();
        guest.run("mount", &["--bind", "/tmp/systemctl", "/debian/usr/bin/systemctl"]).ok();
        guest.run("mkdir", &["-p", "/run/systemd/system"]).ok();
        let udev = debian.spawn("/usr/lib/systemd/systemd-udevd", &[]);
        udev.wait_log("Using default interface naming scheme", PATIENCE);

        let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&nqn(name)));
        let (ours, theirs) = (guest.target().tcp_port("127.0.0.1", 8009), guest.target().tcp_port("127.0.0.1", 8010));
        [&ours, &theirs].iter().for_each(|port| port.link(&a));
        let options = "transport=tcp,traddr=127.0.0.1,trsvcid=8010,host_iface=lo,keep_alive_tmo=30";
        assert_eq!(guest.connect(&format!("nqn={DISCOVERY_NQN},{options}")).unwrap(), "nvme0");
        let started = |device: &str| {
            let log = fs::read_to_string(SYSTEMCTL_LOG).unwrap_or_default();
            log.lines().filter(|line| line.contains(&format!(r"restart nvmf-connect@--device\x3d{device}"))).count()
        };
        // A discovery controller says that it has news once, until somebody reads them: theirs is read by hand.
        let news = |port: &Port| {
            port.link(&b);
            port.unlink(&b);
            guest.run("env", &["SYSTEMD_IGNORE_CHROOT=1", "chroot", "/debian", "udevadm", "settle"]).ok();
            let nvme0 = ["--device=nvme0", "-t", "tcp", "-a", "127.0.0.1", "-s", "8010", "-f", "lo"];
            debian.run("/usr/sbin/nvme", &[&["discover"][..], &nvme0].concat()).ok();
        };
        news(&theirs);
        guest.wait_until("nvme-cli's rule is in force", SOON, || started("nvme0") > 0);

        let _bus = guest.start_bus();
        let monitor = guest.spawn("dbus-monitor", &["--system", "type='method_call',member='RestartUnit'"]);
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        let stafd = guest.spawn("stafd", &[]);
        stafd.wait_log("lists 2 entries", SOON);
        assert!(fs::read_to_string(RULE).unwrap().contains(r#"ENV{FC_EVENT}=="nvmediscovery""#));
        // udevd looks for changed rules every three seconds at most.
        guest.wait_until("udevd has noticed", SOON, || {
            let before = started("nvme0");
            news(&theirs);
            started("nvme0") == before
        });
        let before = fs::read_to_string(SYSTEMCTL_LOG).unwrap();
        news(&ours);
        news(&theirs);
        monitor.wait_log(r"nvmf-connect@--device\x3dnvme0\x09--host-iface\x3dlo.service", SOON);
        assert_eq!(monitor.count_log("nvme1"), 0, "ours is nobody else's business");
        assert_eq!(fs::read_to_string(SYSTEMCTL_LOG).unwrap(), before);

        // Killed, it leaves the rule to the next one, which takes it away.
        stafd.kill();
        assert!(Path::new(RULE).exists());
        let stafd = guest.spawn("stafd", &[]);
        stafd.wait_log("lists 2 entries", SOON);
        stafd.terminate();
        assert!(!Path::new(RULE).exists());
        guest.wait_until("nvme-cli's rule is in force again", SOON, || {
            let before = started("nvme0");
            news(&theirs);
            started("nvme0") > before
        });

        // Where the registry decides, nvme-cli 3 leaves ours alone by itself.
        guest.write("/usr/lib/udev/rules.d/70-nvmf-registry.rules", "# libnvme 3\n");
        let stafd = guest.spawn("stafd", &[]);
        stafd.wait_log("lists 2 entries", SOON);
        assert!(!Path::new(RULE).exists());
        stafd.terminate();
    });
}
