//! The helper process: waits for requests, forks a child for each, answers for children that died.
//!
//! It never makes a call that may block in the kernel itself. Only it can make another one of its kind, for the daemon may not.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::message::{Failure, Reply, Request, RequestId};
use super::packet;
use super::{Call, pair};
use crate::kernel::memory;

/// What a service manager or a terminal sends to the whole group when it means the daemon. The daemon's end of the socket is
/// what ends the helper, and a connect that the kernel is at must not be torn.
const IGNORED: [Signal; 5] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGPIPE];

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
    children: BTreeMap<Pid, RequestId>,
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
        Ok(Process { socket, call, sigchld, children: BTreeMap::new() })
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
                    Ok((id, request)) => self.start(id, request)?,
                    Err(_) => {}
                }
            }
        }
    }

    fn start(&mut self, id: RequestId, request: Request) -> nix::Result<()> {
        // SAFETY: the helper has a single thread.
        #[allow(unsafe_code)]
        match unsafe { fork() } {
            Ok(ForkResult::Child) => self.answer(id, request),
            Ok(ForkResult::Parent { child }) => {
                self.children.insert(child, id);
            }
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

    /// The life of a child.
    fn answer(&self, id: RequestId, request: Request) -> ! {
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
        let sent = packet::encode(id, &reply)
            .is_ok_and(|packet| packet::send(self.socket.as_fd(), &packet, file.as_ref().map(AsFd::as_fd)).is_ok());
        exit(if sent { ANSWERED } else { 1 })
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
            match self.children.remove(&child) {
                Some(id) if !answered => self.fail(id, Failure::ChildDied)?,
                _ => {}
            }
        }
    }

    fn fail(&self, id: RequestId, failure: Failure) -> nix::Result<()> {
        let packet = packet::encode(id, &Reply::Failed(failure)).map_err(|_| Errno::EINVAL)?;
        packet::send(self.socket.as_fd(), &packet, None)
    }
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
