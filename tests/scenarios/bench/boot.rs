//! What our part of an initramfs costs, in bytes and in time, beside dracut's own module `nvmf`: both made by dracut, of the
//! same modules otherwise, both booting the same machine from the same table, turn by turn. Not by a clock that counts instructions: there are two machines.
//!
//! `nvmf` is nvme-cli, jq and shell scripts that hand the table's network to one of dracut's network modules. Of those that
//! Debian 13 has, systemd-networkd (its default) does not take it, so it is measured with the other two. That DHCP is not used
//! is to its advantage.

use crate::root::{NONE, boot_table, serve};
use crate::vm::{Initramfs, Pair, write_compared};
use std::path::Path;
use std::process::Command;

/// `tests/setup` has what they are.
const PLAIN: &str = "plain";
const OURS: &str = "stas";
const THEIRS: [(&str, &str); 2] =
    [("nvmf-legacy", "nvmf with network-legacy"), ("nvmf-network-manager", "nvmf with NetworkManager")];

/// Boots of each.
const ROUNDS: usize = 3;

#[test]
#[ignore = "a benchmark: run tests/bench"]
fn an_initramfs() {
    // The first of these goes on in the machines, and there only it counts.
    let mut times = [OURS, THEIRS[0].0, THEIRS[1].0].map(|name| (name, vec![]));
    for _ in 0..ROUNDS {
        for (name, times) in &mut times {
            times.push(boot(name));
        }
    }
    let [ours, theirs @ ..] = times.map(|(_, times)| Times::median(&times));
    let [plain, our_size] = [PLAIN, OURS].map(sizes);
    // Whatever stands on this line so far is not of the table.
    println!();
    for ((name, words), times) in THEIRS.iter().zip(theirs) {
        let their_size = sizes(name);
        for (at, how) in ["not compressed", "gzip -9", "zstd -15"].iter().enumerate() {
            let (mine, other) = (our_size[at] - plain[at], their_size[at] - plain[at]);
            let figure = format!("bytes added to an initramfs, {how}");
            row(
                &figure,
                &format!("{} kB", mine / 1000),
                &format!("{words}: {} kB", other / 1000),
                mine as f64 / other as f64,
            );
        }
        for (figure, mine, other) in [
            ("kernel's start → root device", ours.disk, times.disk),
            ("dracut's first hooks → root device", ours.disk - ours.cmdline, times.disk - times.cmdline),
            (
                "start of our hook, or of its first one → root device",
                ours.disk - ours.settled,
                times.disk - times.cmdline,
            ),
        ] {
            row(figure, &format!("{mine:.2} s"), &format!("{words}: {other:.2} s"), mine / other);
        }
    }
}

fn row(figure: &str, measured: &str, compared: &str, ratio: f64) {
    let met = if ratio < 1.0 { "yes" } else { "no" };
    println!("| {figure} | {measured} | {compared} | {ratio:.2} × | < 1 × | {met} |");
}

/// Seconds since the kernel's start.
#[derive(Debug, Clone, Copy)]
struct Times {
    cmdline: f64,
    settled: f64,
    disk: f64,
}

impl Times {
    fn median(all: &[Times]) -> Times {
        let median = |of: fn(&Times) -> f64| {
            let mut values: Vec<f64> = all.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Times { cmdline: median(|one| one.cmdline), settled: median(|one| one.settled), disk: median(|one| one.disk) }
    }
}

fn boot(name: &'static str) -> Times {
    let pair = Pair::new(Initramfs::Compared(name), "root=LABEL=debian rw init=/scenario", boot_table());
    let told = pair.run(
        |target| serve(target, &NONE),
        |booted| {
            // As in `[    5.123456] mark: disk`.
            booted
                .run("dmesg", &[])
                .ok()
                .lines()
                .filter(|line| line.contains("] mark: "))
                .for_each(|line| booted.tell(line));
        },
    );
    println!("{name}: {told:?}");
    let first = |mark: &str| {
        let line = told.iter().find(|line| line.ends_with(mark))?;
        let seconds = line.trim_start_matches('[').split(']').next().unwrap_or_default();
        Some(seconds.trim().parse().unwrap_or_else(|_| panic!("{line}")))
    };
    let [Some(cmdline), Some(disk)] = ["cmdline", "disk"].map(first) else {
        panic!("a mark is missing: {told:?}");
    };
    // Who has the disk before does not get that far.
    Times { cmdline, settled: first("settled").unwrap_or(disk), disk }
}

/// Of an initramfs: as it is, and compressed as dracut and others do.
fn sizes(name: &str) -> [i64; 3] {
    let vm = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/vm");
    let image = vm.join(format!("run/{name}.cpio"));
    write_compared(name, &vm, &image).unwrap();
    let image = image.to_str().unwrap();
    let sizes = ["cat", "gzip -9cn", "zstd -15qc"].map(|program| {
        let counted = Command::new("sh").args(["-c", &format!("{program} {image} | wc -c")]).output().unwrap();
        String::from_utf8(counted.stdout).unwrap().trim().parse().unwrap()
    });
    std::fs::remove_file(image).unwrap();
    sizes
}
