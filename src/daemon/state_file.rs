//! What outlives the process: which connections are ours, which discovery controllers listed them, and which of these
//! are known from announcements only.
//!
//! Kept as JSON in the runtime directory, which a reboot empties just as it ends the connections; so time is counted from the
//! start of the machine, and no clock that is set changes it. Replaced atomically; what cannot be written is tried again; a
//! file that makes no sense is reported and ignored. It holds no secrets and nothing that could be executed.
//!
//! A change is written at once, but not while connects are under way, which come first; unless they take long. With hundreds of
//! connections, all of which are written each time, changes that follow each other share a write. What a crash loses of them errs
//! on the safe side: it makes a connection somebody else's, or leaves a path listed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::bus::ControllerId;
use crate::core::Legacy;
use crate::core::device::ControllerKind;
use crate::core::links::LinkId;
use crate::core::terms::Terms;

const NAME: &str = "last-known.json";
const VERSION: u32 = 1;
/// How long to wait before writing again what could not be written.
const WRITE_AGAIN: Duration = Duration::from_secs(10);
/// So many connections are written in no time; for each further one a change has to wait so much longer after the last.
const FEW: usize = 8;
const REST_EACH: Duration = Duration::from_millis(2);
/// No connect is waited for longer than that.
const PATIENCE: Duration = Duration::from_secs(1);
/// A megabyte describes some two thousand connections; more is not ours.
const SIZE_MAX: u64 = 16 << 20;

#[derive(Deserialize)]
struct Contents {
    version: u32,
    connections: Vec<Connection>,
}

#[derive(Serialize, Deserialize)]
struct Connection {
    discovery: bool,
    controller: ControllerId,
    /// Whether the connection is ours.
    #[serde(default = "yes")]
    ours: bool,
    /// See [`Device::inode`](crate::core::device::Device::inode).
    #[serde(default)]
    inode: u64,
    /// The discovery controllers that list it.
    #[serde(default)]
    sources: Vec<ControllerId>,
    /// They say that only TLS will do.
    #[serde(default)]
    needs_tls: bool,
    /// Known from an announcement.
    #[serde(default)]
    announced: Option<Announced>,
}

#[derive(Serialize, Deserialize)]
struct Announced {
    /// Since when it has been neither announced nor connected, in seconds since the machine started; absent if it was
    /// when this was written.
    unseen_since: Option<u64>,
}

fn yes() -> bool {
    true
}

/// The file, and when it has to be written.
#[derive(Debug)]
pub struct StateFile {
    directory: PathBuf,
    /// How each connection is written: with hundreds of them, one more must not cost as much as all, and nothing is written for
    /// nothing.
    lines: Vec<(Legacy, Box<str>)>,
    written_at: Option<Instant>,
    /// It does not: when to write it.
    write_at: Option<Instant>,
    failing: bool,
}

impl StateFile {
    pub fn new(directory: &Path) -> StateFile {
        StateFile {
            directory: directory.to_owned(),
            lines: Vec::new(),
            written_at: None,
            write_at: None,
            failing: false,
        }
    }

    /// When [`StateFile::save`] wants to be called, even if there is nothing new.
    pub fn deadline(&self) -> Option<Instant> {
        self.write_at
    }

