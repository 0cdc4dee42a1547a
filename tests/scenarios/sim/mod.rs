//! A discovery controller for the Linux NVMe/TCP host driver to talk to, in threads of the scenario's own process.
//!
//! It plays the parts the kernel's own target cannot: a central discovery controller, and one that is slow, confused or
//! hostile. A scenario starts it, gives it entries, turns its knobs while hosts are connected, and afterwards looks at
//! every command it got. It has no I/O queues, no digests, no TLS and no authentication.
//!
//! ```ignore
//! let cdc = Simulator::start("127.0.0.1:8009")?;
//! cdc.behave(|b| {
//!     b.identity.dctype = DcType::Cdc;
//!     b.identity.unique_nqn = Some("nqn.2024-01.example:cdc".into());
//! });
//! cdc.set_entries([Entry::io("nqn.2024-01.example:a", "192.0.2.1", "4420")]);
//! // … something connects to it …
//! let waits = |seen: &Recording| seen.count(Kind::AsynchronousEventRequest) > 0;
//! assert!(cdc.wait(Duration::from_secs(30), waits));
//!
//! cdc.behave(|b| b.fail(Kind::DiscoveryLogPage, Times::ONCE, Status::INTERNAL_ERROR));
//! cdc.change_entries(|entries| entries.clear()); // GENCTR grows, the event goes out
//! let dim = cdc.recording().of(Kind::DiscoveryInformationManagement).next();
//! ```
//!
//! Where things are: [`pdu`] framing, [`commands`] what hosts ask for, [`controller`] what they get, [`events`]
//! asynchronous events, [`identity`] who the controller is, [`log`] the log pages, [`behaviour`] the knobs, [`record`] what
//! came in, [`connection`] and [`state`] the threads and what they share.

#![allow(dead_code)] // a box of tools: no one test program uses all of them

pub mod behaviour;
pub mod commands;
mod connection;
mod controller;
mod events;
pub mod identity;
pub mod log;
mod pdu;
pub mod record;
mod state;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

#[allow(unused_imports)]
pub use self::{
    behaviour::{Accept, Behaviour, Beyond, EXTDLPES, PLEOS, Times},
    commands::{ConnectData, Kind, LogRead, Sqe, Status},
    events::DISCOVERY_LOG_CHANGED,
    identity::DcType,
    log::{DISCOVERY_NQN, Entry},
    record::{Command, Recording},
};
use self::{
    controller::Completion,
    state::{Shared, State},
};

/// A discovery controller listening on one address. Dropping it disconnects its hosts, closes its port and ends its
/// threads. What can be done to it is in [`Handle`].
pub struct Simulator {
    handle: Handle,
    listening: Option<Listening>,
}

struct Listening {
    /// A second descriptor of the listening socket, to shut it down by.
    socket: TcpStream,
    thread: JoinHandle<()>,
}

impl Simulator {
    /// Starts one on `address`, IPv4 or IPv6; port 0 picks a free port.
    ///
    /// # Errors
    /// Whatever keeps the address from being listened on.
    pub fn start(address: impl ToSocketAddrs) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let mut simulator =
            Self { handle: Handle { address: listener.local_addr()?, shared: Arc::default() }, listening: None };
        simulator.listen_on(listener)?;
        Ok(simulator)
    }

    /// A handle that can be given to other threads and outlives the simulator.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Closes the port and disconnects all hosts; further connects are refused. Nothing else is forgotten.
    pub fn stop_listening(&mut self) {
        if let Some(Listening { socket, thread }) = self.listening.take() {
            // Ends a blocked accept(2), on Linux. Fails when the listener has failed by itself.
            let _ = socket.shutdown(Shutdown::Both);
            // A panic there has been reported on standard error.
            let _ = thread.join();
        }
    }

    /// Opens the port again after [`stop_listening`](Self::stop_listening).
    ///
    /// # Errors
    /// Whatever keeps the address from being listened on.
    pub fn listen(&mut self) -> io::Result<()> {
        self.stop_listening();
        self.listen_on(TcpListener::bind(self.address)?)
    }

    fn listen_on(&mut self, listener: TcpListener) -> io::Result<()> {
        let socket = TcpStream::from(OwnedFd::from(listener.try_clone()?));
        let shared = Arc::clone(&self.handle.shared);
        let thread = thread::spawn(move || accept_connections(&shared, &listener));
        self.listening = Some(Listening { socket, thread });
        Ok(())
    }
}

