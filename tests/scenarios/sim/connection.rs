//! One TCP connection: a thread that reads, one that writes, and one for each command being delayed. None of them polls;
//! each ends when the socket is shut down and the connection taken out of the simulator's state.

use std::collections::HashMap;
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender};
use std::thread::{self, Scope};
use std::time::Duration;

use super::behaviour::{Accept, Instead};
use super::commands::{Sqe, Status};
use super::controller::{Completion, Controller};
use super::log::write;
use super::pdu::{self, Pdu};
use super::state::{Shared, State};

/// The longest data a host may send with one command, in bytes.
const MAX_HOST_DATA: usize = 1 << 20;

/// A connection as the rest of the simulator sees it.
pub struct Connection {
    pub socket: TcpStream,
    /// PDUs for the writing thread, which ends when this is dropped.
    pub outgoing: Sender<Vec<u8>>,
    pub controller: Controller,
}

impl Connection {
    /// Hands PDUs to the writing thread. Never blocks.
    pub fn send(&self, pdus: Vec<u8>) {
        // Fails only once the peer is gone, and then nobody misses it.
        let _ = self.outgoing.send(pdus);
    }

    /// Sends a completion and its data; `success_flag` allows to leave the response capsule out.
    pub fn complete(&self, completion: &Completion, success_flag: bool) {
        let Completion { cid, result, .. } = *completion;
        let success = success_flag && !completion.data.is_empty() && completion.status.is_none() && result == 0;
        let mut pdus = pdu::data_to_host(cid, &completion.data, success);
        if !success {
            let status = completion.status.unwrap_or(Status::SUCCESS);
            pdus.extend(pdu::response(cid, status, result));
        }
        self.send(pdus);
    }

    /// Ends the connection; its threads notice.
    pub fn disconnect(&self) {
        // Fails when the peer was faster.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Serves a connection until either side ends it.
pub fn serve(shared: &Shared, id: u64, stream: &TcpStream, outgoing: Receiver<Vec<u8>>, accept: Accept) {
    thread::scope(|scope| {
        scope.spawn(|| write_pdus(stream, outgoing));
        let receiver = Receiving { shared, id, accept, transfers: HashMap::new() };
        // However it ended, a host that has gone or sent nonsense: for us the connection is over.
        let _ = receiver.run(scope, stream);
        shared.forget(id);
        let _ = stream.shutdown(Shutdown::Both);
    });
}

fn write_pdus(mut stream: &TcpStream, outgoing: Receiver<Vec<u8>>) {
    for pdus in outgoing {
        if stream.write_all(&pdus).is_err() {
            return; // the reading thread notices too
        }
    }
}

/// A command whose data was asked for by R2T.
struct Transfer {
    sqe: Sqe,
    data: Vec<u8>,
    missing: usize,
}

struct Receiving<'scope> {
    shared: &'scope Shared,
    id: u64,
    accept: Accept,
    transfers: HashMap<u16, Transfer>,
}

impl<'scope> Receiving<'scope> {
    fn run(mut self, scope: &'scope Scope<'scope, '_>, stream: &TcpStream) -> io::Result<()> {
        if let Accept::Garbage(bytes) = &self.accept {
            self.send(bytes.clone());
        }
        let mut stream = BufReader::new(stream);
        loop {
            match pdu::read(&mut stream)? {
                Pdu::InitializeConnection if self.accept == Accept::Normally => {
                    self.send(pdu::initialize_connection_response());
                }
                Pdu::InitializeConnection => {}
                Pdu::Command { sqe, .. } if sqe.wants_r2t() => self.ask_for_data(sqe)?,
                Pdu::Command { sqe, data } => self.arrived(scope, sqe, data),
                Pdu::HostData { ttag, offset, data } => {
                    if let Some(transfer) = self.data_came(ttag, offset, &data)? {
                        self.arrived(scope, transfer.sqe, transfer.data);
                    }
                }
                Pdu::Terminate => return Ok(()),
            }
        }
    }

    fn send(&self, pdus: Vec<u8>) {
        if let Some(connection) = self.shared.state().connections.get(&self.id) {
            connection.send(pdus);
        }
    }

    fn ask_for_data(&mut self, sqe: Sqe) -> io::Result<()> {
        let missing = sqe.data_length();
        let ttag = (0..u16::MAX).find(|ttag| !self.transfers.contains_key(ttag));
        let Some(ttag) = ttag.filter(|_| missing <= MAX_HOST_DATA) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let data = vec![0; missing];
        self.transfers.insert(ttag, Transfer { sqe, data, missing });
        self.send(pdu::ready_to_transfer(sqe.cid(), ttag, missing as u32));
        Ok(())
    }

    /// Puts data where it belongs; the transfer, when that was the last of it.
    fn data_came(&mut self, ttag: u16, at: usize, data: &[u8]) -> io::Result<Option<Transfer>> {
        let Some(transfer) = self.transfers.get_mut(&ttag) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        write(&mut transfer.data, at, data);
        transfer.missing = transfer.missing.saturating_sub(data.len());
        if transfer.missing > 0 {
            return Ok(None);
        }
        Ok(self.transfers.remove(&ttag))
    }

    /// A command is here with all its data: writes it down, then performs it, now or later.
    fn arrived(&self, scope: &'scope Scope<'scope, '_>, sqe: Sqe, data: Vec<u8>) {
        let (shared, id) = (self.shared, self.id);
        let (delay, instead) = shared.record(id, sqe, &data);
        match delay {
            None => perform(&mut shared.state(), id, &sqe, &data, instead),
            Some(delay) => {
                scope.spawn(move || perform_later(shared, id, &sqe, &data, instead, delay));
            }
        }
    }
}

fn perform_later(shared: &Shared, id: u64, sqe: &Sqe, data: &[u8], instead: Option<Instead>, delay: Duration) {
    let is_open = |state: &mut State| state.connections.contains_key(&id);
    let (mut state, _) = shared.wait_while(delay, is_open);
    perform(&mut state, id, sqe, data, instead);
}

/// Executes a command, or does something else in its stead. Nothing when the connection is gone.
fn perform(state: &mut State, id: u64, sqe: &Sqe, data: &[u8], instead: Option<Instead>) {
    let Some(connection) = state.connections.get_mut(&id) else {
        return;
    };
    let completion = match instead {
        None => connection.controller.execute(&mut state.behaviour, &mut state.log, sqe, data),
        Some(Instead::Fail(status)) => Some(Completion::failure(sqe.cid(), status)),
        Some(Instead::Ignore) => None,
        Some(Instead::Disconnect) => return connection.disconnect(),
    };
    if let Some(completion) = completion {
        connection.complete(&completion, state.behaviour.success_flag);
    }
}
