//! The command line tools, as an administrator uses them.

use crate::guest::{Finished, Guest, HOSTID, HOSTNQN, Subsystem};
use crate::vm::scenario;
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Two disks linked to a port, and the finder told of it.
fn two_disks(guest: &Guest) -> [Subsystem; 2] {
    let disks = ["a", "b"].map(|name| guest.target().subsystem(&format!("nqn.2026-01.example:{name}")));
    let port = guest.target().tcp_port("127.0.0.1", 8009);
    disks.iter().for_each(|disk| port.link(disk));
    guest.write("/etc/stas/stafd.conf", "[[controller]]\ntransport = \"tcp\"\ntraddr = \"127.0.0.1\"\n");
    disks
}

fn wait_disks(guest: &Guest, count: usize) {
    guest.wait_until(&format!("there are {count} disks"), SOON, || guest.block_devices().len() == count);
}

/// A failure as it should be: one line on standard error, nothing on standard output.
#[track_caller]
fn assert_refused(finished: &Finished, code: i32, says: &str) {
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(code), ""), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    assert!(finished.stderr.contains(says), "{finished:?}");
}

#[test]
fn a_host_is_given_its_name() {
    scenario(|guest| {
        let stasadm = |line: &str| guest.run("stasadm", &line.split(' ').collect::<Vec<_>>());
        // As distributions ship it: comments only. What identifies an emulated machine is its machine id.
        let conf = "/etc/stas/sys.conf";
        let shipped = fs::read_to_string(conf).unwrap();
        fs::set_permissions(conf, Permissions::from_mode(0o640)).unwrap();
        guest.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        fs::remove_file("/etc/nvme/hostnqn").unwrap();
        fs::remove_file("/etc/nvme/hostid").unwrap();
        let check = stasadm("check");
        assert_eq!(check.code, Some(1));
        assert!(check.stdout.lines().any(|line| line.contains("`stasadm hostid -f /etc/nvme/hostid` makes one")));

        let nqn = stasadm("hostnqn --if-missing -f /etc/nvme/hostnqn").ok();
        let uuid = nqn.trim().strip_prefix("nqn.2014-08.org.nvmexpress:uuid:").unwrap();
        assert_eq!(fs::read_to_string("/etc/nvme/hostnqn").unwrap(), nqn);
        assert_eq!(stasadm("hostid -f /etc/nvme/hostid").ok().trim(), uuid);
        stasadm("hostnqn -f /etc/nvme/hostnqn").ok();
        assert_eq!(fs::read_to_string("/etc/nvme/hostnqn").unwrap(), nqn, "the same machine, the same name");
        assert_eq!(stasadm("hostnqn --if-missing -f /etc/nvme/another").ok(), nqn);
        assert!(!Path::new("/etc/nvme/another").exists());
        stasadm("set-symname rack-5").ok();
        assert_eq!(stasadm("check").ok(), "");

        let text = fs::read_to_string(conf).unwrap();
        let added =
            ["nqn = \"file:///etc/nvme/hostnqn\"\n", "id = \"file:///etc/nvme/hostid\"\n", "symname = \"rack-5\"\n"];
        assert!(added.iter().all(|line| text.contains(line)), "{text}");
        assert_eq!(text.len(), shipped.len() + added.concat().len());
        assert_eq!(fs::metadata(conf).unwrap().permissions().mode() & 0o777, 0o640);
        stasadm("clear-symname").ok();
        assert_eq!(fs::read_to_string(conf).unwrap(), text.replace(added[2], ""));

        // It is what the storage sees.
        two_disks(guest);
        let _stas = guest.spawn("stas", &["run"]);
        wait_disks(guest, 2);
        assert!(guest.controllers().iter().all(|controller| controller.hostnqn == nqn.trim()));
        assert!(guest.run("stafctl", &["status"]).ok().contains(uuid));
    });
}