impl Deref for Simulator {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop_listening();
    }
}

/// Accepts until the listening socket is shut down, then sees all connections to their end.
fn accept_connections(shared: &Shared, listener: &TcpListener) {
    thread::scope(|scope| {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => break, // shut down
                Err(error) => {
                    eprintln!("simulator: no longer accepting connections: {error}");
                    break;
                }
            };
            if let Some((id, outgoing, accept)) = shared.admit(&stream) {
                scope.spawn(move || connection::serve(shared, id, &stream, outgoing, accept));
            }
        }
        for connection in shared.state().connections.values() {
            connection.disconnect();
        }
    });
}

/// What a scenario holds on to. Clones are the same simulator.
#[derive(Clone)]
pub struct Handle {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Handle {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For a connect string.
    pub fn traddr(&self) -> String {
        self.address.ip().to_string()
    }

    /// For a connect string.
    pub fn trsvcid(&self) -> String {
        self.address.port().to_string()
    }

    /// Turns knobs. Tells no host.
    pub fn behave(&self, turn: impl FnOnce(&mut Behaviour)) {
        turn(&mut self.shared.state().behaviour);
    }

    /// Changes the discovery log: the generation counter grows and hosts are notified.
    pub fn change_entries(&self, change: impl FnOnce(&mut Vec<Entry>)) {
        let mut state = self.shared.state();
        change(&mut state.log.entries);
        state.log.generation += 1;
        state.notify();
    }

    /// Replaces the entries of the discovery log, as [`change_entries`](Self::change_entries).
    pub fn set_entries(&self, entries: impl IntoIterator<Item = Entry>) {
        self.change_entries(|log| *log = entries.into_iter().collect());
    }

    /// Sets the generation counter. Tells no host.
    pub fn set_generation(&self, generation: u64) {
        self.shared.state().log.generation = generation;
    }

    /// Tells hosts that the discovery log has changed, whether it has or not. Those that have not enabled the event, or
    /// not read the log page since the last one, get none.
    pub fn notify(&self) {
        self.shared.state().notify();
    }

    /// Sends any asynchronous event to every host that waits for one, enabled and unmasked or not. Returns how many.
    pub fn send_event(&self, result: u32) -> usize {
        let mut state = self.shared.state();
        let connections = state.connections.values_mut();
        let send = |connection: &mut connection::Connection| {
            let cid = connection.controller.events.take_waiting()?;
            connection.complete(&Completion::event(cid, result), false);
            Some(())
        };
        connections.filter_map(send).count()
    }

    /// Ends all connections. Hosts may come back at once.
    pub fn drop_connections(&self) {
        for connection in self.shared.state().connections.values() {
            connection.disconnect();
        }
    }

    /// Everything that came in so far.
    pub fn recording(&self) -> Recording {
        self.shared.state().recording.clone()
    }

    /// Forgets the commands and the count of connections accepted so far.
    pub fn clear_recording(&self) {
        let recording = &mut self.shared.state().recording;
        recording.accepted = 0;
        recording.commands.clear();
    }

    /// Waits until what came in is as wanted. Returns whether that was so before `timeout`.
    #[must_use]
    pub fn wait(&self, timeout: Duration, mut wanted: impl FnMut(&Recording) -> bool) -> bool {
        let unwanted = |state: &mut State| !wanted(&state.recording);
        let (_state, timed_out) = self.shared.wait_while(timeout, unwanted);
        !timed_out
    }
}
