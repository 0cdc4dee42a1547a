//! What this host uses is not taken away: a discovery controller lists a disk no longer, but it is mounted.

use crate::guest::{Controller, Daemon, Guest, Subsystem};
use crate::sim::{Entry, Simulator};
use crate::stas::{Form, Part, SOON, STACD_CONF, STAFD_CONF, Stas, controller, nqn};
use crate::vm::{Kernel, Scenario, scenario};

const PLACE: &str = "/data";

/// A discovery controller that lists a disk at these ports; the disk is attached by as many paths.
struct Stage<'g> {
    guest: &'g Guest,
    dc: Simulator,
    disk: Subsystem,
    stas: Stas<'g>,
    paths: Vec<Controller>,
    device: String,
}

impl<'g> Stage<'g> {
    fn set(guest: &'g Guest, form: Form, ports: &[u16], stacd_conf: &str) -> Stage<'g> {
        let disk = guest.target().subsystem(&nqn("disk"));
        for port in ports {
            guest.target().tcp_port("127.0.0.1", *port).link(&disk);
        }
        let dc = Simulator::start("127.0.0.1:8009").unwrap();
        guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
        guest.write(STACD_CONF, stacd_conf);
        let stas = Stas::start(guest, form);
        let mut stage = Stage { guest, dc, disk, stas, paths: Vec::new(), device: String::new() };
        stage.list(ports);
        guest.wait_until("all paths are live", SOON, || guest.live_io_controllers().len() == ports.len());
        guest.wait_until("the disk is there", SOON, || guest.block_devices().len() == 1);
        stage.stas.connector().wait_log("connected as", SOON);
        stage.paths = guest.live_io_controllers();
        stage.device = format!("/dev/{}", guest.block_devices()[0].name);
        stage
    }

    fn list(&self, ports: &[u16]) {
        self.dc.set_entries(ports.iter().map(|port| Entry::io(&self.disk.nqn, "127.0.0.1", &port.to_string())));
    }

    fn mount(&self) {
        self.guest.run("mke2fs", &["-b", "4096", &self.device]).ok();
        std::fs::create_dir_all(PLACE).unwrap();
        self.guest.run("mount", &["-t", "ext4", &self.device, PLACE]).ok();
    }

    #[track_caller]
    fn expect_kept(&self, why: &str) {
        self.stas.connector().wait_log(&format!("kept: {why}"), SOON);
        self.guest.wait_until("stacctl says why", SOON, || self.guest.run("stacctl", &["ls"]).ok().contains(why));
        assert!(self.guest.run("stas", &["tree"]).ok().contains(&format!("kept: {why}")));
        self.guest.assert_untouched(&self.paths);
    }

    #[track_caller]
    fn expect_gone(&self) {
        self.guest.wait_until("the disk is gone", SOON, || self.guest.live_io_controllers().is_empty());
        // The daemon hears of it after that.
        let none = || self.guest.run("stacctl", &["ls"]).ok() == "no controllers\n";
        self.guest.wait_until("nothing is kept any more", SOON, none);
    }
}

#[test]
fn a_mounted_disk_stays_until_it_is_unmounted() {
    scenario(|guest| a_mounted_disk_stays(guest, Form::TwoDaemons));
}

#[test]
fn a_mounted_disk_stays_until_it_is_unmounted_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(|guest| a_mounted_disk_stays(guest, Form::OneProcess));
}

fn a_mounted_disk_stays(guest: &Guest, form: Form) {
    let mut stage = Stage::set(guest, form, &[4420], "");
    stage.mount();
    stage.list(&[]);
    stage.expect_kept(&format!("{} is mounted on {PLACE}", stage.device));
    guest.write(format!("{PLACE}/file"), "still there");

    // The next run knows that it is its own, and why it is still there.
    stage.stas.end(Part::Connector, Daemon::terminate);
    stage.stas.start_again();
    stage.expect_kept(&format!("{} is mounted on {PLACE}", stage.device));
    guest.run("umount", &[PLACE]).ok();
    stage.expect_gone();
    assert_eq!(stage.stas.connector().count_log("kept:"), 1, "said once, however often it is looked at");
}