#[test]
fn an_ini_file_is_edited_checked_and_converted() {
    scenario(|guest| {
        let stasadm = |line: &str| guest.run("stasadm", &line.split(' ').collect::<Vec<_>>());
        let ini = "# ours\n[Host]\n# the name\nnqn=file:///etc/nvme/hostnqn\n; a remark\n#symname=\n";
        guest.write("/etc/stas/sys.conf", ini);
        stasadm("set-symname rack-5").ok();
        assert_eq!(fs::read_to_string("/etc/stas/sys.conf").unwrap(), format!("{ini}symname = rack-5\n"));
        stasadm("clear-symname").ok();
        assert_eq!(fs::read_to_string("/etc/stas/sys.conf").unwrap(), ini);
        assert_eq!(stasadm("convert /etc/stas/sys.conf").ok(), "# the name\nnqn = \"file:///etc/nvme/hostnqn\"\n");

        guest.write("/etc/stas/stafd.conf", "[Global]\ntron=perhaps\nkato=20\n");
        let check = stasadm("check");
        assert_eq!((check.code, check.stderr.as_str()), (Some(1), ""));
        assert_eq!(
            check.stdout,
            "warning: /etc/stas/stafd.conf:2: tron: \"perhaps\" is not a boolean; accepted: true, false\n"
        );
        let converted = stasadm("convert /etc/stas/stafd.conf");
        assert_eq!((converted.code, converted.stdout.as_str()), (Some(0), "kato = 20\n"));
        guest.write("/etc/stas/stafd.conf", &converted.stdout);
        assert_eq!(stasadm("check").ok(), "");

        assert_refused(&stasadm("convert /etc/stas/stafd.conf"), 1, "is no file for nvme-stas");
        assert_refused(&stasadm("-c /proc/version hostid"), 1, "/proc/version");
        assert_refused(&stasadm("hostid now"), 2, "`stasadm -h` tells how it is used");
    });
}

#[test]
fn tree_shows_all_in_one_process() {
    scenario(|guest| {
        assert_refused(&guest.run("stas", &["tree"]), 1, "cannot reach stafd, start it or `stas run`");
        let [a, b] = two_disks(guest);
        // A second path to each, by a second discovery controller; and one that no discovery controller lists.
        let second = guest.target().tcp_port("127.0.0.2", 8009);
        let unlisted = guest.target().tcp_port("127.0.0.3", 4420);
        second.link(&a);
        second.link(&b);
        let c = guest.target().subsystem("nqn.2026-01.example:c");
        unlisted.link(&c);
        let controller = |traddr| format!("[[controller]]\ntransport = \"tcp\"\ntraddr = \"{traddr}\"\n");
        guest.write("/etc/stas/stafd.conf", &(controller("127.0.0.1") + &controller("127.0.0.2")));
        let io = format!("{}trsvcid = 4420\nnqn = \"{}\"\n", controller("127.0.0.3"), c.nqn);
        guest.write("/etc/stas/stacd.conf", &io);
        let stas = guest.spawn("stas", &["run"]);
        guest.wait_until("five paths are live", SOON, || guest.live_io_controllers().len() == 5);

        let tree = guest.run("stas", &["tree"]).ok();
        let lines: Vec<&str> = tree.lines().collect();
        assert_eq!(lines[0], format!("host {HOSTNQN}"));
        assert!(lines.iter().all(|line| line.len() <= 80), "{tree}");
        let json: Value = serde_json::from_str(&guest.run("stas", &["tree", "-o", "json"]).ok()).unwrap();
        let controllers = json["discovery-controllers"].as_array().unwrap();
        assert_eq!(controllers.len(), 2);
        for controller in controllers {
            assert_eq!(
                (&controller["state"], &controller["origin"]),
                (&Value::from("live"), &Value::from("configured"))
            );
            let subsystems = controller["subsystems"].as_array().unwrap();
            assert_eq!(subsystems.len(), 2);
            for subsystem in subsystems {
                let paths = subsystem["paths"].as_array().unwrap();
                assert_eq!((paths.len(), &paths[0]["state"]), (1, &Value::from("live")), "{subsystem}");
                let disk = subsystem["namespaces"][0].as_str().unwrap();
                assert!(guest.block_devices().iter().any(|device| device.name == disk), "{subsystem}");
                assert!(tree.contains(&format!("{}  {disk}\n", subsystem["subsysnqn"].as_str().unwrap())), "{tree}");
            }
        }
        assert_eq!(json["not-listed"][0]["subsysnqn"], c.nqn);
        assert_eq!(json["host"]["hostid"], HOSTID);
        assert_eq!(tree.matches("  live\n").count(), 5, "{tree}");
        assert!(tree.contains("`- not listed by a discovery controller\n   `- nqn.2026-01.example:c  nvme"), "{tree}");

        guest.write("/etc/stas/stafd.conf", &(controller("127.0.0.1") + &controller("127.0.0.4")));
        stas.reload();
        let why = "nothing listens at that address and port (ECONNREFUSED)";
        stas.wait_log(why, SOON);
        let tree = guest.run("stas", &["tree"]).ok();
        assert!(tree.contains(&format!(" failed, configured, no log page yet: {why}\n")), "{tree}");
    });
}