    /// What an earlier run left; nothing where there is nothing usable, with a message.
    pub fn load(&mut self) -> Vec<Legacy> {
        let path = self.directory.join(NAME);
        match read(&path) {
            Ok(legacy) => legacy,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                log::warn!(
                    "{}: {error}; ignored: connections of an earlier run count as somebody else's",
                    path.display()
                );
                Vec::new()
            }
        }
    }

    /// There may be something new: replaces the file, now or soon.
    pub fn save(&mut self, now: Instant, can_wait: bool, legacy: impl FnOnce() -> Vec<Legacy>) {
        let many = u32::try_from(self.lines.len().saturating_sub(FEW)).unwrap_or(u32::MAX);
        let rested = self.written_at.and_then(|at| at.checked_add(REST_EACH.saturating_mul(many)));
        let due = if can_wait { self.write_at.or_else(|| now.checked_add(PATIENCE)) } else { rested };
        match due.filter(|at| *at > now) {
            Some(at) => self.write_at = Some(at),
            None => self.save_now(now, &legacy()),
        }
    }

    /// Nothing more is to come: what has to wait does not.
    pub fn finish(&mut self, now: Instant, legacy: impl FnOnce() -> Vec<Legacy>) {
        if self.write_at.is_some() {
            self.save_now(now, &legacy());
        }
    }

    fn save_now(&mut self, now: Instant, legacy: &[Legacy]) {
        self.write_at = None;
        if !self.take(legacy) && !self.failing && self.written_at.is_some() {
            return;
        }
        self.written_at = Some(now);
        let had_failed = std::mem::take(&mut self.failing);
        if let Err(error) = replace(&self.directory, self.text().as_bytes()) {
            self.failing = true;
            if !had_failed {
                let path = self.directory.join(NAME);
                log::warn!(
                    "{}: cannot be written: {error}; a restart will not know its own connections, trying again",
                    path.display()
                );
            }
            self.write_at = now.checked_add(WRITE_AGAIN);
        }
    }

    /// `Contents` as JSON.
    pub fn write(&mut self, legacy: &[Legacy]) -> String {
        self.take(legacy);
        self.text()
    }

    /// Whether any line is another than before. Both lists are in the order of their ids.
    fn take(&mut self, legacy: &[Legacy]) -> bool {
        let mut before = std::mem::take(&mut self.lines).into_iter().peekable();
        let mut is_new = false;
        for legacy in legacy {
            while before.next_if(|(earlier, _)| earlier.id < legacy.id).is_some() {
                is_new = true;
            }
            let line = match before.next_if(|(earlier, _)| earlier == legacy) {
                Some((_, line)) => line,
                None => {
                    is_new = true;
                    let line = serde_json::to_string(&Connection::new(legacy, uptime()));
                    line.unwrap_or_default().into_boxed_str()
                }
            };
            self.lines.push((legacy.clone(), line));
        }
        is_new || before.next().is_some()
    }

    fn text(&self) -> String {
        let mut text = format!("{{\"version\":{VERSION},\"connections\":[");
        for (index, (_, line)) in self.lines.iter().enumerate() {
            text.push_str(if index > 0 { ",\n" } else { "\n" });
            text.push_str(line);
        }
        text.push_str("\n]}\n");
        text
    }
}

fn read(path: &Path) -> io::Result<Vec<Legacy>> {
    if fs::metadata(path)?.len() > SIZE_MAX {
        return Err(invalid("too large"));
    }
    parse(&fs::read(path)?)
}

/// What such a file says.
///
/// # Errors
/// It makes no sense: nothing of it can be used.
pub fn parse(bytes: &[u8]) -> io::Result<Vec<Legacy>> {
    let contents: Contents = serde_json::from_slice(bytes)?;
    if contents.version != VERSION {
        return Err(invalid("written by another version"));
    }
    let legacy: Option<Vec<Legacy>> =
        contents.connections.iter().map(|connection| connection.to_legacy(uptime())).collect();
    legacy.ok_or_else(|| invalid("unknown transport"))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn replace(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{NAME}.new"));
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, directory.join(NAME)));
    if written.is_err() {
        // What there is of it takes room that others may need.
        let _ = fs::remove_file(temporary);
    }
    written
}

/// Seconds since the machine started, asleep or not.
fn uptime() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| time.tv_sec().unsigned_abs())
}

impl Connection {
    /// `uptime`: now.
    fn new(legacy: &Legacy, uptime: u64) -> Connection {
        let announced = |unseen: Duration| Announced {
            unseen_since: (!unseen.is_zero()).then(|| uptime.saturating_sub(unseen.as_secs())),
        };
        Connection {
            discovery: legacy.id.kind == ControllerKind::Discovery,
            controller: ControllerId::from(&*legacy.id.tid),
            ours: legacy.ours,
            inode: legacy.inode,
            sources: legacy.sources.iter().map(|source| ControllerId::from(&**source)).collect(),
            needs_tls: legacy.terms.needs_tls,
            announced: legacy.unseen.map(announced),
        }
    }

    fn to_legacy(&self, uptime: u64) -> Option<Legacy> {
        let tid = |id: &ControllerId| id.transport_id().map(Rc::new);
        let kind = if self.discovery { ControllerKind::Discovery } else { ControllerKind::Io };
        Some(Legacy {
            id: LinkId { kind, tid: tid(&self.controller)? },
            ours: self.ours,
            inode: self.inode,
            sources: self.sources.iter().map(tid).collect::<Option<_>>()?,
            terms: Terms { needs_tls: self.needs_tls, ..Terms::default() },
            unseen: self.announced.as_ref().map(|announced| announced.age(uptime)),
        })
    }
}

