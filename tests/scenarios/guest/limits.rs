//! What programs may have to do without: memory, processes, descriptors, room, privileges; and a clock that can be trusted.

use super::{Daemon, Guest, must};
use nix::libc;
use nix::sys::resource::Resource;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

const CGROUPS: &str = "/sys/fs/cgroup";

/// A user without any privilege, who owns nothing.
pub const NOBODY: u32 = 65534;

impl Guest {
    /// Starts a program in the process that has run these shell commands, such as `ulimit -n 64`.
    #[track_caller]
    pub fn spawn_after(&self, commands: &str, program: &str, arguments: &[&str]) -> Daemon {
        let script = format!("{commands}\nexec \"$0\" \"$@\"");
        self.spawn_command(program, Command::new("sh").args(["-c", &script, program]).args(arguments))
    }

    /// A control group without limits, to be entered by [`Cgroup::enter`].
    #[track_caller]
    pub fn cgroup(&self, name: &str) -> Cgroup {
        let root = Path::new(CGROUPS);
        if !root.join("cgroup.procs").exists() {
            self.run("mount", &["-t", "cgroup2", "cgroup2", CGROUPS]).ok();
        }
        self.write(root.join("cgroup.subtree_control"), "+memory +pids");
        let group = Cgroup { path: root.join(name) };
        must(fs::create_dir(&group.path), format!("make {}", group.path.display()));
        group
    }

    /// The limit of open files of a process that runs.
    #[track_caller]
    pub fn limit_descriptors(&self, of: &Daemon, limit: u64) {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        let pid = libc::pid_t::try_from(of.pid()).expect("a process id");
        // SAFETY: the new limit is valid for reading, and the old one is not asked for.
        let done = unsafe { libc::prlimit(pid, Resource::RLIMIT_NOFILE as _, &limit, std::ptr::null_mut()) };
        assert_eq!(done, 0, "prlimit: {}", std::io::Error::last_os_error());
    }

    /// A file system in memory, so large.
    #[track_caller]
    pub fn small_file_system(&self, at: &str, kib: u32) {
        must(fs::create_dir_all(at), format!("make {at}"));
        self.run("mount", &["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs", at]).ok();
    }

    #[track_caller]
    pub fn make_writable(&self, file_system: &str, writable: bool) {
        let options = if writable { "remount,rw" } else { "remount,ro" };
        self.run("mount", &["-o", options, file_system]).ok();
    }

    /// Sets the clock that people read, as by `date -s`.
    #[track_caller]
    pub fn set_clock(&self, date: &str) {
        self.run("date", &["-s", date]).ok();
    }

    /// Does something as a user without privileges.
    #[track_caller]
    pub fn as_nobody<T: Send>(&self, deed: impl FnOnce() -> T + Send) -> T {
        in_thread(|| {
            // SAFETY: no pointers. Unlike the library's functions of these names, the calls change this thread alone.
            let done = unsafe {
                libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY)
                    | libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY)
            };
            assert_eq!(done, 0, "another user: {}", std::io::Error::last_os_error());
            deed()
        })
    }

    /// Does something, such as starting a program, without CAP_NET_ADMIN.
    #[track_caller]
    pub fn without_net_admin<T: Send>(&self, deed: impl FnOnce() -> T + Send) -> T {
        const CAP_NET_ADMIN: libc::c_ulong = 12;
        in_thread(|| {
            // SAFETY: no pointers. It changes this thread, and what it starts.
            let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0) };
            assert_eq!(done, 0, "PR_CAPBSET_DROP: {}", std::io::Error::last_os_error());
            deed()
        })
    }
}

/// In a thread that ends with it: a thread's privileges do not come back.
#[track_caller]
fn in_thread<T: Send>(deed: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(deed).join()).expect("it panicked")
}

#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The shell command by which a process enters it: see [`Guest::spawn_after`].
    pub fn enter(&self) -> String {
        format!("echo $$ >{}/cgroup.procs", self.path.display())
    }

    #[track_caller]
    pub fn set(&self, attribute: &str, value: &str) {
        must(fs::write(self.path.join(attribute), value), format!("write `{value}` to {attribute}"));
    }

    #[track_caller]
    pub fn get(&self, attribute: &str) -> String {
        must(fs::read_to_string(self.path.join(attribute)), format!("read {attribute}")).trim().to_owned()
    }
}
