//! The process that makes the blocking kernel calls.
//!
//! Connecting, reading a log page and disconnecting block for seconds or minutes, sometimes uninterruptibly. The daemon's
//! loop must not, so it keeps a helper process, which has children for them, as many as there are calls under way:
//!
//! ```text
//! daemon ──Request──▶ helper ────────▶ child: one kernel call
//!   ▲                    │ reaps          │
//!   └────── Reply ───────┴────────────────┘      all over one SOCK_SEQPACKET pair
//! ```
//!
//! A child answers by itself, and a few stay for the next request; for one that died without, the helper answers. So each request gets exactly one reply, in any
//! order, unless the helper itself dies: then [`Helper::has_died`], and the daemon re-reads sysfs. The daemon cannot start
//! another helper, for it has given up its privileges by then (see [`crate::confine`]). So there are two from the start: one
//! in reserve takes the place of the one that died, and makes the next one.
//!
//! The helper outlives the signals that end the daemon and exits when the daemon's end of the pair closes. It keeps the
//! privileges of root, so it trusts no request: what it is asked for has a type, and each field is checked again here. It parses
//! nothing that comes from the network beyond the header of a log page and the answers of name servers.
//!
//! `message` is what is said, `packet` how, `process` the helper, `call` what its children do (`registration`: what they say of
//! this host; `resolve`: how host names become addresses; `udev_rule`: what stands in for nvme-cli's), `page` how what is too
//! long for a packet is handed over. `memory` keeps no keys.

mod call;
mod memory;
pub mod message;
pub mod packet;
mod page;
mod process;
mod registration;
pub mod resolve;
pub mod udev_rule;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::config::Paths;
use message::{Failure, Reply, Request, RequestId};

/// What a child does with its request. The descriptor goes with the reply.
pub type Call = Rc<dyn Fn(Request) -> (Reply, Option<OwnedFd>)>;

/// A reply; with [`Reply::LogPage`] and [`Reply::Long`] comes what is announced, as long as the reply says.
pub type Answer = (RequestId, Reply, Option<Box<[u8]>>);

/// The daemon's side. Nothing here blocks.
#[derive(Debug)]
pub struct Helper {
    active: Peer,
    /// Waits to take its place.
    reserve: Option<Peer>,
    /// Former ones that were on their way out when they were replaced.
    former: Vec<Pid>,
    last_id: RequestId,
}

/// One helper process.
#[derive(Debug)]
struct Peer {
    socket: OwnedFd,
    /// A child of ours.
    pid: Pid,
    /// Packets that the socket had no room for.
    unsent: VecDeque<Vec<u8>>,
}

/// What helpers know from their start, so that no request can say otherwise.
#[derive(Debug, Clone, Default)]
pub struct Mandate {
    /// Where the daemon's configuration is.
    pub paths: Paths,
    /// The network may be changed: `stas boot --network`.
    pub network: bool,
}

impl Helper {
    /// Forks the helper and its reserve. The calling process must have a single thread, and all privileges that requests
    /// take; it is best done before anything is opened, although the helpers close whatever they inherit.
    pub fn start(mandate: Mandate) -> io::Result<Helper> {
        Helper::start_with(move |request| call::perform(request, &mandate))
    }

    /// The same with other deeds, for tests.
    pub fn start_with(call: impl Fn(Request) -> (Reply, Option<OwnedFd>) + 'static) -> io::Result<Helper> {
        let call: Call = Rc::new(call);
        let (active, reserve) = (Peer::start(&call)?, Peer::start(&call)?);
        Ok(Helper { active, reserve: Some(reserve), former: vec![], last_id: 0 })
    }

    /// Hands a request over, or keeps it until there is room. Fails when the helper is gone or the request is absurdly long.
    pub fn send(&mut self, request: &Request) -> io::Result<RequestId> {
        let id = self.last_id.wrapping_add(1);
        self.active.unsent.push_back(packet::encode(id, request)?);
        self.last_id = id;
        self.flush()?;
        Ok(id)
    }

    /// Sends what is kept, as far as there is room: to be called when the socket becomes writable.
    pub fn flush(&mut self) -> io::Result<()> {
        self.active.flush()
    }

    /// How many requests wait for room.
    pub fn unsent(&self) -> usize {
        self.active.unsent.len()
    }

    /// The next reply, `None` when there is none at the moment. What a log page says is still the controller's
    /// claim. Fails when the helper is gone.
    pub fn recv(&mut self) -> io::Result<Option<Answer>> {
        let (packet, file) = match packet::recv(self.active.socket.as_fd()) {
            Ok(Some(received)) => received,
            Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let (id, reply) = packet::decode(&packet)?;
        match (&reply, file) {
            (Reply::LogPage { bytes } | Reply::Long { bytes }, file) => match page::read(file, *bytes) {
                Ok(page) => Ok(Some((id, reply, Some(page)))),
                Err(error) => Ok(Some((id, Reply::Failed(Failure::BadPage(error.to_string())), None))),
            },
            (Reply::Another { pid }, Some(socket)) => {
                let unsent = VecDeque::new();
                self.reserve = Some(Peer { socket, pid: Pid::from_raw(*pid), unsent });
                Ok(Some((id, reply, None)))
            }
            // A descriptor that was not to be had; the new process ends with it.
            (Reply::Another { .. }, None) => {
                Ok(Some((id, Reply::Failed(Failure::NoChild(Errno::EMFILE as i32)), None)))
            }
            _ => Ok(Some((id, reply, None))),
        }
    }

    /// The helper's process id.
    pub fn pid(&self) -> Pid {
        self.active.pid
    }

    /// Whether the helper process has ended: to be asked on SIGCHLD. The socket need not tell, because children stuck in the
    /// kernel keep it open.
    pub fn has_died(&self) -> bool {
        self.active.has_died()
    }

    /// Whether there is no process in reserve (any more): likewise. [`Request::Another`] makes one.
    pub fn lacks_reserve(&mut self) -> bool {
        self.former.retain(|former| !has_died(*former));
        self.reserve.take_if(|reserve| reserve.has_died());
        self.reserve.is_none()
    }

    /// The one in reserve takes the place of the helper, whose requests are lost. Fails when there is none.
    pub fn take_over(&mut self) -> io::Result<()> {
        if self.lacks_reserve() {
            return Err(Errno::ECHILD.into());
        }
        if let Some(reserve) = self.reserve.take() {
            self.former.push(std::mem::replace(&mut self.active, reserve).pid);
        }
        Ok(())
    }
}

impl Peer {
    fn start(call: &Call) -> io::Result<Peer> {
        let (ours, theirs) = pair()?;
        // SAFETY: with a single thread there is no lock that another thread could have left held for the child.
        #[allow(unsafe_code)]
        let fork = unsafe { fork() }?;
        match fork {
            ForkResult::Parent { child } => Ok(Peer { socket: ours, pid: child, unsent: VecDeque::new() }),
            ForkResult::Child => process::main(theirs, call.clone()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
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

    fn has_died(&self) -> bool {
        has_died(self.pid)
    }
}

/// Collects the status of a child that has ended.
fn has_died(child: Pid) -> bool {
    !matches!(waitpid(child, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
}

impl AsFd for Helper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.active.socket.as_fd()
    }
}

impl AsRawFd for Helper {
    fn as_raw_fd(&self) -> RawFd {
        self.active.socket.as_raw_fd()
    }
}

/// The daemon's end, which does not block, and the helper's.
fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((ours, theirs))
}
