//! With nothing to do, nothing wakes up.

use std::time::Duration;

use crate::vm::scenario;

/// How often the threads of `stas` and its helper have given up the processor so far.
fn switches() -> u64 {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let statuses = processes.filter_map(|process| std::fs::read_to_string(process.path().join("status")).ok());
    statuses
        .filter(|status| status.starts_with("Name:\tstas"))
        .flat_map(|status| status.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| line.contains("ctxt_switches:"))
        .map(|line| line.rsplit('\t').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

#[test]
fn an_idle_host_has_no_wakeups() {
    scenario(|guest| {
        let target = guest.target();
        let port = target.tcp_port("127.0.0.1", 8009);
        for number in 0..8 {
            port.link(&target.subsystem(&format!("nqn.2026-01.example:{number}")));
        }
        guest.write("/etc/stas/stafd.conf", "[[controller]]\ntransport = \"tcp\"\ntraddr = \"127.0.0.1\"\n");
        let _bus = guest.start_bus();
        let stas = guest.spawn("stas", &["run"]);
        guest.wait_until("eight disks", Duration::from_secs(20), || guest.block_devices().len() == 8);
        stas.wait_log("nqn.2026-01.example:7: connected as", Duration::from_secs(5));
        // Nothing is awaited here: the claim is that nothing happens.
        std::thread::sleep(Duration::from_secs(1));
        let before = switches();
        std::thread::sleep(Duration::from_secs(10));
        assert_eq!(switches() - before, 0, "wake-ups in ten idle seconds");
        assert!(before > 0);
    });
}
