//! The functions that a program calls. At the beginning of each is a breakpoint, in each of its processes until that one has come
//! by. ptrace(2), for x86_64.

use super::must;
use super::puppet::{ask, memory, registers, set_registers};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::{null_mut, without_provenance_mut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

const BREAKPOINT: u8 = 0xcc;

/// The addresses, as in the file, of all functions that the program has called in any of its processes by the time that `work` is
/// done, in the order of their first calls; then it is asked to stop. It needs its table of symbols.
pub fn during(program: &mut Command, work: impl FnOnce()) -> Vec<u64> {
    let (told, heard) = mpsc::channel();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Only who has started it can trace it.
        let tracer = scope.spawn(|| trace(program, told, &is_done));
        let pid = heard.recv().expect("a process");
        work();
        is_done.store(true, Ordering::Relaxed);
        must(kill(pid, Signal::SIGTERM).map_err(Into::into), "stop the program");
        tracer.join().expect("a list of calls")
    })
}

fn trace(program: &mut Command, told: mpsc::Sender<Pid>, is_done: &AtomicBool) -> Vec<u64> {
    // SAFETY: the call takes no pointers, and allocates nothing.
    unsafe {
        program.pre_exec(|| {
            libc::ptrace(libc::PTRACE_TRACEME);
            Ok(())
        })
    };
    let mut child = must(program.spawn(), "start the program");
    let pid = Pid::from_raw(child.id().try_into().expect("a process id"));
    assert_eq!(waitpid(pid, None), Ok(WaitStatus::Stopped(pid, Signal::SIGTRAP)));
    let file = must(fs::read(format!("/proc/{pid}/exe")), "read the program");
    let maps = must(fs::read_to_string(format!("/proc/{pid}/maps")), "read its mappings");
    let base =
        maps.lines().find(|line| line.ends_with("/stas")).and_then(|line| line.split('-').next()).expect("a mapping");
    let base = u64::from_str_radix(base, 16).expect("an address");

    let first = memory(pid);
    let mut begins = BTreeMap::new();
    for function in functions(&file) {
        let mut byte = [0];
        must(first.read_exact_at(&mut byte, base + function), "read its memory");
        begins.insert(function, byte);
    }
    begins.keys().for_each(|function| must(first.write_all_at(&[BREAKPOINT], base + function), "write its memory"));
    let options = libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
    let number = |number: i32| without_provenance_mut(usize::try_from(number).expect("a number"));
    ask(libc::PTRACE_SETOPTIONS, pid, number(options));
    ask(libc::PTRACE_CONT, pid, null_mut());
    told.send(pid).expect("somebody listens");

    let mut called = Vec::new();
    // Children of other threads are not ours to wait for.
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
        let (process, signal) = match status {
            WaitStatus::Stopped(process, Signal::SIGTRAP) => {
                let mut at = registers(process);
                at.rip -= 1;
                let function = at.rip - base;
                must(memory(process).write_all_at(&begins[&function], at.rip), "write its memory");
                set_registers(process, at);
                if !is_done.load(Ordering::Relaxed) && !called.contains(&function) {
                    called.push(function);
                }
                (process, 0)
            }
            // How a new process begins.
            WaitStatus::Stopped(process, Signal::SIGSTOP) | WaitStatus::PtraceEvent(process, ..) => (process, 0),
            WaitStatus::Stopped(process, signal) => (process, signal as i32),
            WaitStatus::Exited(process, _) | WaitStatus::Signaled(process, ..) if process == pid => break,
            _ => continue,
        };
        ask(libc::PTRACE_CONT, process, number(signal));
    }
    // Known to have ended.
    let _ = child.wait();
    called
}

/// Where functions begin, by the table of symbols (elf(5)).
fn functions(file: &[u8]) -> BTreeSet<u64> {
    const SHT_SYMTAB: u64 = 2;
    const FUNCTIONS: [u8; 2] = [2, 10];
    let number = |at: u64, length: u64| {
        let at = usize::try_from(at).expect("a place");
        let mut bytes = [0; 8];
        bytes[..length as usize].copy_from_slice(&file[at..at + length as usize]);
        u64::from_le_bytes(bytes)
    };
    let (headers, size, count) = (number(0x28, 8), number(0x3a, 2), number(0x3c, 2));
    let header = (0..count).map(|index| headers + index * size).find(|header| number(header + 4, 4) == SHT_SYMTAB);
    let header = header.expect("a program with its symbols");
    let (table, length) = (number(header + 0x18, 8), number(header + 0x20, 8));
    let symbols = (table..table + length).step_by(24);
    let is_function =
        |symbol: &u64| FUNCTIONS.contains(&(number(symbol + 4, 1) as u8 & 0xf)) && number(symbol + 6, 2) != 0;
    symbols.filter(is_function).map(|symbol| number(symbol + 8, 8)).collect()
}
