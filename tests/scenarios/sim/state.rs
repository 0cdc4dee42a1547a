//! What the threads of one simulator share: one mutex, and one condition variable that tells of anything new in it.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::behaviour::{Accept, Behaviour, Instead};
use super::commands::{ConnectData, Kind, Sqe};
use super::connection::Connection;
use super::controller::{Completion, Controller};
use super::events::DISCOVERY_LOG_CHANGED;
use super::log::DiscoveryLog;
use super::record::{Command, Recording};

#[derive(Default)]
pub struct State {
    pub behaviour: Behaviour,
    pub log: DiscoveryLog,
    pub recording: Recording,
    /// The open connections, in the order they were accepted.
    pub connections: BTreeMap<u64, Connection>,
    /// Connections ever accepted; the next one's number is one more.
    last_id: u64,
}

impl State {
    /// Completes an Asynchronous Event Request of every host that has the event coming.
    pub fn notify(&mut self) {
        for connection in self.connections.values_mut() {
            if let Some(cid) = connection.controller.events.log_changed() {
                connection.complete(&Completion::event(cid, DISCOVERY_LOG_CHANGED), false);
            }
        }
    }
}

#[derive(Default)]
pub struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    /// The state, locked. A scenario that panicked while it looked at it does no harm to it.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `condition` to become false, for at most `timeout`. Returns the state and whether time ran out.
    pub fn wait_while(
        &self,
        timeout: Duration,
        condition: impl FnMut(&mut State) -> bool,
    ) -> (MutexGuard<'_, State>, bool) {
        let (state, waited) =
            self.changed.wait_timeout_while(self.state(), timeout, condition).unwrap_or_else(PoisonError::into_inner);
        (state, waited.timed_out())
    }

    /// Takes a TCP connection in: its number, what it has to send, how to treat it. `None` when it is to be closed.
    pub fn admit(&self, stream: &TcpStream) -> Option<(u64, Receiver<Vec<u8>>, Accept)> {
        let mut state = self.state();
        state.recording.accepted += 1;
        state.last_id += 1;
        self.changed.notify_all();
        let accept = state.behaviour.accept.clone();
        if accept == Accept::Close {
            return None;
        }
        let socket = stream.try_clone().ok()?;
        // Without it a response waits for the acknowledgement of the data before it. Fails when the peer has gone already.
        let _ = socket.set_nodelay(true);
        let id = state.last_id;
        let (outgoing, receiver) = channel();
        // 16 bits of it, of which FFF0h and above are reserved.
        let controller = Controller::new((id % 0xfff0) as u16);
        let connection = Connection { socket, outgoing, controller };
        state.connections.insert(id, connection);
        state.recording.open = state.connections.len();
        Some((id, receiver, accept))
    }

    /// Lets go of a connection that has ended.
    pub fn forget(&self, id: u64) {
        let mut state = self.state();
        state.connections.remove(&id);
        state.recording.open = state.connections.len();
        self.changed.notify_all();
    }

    /// Writes a command down. Returns its delay and what it gets instead of its execution.
    pub fn record(&self, id: u64, sqe: Sqe, data: &[u8]) -> (Option<Duration>, Option<Instead>) {
        let kind = sqe.kind();
        let mut state = self.state();
        let host = match state.connections.get(&id) {
            _ if kind == Kind::Connect => ConnectData::parse(data),
            connection => connection.and_then(|connection| connection.controller.host.clone()),
        };
        state.recording.commands.push(Command {
            at: Instant::now(),
            connection: id,
            kind,
            sqe,
            host,
            data: data.to_vec(),
        });
        self.changed.notify_all();
        state.behaviour.meet(kind)
    }
}
