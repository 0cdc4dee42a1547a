//! A process that does what somebody else wants: it is stopped wherever it is, made to make system calls, and let go on, as if
//! its code had been taken over. ptrace(2), for x86_64.

use super::must;
use nix::errno::Errno;
use nix::libc::{self, c_long, c_uint, c_void, user_regs_struct};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::ptr::{null_mut, without_provenance_mut};

/// The instruction by which system calls are made.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// So far below its stack nothing of the process is.
const BELOW_STACK: u64 = 8192;

/// An argument of a system call.
#[derive(Clone, Copy, Debug)]
pub enum Argument<'a> {
    Number(i64),
    /// The address of this text.
    Text(&'a str),
}

/// As long as this exists, the process does nothing of its own.
pub struct Puppet {
    pid: Pid,
    memory: File,
    /// Where it was.
    before: user_regs_struct,
}

impl Puppet {
    /// Takes hold of a process that waits in a system call.
    #[track_caller]
    pub fn of(pid: u32) -> Puppet {
        let pid = Pid::from_raw(pid.try_into().expect("a process id"));
        let memory = memory(pid);
        ask(libc::PTRACE_ATTACH, pid, null_mut());
        wait(pid, Signal::SIGSTOP);
        let before = registers(pid);
        let mut instruction = [0; 2];
        must(memory.read_exact_at(&mut instruction, before.rip - 2), "read its memory");
        assert_eq!(instruction, SYSCALL, "it is not in a system call");
        Puppet { pid, memory, before }
    }

    /// Has it make a system call, and gives the result.
    #[track_caller]
    pub fn call(&self, number: c_long, arguments: &[Argument<'_>]) -> Result<i64, Errno> {
        let mut values = [0; 6];
        let mut place = self.before.rsp - BELOW_STACK;
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = match argument {
                Argument::Number(number) => number.cast_unsigned(),
                Argument::Text(text) => {
                    let text = [text.as_bytes(), b"\0"].concat();
                    place -= text.len() as u64;
                    must(self.memory.write_all_at(&text, place), "write to its memory");
                    place
                }
            };
        }
        let [rdi, rsi, rdx, r10, r8, r9] = values;
        let (rip, rax) = (self.before.rip - 2, number.cast_unsigned());
        // No call is under way, so that none is begun again.
        let orig_rax = u64::MAX;
        set_registers(self.pid, user_regs_struct { rip, rax, orig_rax, rdi, rsi, rdx, r10, r8, r9, ..self.before });
        ask(libc::PTRACE_SINGLESTEP, self.pid, null_mut());
        wait(self.pid, Signal::SIGTRAP);
        match registers(self.pid).rax.cast_signed() {
            error @ -4095..=-1 => Err(Errno::from_raw(i32::try_from(-error).expect("an errno"))),
            result => Ok(result),
        }
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        set_registers(self.pid, self.before);
        ask(libc::PTRACE_DETACH, self.pid, null_mut());
    }
}

#[track_caller]
pub(super) fn memory(pid: Pid) -> File {
    let path = format!("/proc/{pid}/mem");
    must(OpenOptions::new().read(true).write(true).open(&path), format!("open {path}"))
}

pub(super) fn registers(pid: Pid) -> user_regs_struct {
    // SAFETY: plain numbers, for which zero is a value.
    let mut registers: user_regs_struct = unsafe { std::mem::zeroed() };
    ask(libc::PTRACE_GETREGS, pid, (&raw mut registers).cast());
    registers
}

pub(super) fn set_registers(pid: Pid, mut registers: user_regs_struct) {
    ask(libc::PTRACE_SETREGS, pid, (&raw mut registers).cast());
}

#[track_caller]
fn wait(pid: Pid, signal: Signal) {
    let status = waitpid(pid, Some(WaitPidFlag::__WALL));
    assert_eq!(status, Ok(WaitStatus::Stopped(pid, signal)), "the process does not stop as expected");
}

#[track_caller]
pub(super) fn ask(request: c_uint, pid: Pid, data: *mut c_void) {
    // SAFETY: where the request takes data, it is the registers, valid for reading and writing.
    let done = unsafe { libc::ptrace(request, pid.as_raw(), without_provenance_mut::<c_void>(0), data) };
    assert_eq!(done, 0, "ptrace request {request}: {}", std::io::Error::last_os_error());
}
