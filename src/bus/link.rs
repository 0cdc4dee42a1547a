//! One non-blocking stream socket that carries D-Bus, with bounds on what is kept for either direction.
//!
//! A link knows bytes, lines (of the authentication) and frames; it does not know what they mean. Readiness is edge
//! triggered (mio on Linux): a user of a link reads until [`Received::Nothing`] and flushes until the queue is empty, or
//! asks for a new edge with [`Link::rearm`].

use std::io::{self, ErrorKind, Read, Write};

use mio::event::Source;
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::message::{self, Message};

/// Bytes asked of the kernel at once.
const CHUNK: usize = 16 << 10;
/// Longest line of the authentication; ours and libdbus' are under 100 bytes.
const LINE_MAX: usize = 512;
/// An empty buffer with a capacity above this is given back.
const KEPT_CAPACITY: usize = 64 << 10;

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Bytes,
    /// Nothing more for now: the next readiness event tells.
    Nothing,
}

/// How much may be kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest message accepted, in bytes.
    pub message: usize,
    /// Most bytes waiting to be sent.
    pub queue: usize,
}

/// A connected stream and its buffers.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    limits: Limits,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    /// How much of `outbound` is written.
    written: usize,
    /// Bytes that the socket took, ever.
    sent: u64,
    serial: u32,
}

impl Link {
    pub fn new(stream: UnixStream, limits: Limits) -> Link {
        Link { stream, limits, inbound: Vec::new(), outbound: Vec::new(), written: 0, sent: 0, serial: 0 }
    }

    /// # Errors
    /// When epoll refuses.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.stream.register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Asks for a readiness event even if nothing changes, to go on later with what is there already.
    ///
    /// # Errors
    /// When epoll refuses.
    pub fn rearm(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.stream.reregister(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    pub fn deregister(&mut self, registry: &Registry) {
        // Closing the descriptor takes it out of epoll in any case.
        let _ = self.stream.deregister(registry);
    }

    /// Reads once.
    ///
    /// # Errors
    /// When the peer closed the connection or the socket failed, in words.
    pub fn read(&mut self) -> Result<Received, String> {
        let mut chunk = [0; CHUNK];
        loop {
            return match self.stream.read(&mut chunk) {
                Ok(0) => Err("closed by the other side".to_owned()),
                Ok(length) => {
                    self.inbound.extend_from_slice(chunk.get(..length).unwrap_or_default());
                    Ok(Received::Bytes)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Received::Nothing),
                Err(error) => Err(error.to_string()),
            };
        }
    }

    /// Takes one line, without its end, out of what was read.
    ///
    /// # Errors
    /// When the line is too long.
    pub fn take_line(&mut self) -> Result<Option<Vec<u8>>, String> {
        match self.inbound.windows(2).take(LINE_MAX).position(|pair| pair == b"\r\n") {
            Some(end) => {
                let mut line = self.take(end.saturating_add(2));
                line.truncate(end);
                Ok(Some(line))
            }
            None if self.inbound.len() > LINE_MAX => Err("an authentication line without end".to_owned()),
            None => Ok(None),
        }
    }

    /// Takes one message out of what was read. Messages of unknown types are skipped.
    ///
    /// # Errors
    /// When the bytes are no acceptable message.
    pub fn take_message(&mut self) -> Result<Option<Message>, String> {
        while let Some(length) = message::frame_length(&self.inbound, self.limits.message)? {
            if self.inbound.len() < length {
                return Ok(None);
            }
            let frame = self.take(length);
            if let Some(message) = message::parse(&frame)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let taken = self.inbound.drain(..length.min(self.inbound.len())).collect();
        if self.inbound.is_empty() && self.inbound.capacity() > KEPT_CAPACITY {
            self.inbound = Vec::new();
        }
        taken
    }

    /// Queues bytes and writes what the socket takes.
    ///
    /// # Errors
    /// When the peer does not read and too much would be kept for it, or the socket failed.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.queued().saturating_add(bytes.len()) > self.limits.queue {
            return Err(format!("the other side does not read: {} bytes wait for it", self.queued()));
        }
        self.outbound.extend_from_slice(bytes);
        self.flush()
    }

    /// Queues a message and writes what the socket takes. Returns its serial number.
    ///
    /// # Errors
    /// As [`Link::send_bytes`], and when the message cannot be written.
    pub fn send(&mut self, message: &Message) -> Result<u32, String> {
        let bytes = self.encode(message)?;
        self.send_bytes(&bytes)?;
        Ok(self.serial)
    }

    /// Queues a reply; where it is too long or not valid, an error reply to `call` goes out instead.
    ///
    /// # Errors
    /// As [`Link::send_bytes`].
    pub fn send_reply(&mut self, call: &Message, reply: &Message) -> Result<(), String> {
        let bytes = match self.encode(reply) {
            Ok(bytes) => bytes,
            Err(why) => self.encode(&super::dispatch::too_long(call, &why))?,
        };
        self.send_bytes(&bytes)
    }

    fn encode(&mut self, message: &Message) -> Result<Vec<u8>, String> {
        // Serial numbers wrap around and are never 0.
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        message::encode(message, self.serial)
    }

    /// Writes as much as the socket takes.
    ///
    /// # Errors
    /// When the socket failed, in words.
    pub fn flush(&mut self) -> Result<(), String> {
        while let Some(rest @ [_, ..]) = self.outbound.get(self.written..) {
            match self.stream.write(rest) {
                Ok(length) => {
                    self.written = self.written.saturating_add(length);
                    self.sent = self.sent.wrapping_add(length as u64);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
        self.written = 0;
        self.outbound.clear();
        if self.outbound.capacity() > KEPT_CAPACITY {
            self.outbound = Vec::new();
        }
        Ok(())
    }

    /// Bytes that wait for the other side to read.
    pub fn queued(&self) -> usize {
        self.outbound.len().saturating_sub(self.written)
    }

    /// Bytes that the socket took since the link was made: unchanged while the other side does not read.
    pub fn sent(&self) -> u64 {
        self.sent
    }
}