#[test]
fn tree_shows_what_one_daemon_knows() {
    scenario(|guest| {
        two_disks(guest);
        let _bus = guest.start_bus();
        let stafd = guest.spawn("stafd", &[]);
        let stacd = guest.spawn("stacd", &[]);
        wait_disks(guest, 2);
        stacd.kill();
        let tree = guest.run("stas", &["tree"]);
        assert!(tree.stderr.contains("cannot reach stacd") && tree.stderr.lines().count() == 1, "{tree:?}");
        let tree = tree.ok();
        assert!(tree.contains("tcp 127.0.0.1:8009  live, configured, 3 entries\n"), "{tree}");
        assert_eq!(tree.matches("  unknown\n").count(), 2, "{tree}");
        let stacd = guest.spawn("stacd", &[]);
        stacd.wait_log("already connected", SOON);
        stafd.kill();
        let tree = guest.run("stas", &["tree"]);
        assert!(tree.stderr.contains("cannot reach stafd"), "{tree:?}");
        assert_eq!(tree.ok().matches("127.0.0.1:8009  live\n").count(), 2);
    });
}

#[test]
fn watch_tells_each_change() {
    scenario(|guest| {
        assert_refused(&guest.run("stacctl", &["watch"]), 1, "cannot reach stacd");
        let bus = guest.start_bus();
        let disks = two_disks(guest);
        let port = guest.target().tcp_port("127.0.0.2", 8009);
        let stafd = guest.spawn("stafd", &[]);
        let stacd = guest.spawn("stacd", &[]);
        wait_disks(guest, 2);
        let [of_stafd, of_stacd, json] =
            [&["stafctl", "watch"][..], &["stacctl", "watch"], &["stacctl", "watch", "-o", "json"]]
                .map(|words| guest.spawn(words[0], &words[1..]));
        // Subscribed is who has a line; this one comes again and again until then.
        for watcher in [("stafctl", &of_stafd), ("stacctl", &of_stacd), ("stacctl", &json)] {
            guest.wait_until("the watcher sees a change", SOON, || {
                guest.run(watcher.0, &["tron"]).ok();
                guest.run(watcher.0, &["troff"]).ok();
                watcher.1.log().contains("tron")
            });
        }
        let c = guest.target().subsystem("nqn.2026-01.example:c");
        port.link(&c);
        // It goes on listening when the other is taken away.
        port.link(&disks[1]);
        let both = "[[controller]]\ntransport = \"tcp\"\ntraddr = \"127.0.0.1\"\n\
                    [[controller]]\ntransport = \"tcp\"\ntraddr = \"127.0.0.2\"\n";
        guest.write("/etc/stas/stafd.conf", both);
        stafd.reload();
        of_stafd.wait_log("tcp 127.0.0.2:8009 nqn.2014-08.org.nvmexpress.discovery", SOON);
        of_stacd.wait_log("tcp 127.0.0.2:8009 nqn.2026-01.example:c", SOON);
        assert!(of_stafd.log().lines().any(|line| line.starts_with("up        nvme")), "{}", of_stafd.log());
        of_stafd.wait_log("log page  nvme", SOON);
        port.unlink(&c);
        of_stacd.wait_log("down      nvme", SOON);
        json.wait_log("\"change\":\"down\"", SOON);
        let line = json.log().lines().find(|line| line.contains("\"down\"")).unwrap().to_owned();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["traddr"], &line["subsysnqn"]), (&Value::from("127.0.0.2"), &Value::from(c.nqn.as_str())));

        stacd.kill();
        of_stacd.wait_log("daemon    gone", SOON);
        let _stacd = guest.spawn("stacd", &[]);
        of_stacd.wait_log("daemon    here", SOON);
        port.link(&c);
        let ups = || of_stacd.log().matches("tcp 127.0.0.2:8009 nqn.2026-01.example:c").count();
        guest.wait_until("the watcher hears of the daemon that came back", SOON, || ups() == 3);
        bus.kill();
        of_stacd.wait_log("stacctl: stacd: the connection was closed", SOON);
    });
}

#[test]
fn watch_works_without_a_bus() {
    scenario(|guest| {
        let [a, _] = two_disks(guest);
        let stas = guest.spawn("stas", &["run"]);
        wait_disks(guest, 2);
        let watcher = guest.spawn("stacctl", &["watch"]);
        guest.wait_until("the watcher sees a change", SOON, || {
            guest.run("stacctl", &["tron"]).ok();
            guest.run("stacctl", &["troff"]).ok();
            watcher.log().contains("tron")
        });
        guest.disconnect(&guest.live_io_controllers().iter().find(|c| c.subsysnqn == a.nqn).unwrap().name);
        watcher.wait_log("down      nvme", SOON);
        watcher.wait_log("up        nvme", SOON);
        assert!(!watcher.log().contains("discovery"), "the finder's signals are not ours:\n{}", watcher.log());
        stas.terminate();
        watcher.wait_log("the connection was closed", SOON);
    });
}
