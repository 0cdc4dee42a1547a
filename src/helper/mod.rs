//! The process that makes the blocking kernel calls.
//!
//! Connecting, reading a log page and disconnecting block for seconds or minutes, sometimes uninterruptibly. The daemon's
//! loop must not, so it keeps a helper process, which forks a child for each call:
//!
//! ```text
//! daemon ──Request──▶ helper ──fork──▶ child: one kernel call
//!   ▲                    │ reaps          │
//!   └────── Reply ───────┴────────────────┘      all over one SOCK_SEQPACKET pair
//! ```
//!
//! A child answers by itself; for one that died without, the helper answers. So each request gets exactly one reply, in any
//! order, unless the helper itself dies: then [`Helper::has_died`], and the daemon starts another one and re-reads sysfs.
//! The helper outlives the signals that end the daemon and exits when the daemon's end of the pair closes. It parses nothing
//! that comes from the network beyond the header of a log page and the answers of name servers.
//!
//! `message` is what is said, `packet` how, `process` the helper, `call` what its children do (`registration`: what they say of
//! this host; `resolve`: how host names become addresses), `page` how a log page is handed over. `memory` keeps no keys.

mod call;
mod memory;
pub mod message;
pub mod packet;
mod page;
mod process;
mod registration;
pub mod resolve;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use message::{Failure, Reply, Request, RequestId};

/// What a child does with its request. The descriptor goes with the reply.
pub type Call = fn(Request) -> (Reply, Option<OwnedFd>);

/// A reply; with [`Reply::LogPage`] comes the page, as long as the reply says.
pub type Answer = (RequestId, Reply, Option<Box<[u8]>>);

/// The daemon's side. Nothing here blocks.
#[derive(Debug)]
pub struct Helper {
    socket: OwnedFd,
    pid: Pid,
    last_id: RequestId,
    /// Packets that the socket had no room for.
    unsent: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Helper {
    /// Forks the helper. The calling process must have a single thread; it is best done before anything is opened, although
    /// the helper closes whatever it inherits.
    pub fn start() -> io::Result<Helper> {
        Helper::start_with(call::perform)
    }

    /// The same with other deeds, for tests.
    pub fn start_with(call: Call) -> io::Result<Helper> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // SAFETY: with a single thread there is no lock that another thread could have left held for the child.
        #[allow(unsafe_code)]
        let fork = unsafe { fork() }?;
        match fork {
            ForkResult::Parent { child } => {
                let buffer = vec![0; packet::PACKET_MAX];
                Ok(Helper { socket: ours, pid: child, last_id: 0, unsent: VecDeque::new(), buffer })
            }
            ForkResult::Child => process::main(theirs, call),
        }
    }

    /// Hands a request over, or keeps it until there is room. Fails when the helper is gone or the request is absurdly long.
    pub fn send(&mut self, request: &Request) -> io::Result<RequestId> {
        let id = self.last_id.wrapping_add(1);
        self.unsent.push_back(packet::encode(id, request)?);
        self.last_id = id;
        self.flush()?;
        Ok(id)
    }

    /// Sends what is kept, as far as there is room: to be called when the socket becomes writable.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(packet) = self.unsent.front() {
            match packet::send(self.socket.as_fd(), packet, None) {
                Ok(()) => drop(self.unsent.pop_front()),
                Err(Errno::EAGAIN) => break,
                Err(errno) => {
                    // Whoever asked is told that it failed: it must not be carried out later.
                    self.unsent.clear();
                    return Err(errno.into());
                }
            }
        }
        Ok(())
    }

    /// How many requests wait for room.
    pub fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// The next reply, `None` when there is none at the moment. What a log page says is still the controller's
    /// claim. Fails when the helper is gone.
    pub fn recv(&mut self) -> io::Result<Option<Answer>> {
        let (length, file) = match packet::recv(self.socket.as_fd(), &mut self.buffer) {
            Ok(Some(received)) => received,
            Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let (id, reply) = packet::decode(self.buffer.get(..length).unwrap_or_default())?;
        let Reply::LogPage { bytes } = reply else {
            return Ok(Some((id, reply, None)));
        };
        match page::read(file, bytes) {
            Ok(page) => Ok(Some((id, reply, Some(page)))),
            Err(error) => Ok(Some((id, Reply::Failed(Failure::BadPage(error.to_string())), None))),
        }
    }

    /// The helper's process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether the helper process has ended: to be asked on SIGCHLD. The socket need not tell, because children stuck in the
    /// kernel keep it open.
    pub fn has_died(&self) -> bool {
        !matches!(waitpid(self.pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
    }
}

impl AsRawFd for Helper {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