#[test]
fn swap_partitions_and_other_mount_namespaces_count() {
    scenario(|guest| {
        let stage = Stage::set(guest, Form::OneProcess, &[4420], "");
        let device = stage.device.as_str();
        let again = || {
            stage.list(&[4420]);
            guest.wait_until("it is wanted again", SOON, || !guest.run("stacctl", &["ls"]).ok().contains("KEPT"));
        };

        guest.run("mkswap", &[device]).ok();
        guest.run("swapon", &[device]).ok();
        stage.list(&[]);
        stage.expect_kept(&format!("{device} is swap space"));
        again();
        guest.run("swapoff", &[device]).ok();

        // The kernel does not tell this daemon of a mount that it cannot see, nor of its end.
        guest.run("mke2fs", &["-b", "4096", device]).ok();
        std::fs::create_dir_all(PLACE).unwrap();
        let script = format!("mount -t ext4 {device} {PLACE} && echo mounted && exec sleep 1000");
        let elsewhere = guest.spawn("unshare", &["--mount", "sh", "-c", &script]);
        elsewhere.wait_log("mounted", SOON);
        stage.list(&[]);
        stage.expect_kept(&format!("{device} is in use, perhaps in another mount namespace"));
        again();
        elsewhere.kill();

        // One partition over the whole disk, of an old kind: its table is 16 bytes long.
        let mut table = [0; 4096];
        table[446 + 4] = 0x83;
        table[446 + 8..][..4].copy_from_slice(&8u32.to_le_bytes());
        table[446 + 12..][..4].copy_from_slice(&1000u32.to_le_bytes());
        table[510..512].copy_from_slice(&[0x55, 0xaa]);
        std::fs::write(device, table).unwrap();
        guest.run("blockdev", &["--rereadpt", device]).ok();
        let partition = format!("{device}p1");
        guest.wait_until("the partition is there", SOON, || std::path::Path::new(&partition).exists());
        guest.run("mke2fs", &["-b", "4096", &partition]).ok();
        guest.run("mount", &["-t", "ext4", &partition, PLACE]).ok();
        stage.list(&[]);
        stage.expect_kept(&format!("{partition} is mounted on {PLACE}"));
        guest.run("umount", &[PLACE]).ok();
        stage.expect_gone();
    });
}

/// Both paths are withdrawn at once: one of them goes, the other is the last.
#[test]
fn of_two_paths_to_a_mounted_disk_one_stays() {
    scenario(|guest| {
        let stage = Stage::set(guest, Form::OneProcess, &[4420, 4421], "");
        stage.mount();
        stage.list(&[]);
        stage.stas.connector().wait_log("kept: ", SOON);
        guest.wait_until("one path is left", SOON, || guest.live_io_controllers().len() == 1);
        guest.write(format!("{PLACE}/file"), "still there");

        // The other one comes back: now the first can go.
        let left = guest.live_io_controllers().remove(0);
        let port = left.address_field("trsvcid").unwrap().to_owned();
        let other = if port == "4420" { 4421 } else { 4420 };
        stage.list(&[other]);
        guest.wait_until("they have changed places", SOON, || {
            let live = guest.live_io_controllers();
            live.len() == 1 && live[0].address_field("trsvcid") == Some(&other.to_string())
        });
        guest.write(format!("{PLACE}/file"), "still there");
        guest.run("umount", &[PLACE]).ok();
    });
}

#[test]
fn zoning_can_be_enforced() {
    scenario(|guest| {
        let stage = Stage::set(guest, Form::OneProcess, &[4420], "");
        stage.mount();
        stage.list(&[]);
        stage.expect_kept(&format!("{} is mounted on {PLACE}", stage.device));
        guest.write(STACD_CONF, "disconnect-in-use = true\n");
        stage.stas.connector().reload();
        guest.wait_until("the disk is gone", SOON, || guest.live_io_controllers().is_empty());
    });
}
