//! The helper process: waits for requests, has a child carry out each, answers for children that died.
//!
//! It never makes a call that may block in the kernel itself. Only it can make another one of its kind, for the daemon may not.
//!
//! To fork costs more than most requests do. So a few children stay when they have answered, and wait for the next request; the
//! others, forked while all of these are busy or stuck, end with their answer.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::message::{Failure, Reply, Request, RequestId};
use super::packet;
use super::{Call, pair};
use crate::kernel::memory;

/// What a service manager or a terminal sends to the whole group when it means the daemon. The daemon's end of the socket is
/// what ends the helper, and a connect that the kernel is at must not be torn.
const IGNORED: [Signal; 5] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGPIPE];

/// So many children stay: the kernel works at one connect at a time, and one more is to be there when it is done.
const STAYING: usize = 2;

/// Exit status of a child that has answered.
const ANSWERED: i32 = 0;

/// Never returns: what the daemon had set up before the fork must not be taken down by the helper.
pub fn main(socket: OwnedFd, call: Call) -> ! {
    close_inherited(&socket);
    let status = match Process::new(socket, call).and_then(|mut process| process.run()) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    exit(status)
}

struct Process {
    socket: OwnedFd,
    call: Call,
    sigchld: SignalFd,
    /// Those that end with their answer.
    children: BTreeMap<Pid, RequestId>,
    /// Those that stay.
    workers: Vec<Worker>,
}

/// A child that stays.
struct Worker {
    pid: Pid,
    /// Requests go there; a packet comes back when one has been carried out, and is about to be answered.
    channel: OwnedFd,
    is_busy: bool,
    /// The requests that it has been given last: at its death the first may be answered or not, the daemon knows.
    last: [Option<RequestId>; 2],
}

impl Worker {
    fn is_idle(&mut self) -> bool {
        let mut done = [0; 1];
        if self.is_busy && recv(self.channel.as_raw_fd(), &mut done, MsgFlags::MSG_DONTWAIT) == Ok(done.len()) {
            self.is_busy = false;
        }
        !self.is_busy
    }

    /// Whether it has taken the request.
    fn take(&mut self, id: RequestId, packet: &[u8]) -> bool {
        self.is_busy = packet::send(self.channel.as_fd(), packet, None).is_ok();
        if self.is_busy {
            let [_, before] = self.last;
            self.last = [before, Some(id)];
        }
        self.is_busy
    }
}

impl Process {
    fn new(socket: OwnedFd, call: Call) -> nix::Result<Process> {
        for ignored in IGNORED {
            set_disposition(ignored, SigHandler::SigIgn)?;
        }
        // Were it ignored, as it may be by inheritance, children would leave no status.
        set_disposition(Signal::SIGCHLD, SigHandler::SigDfl)?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        let sigchld = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        // Keys pass through here: no core file, no debugger of the same user.
        nix::sys::prctl::set_dumpable(false)?;
        name(c"stas-helper");
        // The daemon does the same, and says so if it fails.
        let _ = memory::lock_if_needed();
        Ok(Process { socket, call, sigchld, children: BTreeMap::new(), workers: Vec::new() })
    }

    /// Until the daemon closes its end.
    fn run(&mut self) -> nix::Result<()> {
        loop {
            let mut ready = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.sigchld.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
            let [request, child] = ready.map(|ready| ready.any().unwrap_or(true));
            if child {
                self.reap()?;
            }
            if request {
                let Some((packet, _)) = packet::recv(self.socket.as_fd())? else {
                    return Ok(());
                };
                // Without an id there is nobody to answer; the daemon does not send such packets.
                match packet::decode(&packet) {
                    Ok((id, Request::Another)) => self.make_another(id)?,
                    Ok((id, request)) if !self.hand_over(id, &request, &packet) => self.start(id, request)?,
                    Ok(_) | Err(_) => {}
                }
            }
        }
    }

    /// Gives a request to a child that waits for one; whether there was one.
    fn hand_over(&mut self, id: RequestId, request: &Request, packet: &[u8]) -> bool {
        may_stay_after(request) && self.workers.iter_mut().any(|worker| worker.is_idle() && worker.take(id, packet))
    }

