//! What `stas boot` waits for, and how it ends.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::kernel::disks::{BLOCK, disks, is_disk, plain, subsystem_of};

/// The kernel tells of its devices, but nobody tells of the links to them that udev makes.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What has to be there for the boot to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// A disk of a subsystem that the firmware boots from; where it names none, of any that is wanted.
    Any,
    /// A block device by this path.
    Device(PathBuf),
    /// A disk of the subsystem with this NQN.
    Subsystem(String),
    /// The disk with this UUID, NGUID or EUI-64, in plain digits.
    Namespace(String),
}

impl Until {
    /// # Errors
    /// What is accepted.
    pub fn parse(text: &str) -> Result<Until, String> {
        // As the kernel's and everybody's root= has them.
        for (word, directory) in
            [("UUID=", "by-uuid"), ("LABEL=", "by-label"), ("PARTUUID=", "by-partuuid"), ("PARTLABEL=", "by-partlabel")]
        {
            if let Some(value) = text.strip_prefix(word).filter(|value| !value.is_empty()) {
                return Ok(Until::Device(Path::new("/dev/disk").join(directory).join(value)));
            }
        }
        match text {
            _ if text.starts_with("/dev/") => Ok(Until::Device(PathBuf::from(text))),
            _ if text.starts_with("nqn.") => Ok(Until::Subsystem(text.to_owned())),
            _ => plain(text).map(Until::Namespace).ok_or_else(|| {
                format!(
                    "{text:?} is neither a path below /dev, nor an NQN, nor the UUID, NGUID or EUI-64 of a namespace"
                )
            }),
        }
    }

    /// The disk that is waited for, once it is there. `subsystems`: those that [`Until::Any`] is about.
    fn met(&self, subsystems: impl FnOnce() -> BTreeSet<String>) -> Option<PathBuf> {
        if let Until::Device(path) = self {
            return is_disk(path).then(|| path.clone());
        }
        let node = |name: &str| Path::new("/dev").join(name);
        let mut there = disks(Path::new(BLOCK));
        match self {
            Until::Subsystem(nqn) => there.retain(|disk| disk.subsysnqn == *nqn),
            Until::Namespace(id) => there.retain(|disk| disk.ids.contains(id)),
            Until::Any | Until::Device(_) => {
                let subsystems = subsystems();
                there.retain(|disk| subsystems.contains(&disk.subsysnqn));
            }
        }
        there.iter().map(|disk| node(&disk.name)).find(|node| is_disk(node))
    }
}

/// As in `waits for …`.
impl std::fmt::Display for Until {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Until::Any => f.write_str("a disk to boot from"),
            Until::Device(path) => write!(f, "{}", path.display()),
            Until::Subsystem(nqn) => write!(f, "a disk of {nqn}"),
            Until::Namespace(id) => write!(f, "the disk with the identifier {id}"),
        }
    }
}

/// How a daemon ended that was not killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Asked to.
    Stopped,
    /// What was waited for is there.
    Usable,
    TooLate,
    /// Neither the firmware nor the configuration names anything to connect.
    NothingToDo,
}

#[derive(Debug)]
pub struct Goal {
    until: Until,
    started: Instant,
    give_up_at: Option<Instant>,
    look_at: Option<Instant>,
}

impl Goal {
    /// `patience`: `None` waits for ever.
    pub fn new(now: Instant, until: Until, patience: Option<Duration>) -> Goal {
        let give_up_at = patience.and_then(|patience| now.checked_add(patience));
        Goal { until, started: now, give_up_at, look_at: None }
    }

    /// Whether it is over by now. `is_reached`: of a subsystem, whether we know a path to it; its disk may be there a moment
    /// before.
    pub fn judge(
        &mut self,
        now: Instant,
        subsystems: impl FnOnce() -> BTreeSet<String>,
        is_reached: impl FnOnce(&str) -> bool,
    ) -> Option<Ended> {
        let took = now.saturating_duration_since(self.started).as_secs_f32();
        let is_known = |disk: &PathBuf| subsystem_of(disk).is_none_or(|nqn| is_reached(&nqn));
        if let Some(disk) = self.until.met(subsystems).filter(is_known) {
            log::info!("{} is there after {took:.1} s: going on", disk.display());
            return Some(Ended::Usable);
        }
        if self.give_up_at.is_some_and(|at| at <= now) {
            log::error!("giving up after {took:.0} s of waiting for {}", self.until);
            return Some(Ended::TooLate);
        }
        self.look_at = matches!(self.until, Until::Device(_)).then(|| now + LOOK_AGAIN);
        None
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.look_at.into_iter().chain(self.give_up_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_has_many_names() {
        let device = |path: &str| Ok(Until::Device(PathBuf::from(path)));
        assert_eq!(Until::parse("/dev/nvme0n1"), device("/dev/nvme0n1"));
        assert_eq!(Until::parse("UUID=6b5e-11"), device("/dev/disk/by-uuid/6b5e-11"));
        assert_eq!(Until::parse("LABEL=root"), device("/dev/disk/by-label/root"));
        assert_eq!(Until::parse("nqn.2026-01.example:a"), Ok(Until::Subsystem("nqn.2026-01.example:a".into())));
        let id = "abababababababababababababababab".to_owned();
        assert_eq!(Until::parse("abababab-abab-abab-abab-ABABABABABAB"), Ok(Until::Namespace(id)));
        for nonsense in ["", "root", "UUID=", "nvme0n1"] {
            assert!(Until::parse(nonsense).unwrap_err().contains("NQN"), "{nonsense}");
        }
    }

    #[test]
    fn patience_ends() {
        let start = Instant::now();
        let nothing = BTreeSet::new;
        let mut goal = Goal::new(start, Until::Any, Some(Duration::from_secs(5)));
        assert_eq!(goal.judge(start, nothing, |_| true), None);
        assert_eq!(goal.deadline(), Some(start + Duration::from_secs(5)));
        assert_eq!(goal.judge(start + Duration::from_secs(5), nothing, |_| true), Some(Ended::TooLate));
        let mut goal = Goal::new(start, Until::Device("/dev/nonexistent".into()), None);
        assert_eq!(goal.judge(start, nothing, |_| true), None);
        assert_eq!(goal.deadline(), Some(start + LOOK_AGAIN));
    }
}
