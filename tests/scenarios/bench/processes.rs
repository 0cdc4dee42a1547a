//! What processes cost while they do nothing.

use crate::guest::Guest;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Processes, by their directories in `/proc`.
#[derive(Debug)]
pub struct Processes(Vec<PathBuf>);

impl Processes {
    /// Those whose command line has this in it, with all that they have forked.
    pub fn called(text: &str) -> Processes {
        let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let is_called = |path: &PathBuf| {
            let command = fs::read(path.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            command.contains(text) && !command.contains("scenarios")
        };
        let found: Vec<PathBuf> = all.filter(is_called).collect();
        assert!(!found.is_empty(), "no process is called {text}");
        Processes(found)
    }

    /// In kB: what memory they have to themselves, and their part of what they share.
    pub fn memory(&self) -> f64 {
        let of_one = |path: &PathBuf| {
            let rollup = fs::read_to_string(path.join("smaps_rollup")).unwrap();
            let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
            pss.trim_end_matches("kB").trim().parse::<f64>().unwrap()
        };
        self.0.iter().map(of_one).sum()
    }

    /// By thread, how often it has given up the processor so far.
    fn switches(&self) -> BTreeMap<PathBuf, u64> {
        let tasks = self.0.iter().flat_map(|path| fs::read_dir(path.join("task")).unwrap().flatten());
        let of_one = |status: String| -> u64 {
            let lines = status.lines().filter(|line| line.contains("ctxt_switches:"));
            lines.map(|line| line.rsplit('\t').next().unwrap().parse::<u64>().unwrap()).sum()
        };
        tasks.map(|task| (task.path(), of_one(fs::read_to_string(task.path().join("status")).unwrap()))).collect()
    }

    /// Wake-ups in a minute in which nothing happens. Threads may begin and end in it.
    pub fn idle_minute(&self, guest: &Guest) -> u64 {
        super::settle(guest);
        let before = self.switches();
        std::thread::sleep(Duration::from_secs(60));
        self.switches().iter().map(|(thread, now)| now - before.get(thread).unwrap_or(&0)).sum()
    }
}