    fn start(&mut self, id: RequestId, request: Request) -> nix::Result<()> {
        let stays = may_stay_after(&request) && self.workers.len() < STAYING;
        let channel = stays.then(channel).transpose().unwrap_or_default();
        // SAFETY: the helper has a single thread.
        #[allow(unsafe_code)]
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                // As long as one has the helper's end of another's channel, that one would not see the helper end.
                self.workers.clear();
                self.work(id, request, channel.map(|(_, theirs)| theirs))
            }
            Ok(ForkResult::Parent { child: pid }) => match channel {
                Some((ours, _)) => {
                    self.workers.push(Worker { pid, channel: ours, is_busy: true, last: [None, Some(id)] });
                }
                None => drop(self.children.insert(pid, id)),
            },
            Err(errno) => self.fail(id, Failure::NoChild(errno as i32))?,
        }
        Ok(())
    }

    /// Makes a process like this one. It is the daemon's child, so that the daemon hears of its death.
    fn make_another(&self, id: RequestId) -> nix::Result<()> {
        let made = pair().and_then(|(ours, theirs)| match fork_sibling()? {
            ForkResult::Child => main(theirs, self.call.clone()),
            ForkResult::Parent { child } => Ok((ours, child)),
        });
        match made {
            Ok((ours, child)) => {
                let reply = packet::encode(id, &Reply::Another { pid: child.as_raw() }).map_err(|_| Errno::EINVAL)?;
                packet::send(self.socket.as_fd(), &reply, Some(ours.as_fd()))
            }
            Err(errno) => self.fail(id, Failure::NoChild(errno as i32)),
        }
    }

    /// The life of a child, which stays if it has a channel.
    fn work(&self, mut id: RequestId, mut request: Request, channel: Option<OwnedFd>) -> ! {
        let mut is_new = true;
        loop {
            let stays = self.answer(id, request, channel.as_ref());
            let Some(channel) = channel.as_ref().filter(|_| stays) else {
                exit(ANSWERED);
            };
            name(c"stas-worker");
            if std::mem::take(&mut is_new) {
                // What the helper has locked is not locked here.
                let _ = memory::lock_if_needed();
            }
            let Ok(Some((packet, _))) = packet::recv(channel.as_fd()) else {
                exit(ANSWERED);
            };
            match packet::decode(&packet) {
                Ok(message) => (id, request) = message,
                Err(_) => exit(1),
            }
        }
    }

    /// Carries out a request and answers it. Whether the helper knows that it stays.
    fn answer(&self, id: RequestId, request: Request, channel: Option<&OwnedFd>) -> bool {
        name(match request {
            Request::ReadOptions => c"stas-options",
            Request::Connect(_) => c"stas-connect",
            Request::Disconnect { .. } => c"stas-disconnect",
            Request::Register(_) => c"stas-register",
            Request::Inquire { .. } => c"stas-inquire",
            Request::ReadLogPage { .. } => c"stas-log-page",
            Request::Resolve(_) => c"stas-resolve",
            Request::AskFcPorts => c"stas-fc-ports",
            Request::ChangeNetwork(_) => c"stas-network",
            Request::OverrideRule(_) => c"stas-udev-rule",
            Request::ReadConfiguration | Request::ReadExclusions => c"stas-config",
            Request::Another => c"stas-helper",
        });
        let (reply, file) = (self.call)(request);
        // Before the answer: by the time that the daemon has the next request, it can be had here.
        let stays = channel.is_some_and(|channel| packet::send(channel.as_fd(), &[0], None).is_ok());
        let sent = packet::encode(id, &reply)
            .is_ok_and(|packet| packet::send(self.socket.as_fd(), &packet, file.as_ref().map(AsFd::as_fd)).is_ok());
        if !sent {
            exit(1);
        }
        stays
    }

    /// Collects all children that have ended, and answers for those that did not.
    fn reap(&mut self) -> nix::Result<()> {
        // One signal may stand for several children, so it only says that it is time to look.
        while self.sigchld.read_signal()?.is_some() {}
        loop {
            let (child, answered) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(child, status)) => (child, status == ANSWERED),
                Ok(WaitStatus::Signaled(child, ..)) => (child, false),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(_) => continue,
                Err(errno) => return Err(errno),
            };
            let worker = self.workers.iter().position(|worker| worker.pid == child);
            let worker = worker.map(|place| self.workers.swap_remove(place));
            let last = worker.map_or([None, self.children.remove(&child)], |worker| worker.last);
            for id in last.into_iter().flatten().filter(|_| !answered) {
                self.fail(id, Failure::ChildDied)?;
            }
        }
    }

    fn fail(&self, id: RequestId, failure: Failure) -> nix::Result<()> {
        let packet = packet::encode(id, &Reply::Failed(failure)).map_err(|_| Errno::EINVAL)?;
        packet::send(self.socket.as_fd(), &packet, None)
    }
}

/// Whether a child is as it was when it has carried out such a request, or as small.
fn may_stay_after(request: &Request) -> bool {
    match request {
        // It gives up what others need; those read and parse as much as there is.
        Request::Resolve(_) | Request::ReadConfiguration | Request::ReadExclusions => false,
        // Memory that is freed is overwritten, but not the stack: a key that was there goes with its process.
        Request::Connect(connect) => connect.dhchap_secret.is_empty() && connect.dhchap_ctrl_secret.is_empty(),
        _ => true,
    }
}

/// The helper's end and that of a child that stays. Nothing in the helper waits for a child.
fn channel() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// fork(2), but the parent of the new process is ours (clone(2), `CLONE_PARENT`).
fn fork_sibling() -> nix::Result<ForkResult> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    const NOTHING: libc::c_long = 0;
    // SAFETY: as with fork(2) the new process has a copy of all memory, the stack included, and a single thread.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, NOTHING, NOTHING, NOTHING, NOTHING) };
    match Errno::result(result)? {
        0 => Ok(ForkResult::Child),
        child => Ok(ForkResult::Parent { child: Pid::from_raw(child as libc::pid_t) }),
    }
}

/// A helper would otherwise hold on to what another one has. Kernels before 5.9 cannot do it; there it stays open, which harms
/// only a daemon whose helper has died once.
fn close_inherited(socket: &OwnedFd) {
    let kept = socket.as_raw_fd().unsigned_abs();
    for (first, last) in [(3, kept.saturating_sub(1)), (kept.saturating_add(1).max(3), u32::MAX)] {
        if first <= last {
            // SAFETY: a system call that takes no pointers; whatever owned the closed descriptors is never used or dropped
            // in this process, which shares no memory with the daemon and ends with `_exit`.
            #[allow(unsafe_code)]
            unsafe {
                libc::syscall(libc::SYS_close_range, first, last, 0)
            };
        }
    }
}

fn set_disposition(of: Signal, to: SigHandler) -> nix::Result<()> {
    // SAFETY: no handler function is installed.
    #[allow(unsafe_code)]
    unsafe { signal(of, to) }.map(drop)
}

/// What `ps` shows; no more than 15 bytes count. A failure changes nothing else.
fn name(name: &std::ffi::CStr) {
    let _ = nix::sys::prctl::set_name(name);
}

/// Without the destructors and exit handlers that belong to the daemon.
fn exit(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(status)
    }
}
