//! What came in: everything hosts did to a simulator, kept for a scenario to assert on.

use std::time::Instant;

use super::commands::{ConnectData, Kind, LogRead, Sqe};

/// A command a host sent, written down when it had arrived with all its data, before it was executed.
#[derive(Clone, Debug)]
pub struct Command {
    pub at: Instant,
    /// Which connection it came over: 1 is the first one this simulator accepted.
    pub connection: u64,
    pub kind: Kind,
    pub sqe: Sqe,
    /// Who the host said it is, in the Connect on this connection; `None` before that.
    pub host: Option<ConnectData>,
    /// The data the host sent with it, for example the DIM payload.
    pub data: Vec<u8>,
}

impl Command {
    pub fn opcode(&self) -> u8 {
        self.sqe.opcode()
    }

    /// The Fabrics command type, for Fabrics commands.
    pub fn fctype(&self) -> Option<u8> {
        self.sqe.fctype()
    }

    /// The fields of a Get Log Page.
    pub fn log_read(&self) -> Option<LogRead> {
        self.sqe.log_read()
    }

    /// The task of a DIM command: 0 register, 1 deregister, 2 update.
    pub fn dim_task(&self) -> Option<u8> {
        (self.kind == Kind::DiscoveryInformationManagement).then(|| self.sqe.dim_task())
    }
}

/// All that happened to a simulator since it started, or since it was last forgotten.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// TCP connections accepted, those closed without a word included.
    pub accepted: usize,
    /// TCP connections open now.
    pub open: usize,
    /// In the order they came.
    pub commands: Vec<Command>,
}

impl Recording {
    /// The commands of one kind, in the order they came.
    pub fn of(&self, kind: Kind) -> impl DoubleEndedIterator<Item = &Command> {
        self.commands.iter().filter(move |command| command.kind == kind)
    }

    pub fn count(&self, kind: Kind) -> usize {
        self.of(kind).count()
    }

    /// The reads of the discovery log page, in the order they came.
    pub fn log_reads(&self) -> impl DoubleEndedIterator<Item = LogRead> {
        self.of(Kind::DiscoveryLogPage).filter_map(Command::log_read)
    }
}
