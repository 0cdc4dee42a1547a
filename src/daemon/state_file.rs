//! What outlives the process: which connections are ours, and which discovery controllers listed them.
//!
//! Kept as JSON in the runtime directory, which a reboot empties just as it ends the connections. Replaced atomically;
//! a file that makes no sense is reported and ignored. It holds no secrets and nothing that could be executed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::bus::ControllerId;
use crate::core::Legacy;
use crate::core::device::ControllerKind;
use crate::core::links::LinkId;

const NAME: &str = "last-known.json";
const VERSION: u32 = 1;
/// A megabyte describes some two thousand connections; more is not ours.
const SIZE_MAX: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
struct Contents {
    version: u32,
    connections: Vec<Connection>,
}

#[derive(Serialize, Deserialize)]
struct Connection {
    discovery: bool,
    controller: ControllerId,
    /// The discovery controllers that list it.
    #[serde(default)]
    sources: Vec<ControllerId>,
}

#[derive(Debug)]
pub struct StateFile {
    directory: PathBuf,
    /// What the file holds, so that it is not written again for nothing.
    written: Vec<u8>,
    failed: bool,
}

impl StateFile {
    pub fn new(directory: &Path) -> StateFile {
        StateFile { directory: directory.to_owned(), written: Vec::new(), failed: false }
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

    /// Replaces the file, if there is something new.
    pub fn save(&mut self, legacy: &[Legacy]) {
        let connections = legacy.iter().map(Connection::from).collect();
        let Ok(bytes) = serde_json::to_vec(&Contents { version: VERSION, connections }) else {
            return;
        };
        if bytes == self.written && !self.failed {
            return;
        }
        match replace(&self.directory, &bytes) {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                let path = self.directory.join(NAME);
                log::warn!(
                    "{}: cannot be written: {error}; a restart will not know its own connections",
                    path.display()
                );
                self.failed = true;
            }
            Err(_) => {}
        }
        self.written = bytes;
    }
}

fn read(path: &Path) -> io::Result<Vec<Legacy>> {
    if fs::metadata(path)?.len() > SIZE_MAX {
        return Err(invalid("too large"));
    }
    let contents: Contents = serde_json::from_slice(&fs::read(path)?)?;
    if contents.version != VERSION {
        return Err(invalid("written by another version"));
    }
    let legacy: Option<Vec<Legacy>> = contents.connections.iter().map(Connection::to_legacy).collect();
    legacy.ok_or_else(|| invalid("unknown transport"))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn replace(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{NAME}.new"));
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, directory.join(NAME))
}

impl From<&Legacy> for Connection {
    fn from(legacy: &Legacy) -> Connection {
        Connection {
            discovery: legacy.id.kind == ControllerKind::Discovery,
            controller: ControllerId::from(&*legacy.id.tid),
            sources: legacy.sources.iter().map(|source| ControllerId::from(&**source)).collect(),
        }
    }
}

impl Connection {
    fn to_legacy(&self) -> Option<Legacy> {
        let tid = |id: &ControllerId| id.transport_id().map(Rc::new);
        let kind = if self.discovery { ControllerKind::Discovery } else { ControllerKind::Io };
        Some(Legacy {
            id: LinkId { kind, tid: tid(&self.controller)? },
            sources: self.sources.iter().map(tid).collect::<Option<_>>()?,
        })
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
        vec![Legacy { id: LinkId { kind: ControllerKind::Io, tid: tid("nqn.a") }, sources: vec![tid("nqn.dc")] }]
    }

    #[test]
    fn the_next_run_knows_what_this_one_saved() {
        let directory = directory("round-trip");
        StateFile::new(&directory).save(&legacy());
        assert_eq!(StateFile::new(&directory).load(), legacy());
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
