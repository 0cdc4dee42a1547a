//! Which system calls can be made: those of a loop that waits, reads, writes and keeps a few small files. seccomp(2).
//!
//! Everything else fails with EPERM, and the daemon goes on: to kill it would be an outage. Not in the list, and so out of
//! reach: starting processes and programs, signals to others, attributes and owners of files, devices, mounts, modules, keys,
//! bpf, tracing, other processes' memory and limits. Some calls are there for some of their arguments only.
//!
//! The C library and Rust's standard library choose among calls that do the same, so all of a kind are listed; which exist
//! depends on the architecture.

use std::collections::BTreeMap;

use nix::errno::Errno;
use nix::libc::{self, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Whatever their arguments.
const FREE: &[c_long] = &[
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_timerfd_settime,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // Reading and writing.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    // Sockets.
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_accept,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    // Files: which ones is for Landlock.
    libc::SYS_openat,
    libc::SYS_getdents64,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_umask,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // The process itself, and what it may know.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
];

/// Old ones, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_rmdir,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
/// `renameat`, which has no name in libc there.
#[cfg(target_arch = "aarch64")]
const OLD: &[c_long] = &[38];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OLD: &[c_long] = &[];

/// Local, IP, and netlink.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Not those by which a descriptor sends signals to other processes.
const FCNTLS: [libc::c_int; 6] =
    [libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL, libc::F_GET_SEALS];

/// Names and numbers of interfaces, and what a descriptor is.
const IOCTLS: [u64; 5] = [libc::SIOCGIFNAME, libc::SIOCGIFINDEX, libc::FIONBIO, libc::FIOCLEX, libc::TCGETS];

/// `Err` says why the kernel does not do it.
pub fn restrict() -> Result<(), String> {
    let program = program().map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = FREE.iter().chain(OLD).map(|call| (*call, vec![])).collect();
    let own = u64::from(std::process::id());
    let code = libc::PROT_EXEC as u64;
    let no_code = || any_of(2, SeccompCmpOp::MaskedEq(code), [0]);
    rules.insert(libc::SYS_socket, any_of(0, SeccompCmpOp::Eq, FAMILIES.map(|family| family as u64))?);
    rules.insert(libc::SYS_fcntl, any_of(1, SeccompCmpOp::Eq, FCNTLS.map(|command| command as u64))?);
    rules.insert(libc::SYS_ioctl, any_of(1, SeccompCmpOp::Eq, IOCTLS)?);
    // Memory that can be executed: what the program begins with is all.
    rules.insert(libc::SYS_mmap, no_code()?);
    rules.insert(libc::SYS_mprotect, no_code()?);
    // abort(3).
    rules.insert(libc::SYS_tgkill, any_of(0, SeccompCmpOp::Eq, [own])?);
    let denied = SeccompAction::Errno(Errno::EPERM as u32);
    SeccompFilter::new(rules, denied, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// One argument, of 32 bits, compared with one value or another.
fn any_of(
    argument: u8,
    operator: SeccompCmpOp,
    values: impl IntoIterator<Item = u64>,
) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let rule = |value| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator.clone(), value)?;
        SeccompRule::new(vec![condition])
    };
    values.into_iter().map(rule).collect()
}