impl Announced {
    fn age(&self, uptime: u64) -> Duration {
        self.unseen_since.map_or(Duration::ZERO, |since| Duration::from_secs(uptime.saturating_sub(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tid::{Spelling, Transport, TransportId};

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("stas-state-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn legacy() -> Vec<Legacy> {
        let tid = |subsysnqn| {
            let spelling = Spelling { traddr: "fe80::1%eth0", trsvcid: "4420", subsysnqn, ..Spelling::default() };
            Rc::new(TransportId::new(Transport::Tcp, spelling))
        };
        let discovery = |subsysnqn, unseen| Legacy {
            id: LinkId { kind: ControllerKind::Discovery, tid: tid(subsysnqn) },
            ours: unseen == Some(Duration::ZERO),
            inode: 5,
            sources: vec![tid("nqn.lister")],
            terms: Terms::default(),
            unseen,
        };
        let io = LinkId { kind: ControllerKind::Io, tid: tid("nqn.a") };
        vec![
            Legacy {
                id: io,
                ours: true,
                inode: 5,
                sources: vec![tid("nqn.dc")],
                terms: Terms { needs_tls: true, ..Terms::default() },
                unseen: None,
            },
            discovery("nqn.dc", Some(Duration::ZERO)),
        ]
    }

    #[test]
    fn age_goes_on_while_nothing_runs() {
        let [_, seen] = legacy().try_into().unwrap();
        let unseen = Legacy { unseen: Some(Duration::from_secs(10)), ..seen.clone() };
        let age = |legacy| Connection::new(legacy, 1000).to_legacy(1005).unwrap().unseen;
        assert_eq!(age(&unseen), Some(Duration::from_secs(15)));
        assert_eq!(age(&seen), Some(Duration::ZERO));
    }

    #[test]
    fn a_file_without_later_additions_is_understood() {
        let directory = directory("earlier");
        let [_, seen] = legacy().try_into().unwrap();
        let mut connection = serde_json::to_value(Connection::new(&seen, 0)).unwrap();
        connection.as_object_mut().unwrap().retain(|key, _| key != "ours" && key != "announced");
        let contents = serde_json::json!({"version": 1, "connections": [connection]});
        fs::write(directory.join(NAME), contents.to_string()).unwrap();
        let [found] = StateFile::new(&directory).load().try_into().unwrap();
        assert!(found.ours && found.unseen.is_none());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn the_next_run_knows_what_this_one_saved() {
        let directory = directory("round-trip");
        StateFile::new(&directory).save(Instant::now(), false, legacy);
        assert_eq!(StateFile::new(&directory).load(), legacy());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn whatever_comes_and_goes_is_written_anew() {
        let directory = directory("changes");
        let [io, seen] = legacy().try_into().unwrap();
        let other = Legacy { sources: vec![], ..io.clone() };
        let mut file = StateFile::new(&directory);
        for saved in [vec![io.clone()], vec![io, seen.clone()], vec![other.clone(), seen], vec![], vec![other]] {
            file.save(Instant::now(), false, || saved.clone());
            assert_eq!(StateFile::new(&directory).load(), saved);
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn changes_of_many_connections_share_a_write() {
        let directory = directory("many");
        let all: Vec<Legacy> = (0..FEW + 100)
            .map(|number| {
                let mut legacy = legacy().swap_remove(0);
                let subsysnqn = &*format!("nqn.{number:04}");
                let spelling = Spelling { traddr: "192.0.2.1", trsvcid: "4420", subsysnqn, ..Spelling::default() };
                legacy.id.tid = Rc::new(TransportId::new(Transport::Tcp, spelling));
                legacy
            })
            .collect();
        let (start, mut file) = (Instant::now(), StateFile::new(&directory));
        file.save(start, false, || all.clone());
        let fewer = || all[..FEW + 98].to_vec();
        file.save(start, false, || all[..FEW + 99].to_vec());
        file.save(start, false, fewer);
        assert_eq!(StateFile::new(&directory).load(), all);
        assert_eq!(file.deadline(), Some(start + REST_EACH * 100));
        file.save(start + REST_EACH * 100, false, fewer);
        assert_eq!((StateFile::new(&directory).load(), file.deadline()), (fewer(), None));
        file.save(start + REST_EACH * 100, false, || all.clone());
        file.finish(start + REST_EACH * 100, || all.clone());
        assert_eq!(StateFile::new(&directory).load(), all);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn connects_come_first_but_not_for_ever() {
        let directory = directory("connecting");
        let (start, mut file) = (Instant::now(), StateFile::new(&directory));
        file.save(start, true, legacy);
        file.save(start + PATIENCE / 2, true, legacy);
        assert_eq!((file.load(), file.deadline()), (vec![], Some(start + PATIENCE)));
        file.save(start + PATIENCE, true, legacy);
        assert_eq!((file.load(), file.deadline()), (legacy(), None));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_damaged_file_is_ignored() {
        let directory = directory("damaged");
        for damage in
            ["", "{", "[]", r#"{"version":2,"connections":[]}"#, "\u{0}", r#"{"version":1,"connections":[{}]}"#]
        {
            fs::write(directory.join(NAME), damage).unwrap();
            assert_eq!(StateFile::new(&directory).load(), [], "{damage}");
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
