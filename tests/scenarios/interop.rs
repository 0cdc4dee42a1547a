//! nvme-stas as Debian ships it, and Debian's D-Bus tools, against ours; and ours against nvme-stas.

use crate::guest::Guest;
use crate::vm::Scenario;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn explore() {
    Scenario::new().with_debian().limit(Duration::from_secs(200)).run(|guest| {
        let debian = guest.debian();
        guest.run("ls", &["-la", "/debian"]);
        let disk = guest.target().subsystem("nqn.2026-01.example:a");
        guest.target().tcp_port("127.0.0.1", 8009).link(&disk);
        guest.write(
            "/etc/stas/stafd.conf",
            "[Global]\n[Controllers]\ncontroller = transport=tcp;traddr=127.0.0.1;trsvcid=8009\n",
        );
        guest.write("/etc/stas/stacd.conf", "[Global]\n[Controllers]\n");
        guest.write("/etc/stas/sys.conf", "[Host]\n");
        let bus = guest.start_bus();
        let stafd = guest.spawn("stafd", &[]);
        let stacd = guest.spawn("stacd", &[]);
        guest.wait_until("disk", PATIENCE, || !guest.block_devices().is_empty());
        for tool in ["stafctl", "stacctl"] {
            for args in [&["ls"][..], &["ls", "-d"], &["status"]] {
                debian.run(tool, args);
            }
        }
        debian.run("stafctl", &["adlp"]);
        debian.run("stafctl", &["adlp", "-d"]);
        debian.run("stafctl", &["dlp", "-t", "tcp", "-a", "127.0.0.1", "-s", "8009"]);
        debian.run("gdbus", &["introspect", "--system", "-d", "org.nvmexpress.staf", "-o", "/org/nvmexpress/staf"]);
        debian.run("busctl", &["introspect", "org.nvmexpress.staf", "/org/nvmexpress/staf"]);
        debian.run("busctl", &["tree", "org.nvmexpress.staf"]);
        stafd.terminate();
        stacd.terminate();
        let udevd = debian.spawn("/usr/lib/systemd/systemd-udevd", &[]);
        let stafd = debian.spawn("/usr/sbin/stafd", &["--tron"]);
        let stacd = debian.spawn("/usr/sbin/stacd", &["--tron"]);
        std::thread::sleep(Duration::from_secs(25));
        for tool in ["stafctl", "stacctl"] {
            for args in [&["ls"][..], &["ls", "-d"], &["status"]] {
                debian.run(tool, args);
                guest.run(tool, args);
            }
        }
        debian.run("gdbus", &["introspect", "--system", "-d", "org.nvmexpress.staf", "-o", "/org/nvmexpress/staf"]);
        debian.run("gdbus", &["introspect", "--system", "-d", "org.nvmexpress.stac", "-o", "/org/nvmexpress/stac"]);
        debian.run("stafctl", &["adlp", "-d"]);
    });
}
