//! The privileges that root has beyond its files: capabilities(7), which a process can give up for good.

use nix::errno::Errno;
use nix::libc;

/// To bind a socket to an interface before Linux 5.7 (kernel: `sock_bindtoindex`).
pub const NET_RAW: u32 = 13;

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    /// 0: the calling thread.
    pid: i32,
}

/// `struct __user_cap_data_struct`, of which the first is for capabilities 0 to 31 and the second for the others.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up all capabilities but one below 32, which is in force or can be put in force, by this function, later.
pub fn keep_only(kept: Option<u32>, in_force: bool) -> nix::Result<()> {
    let permitted = kept.map_or(0, |kept| 1 << kept);
    let effective = if in_force { permitted } else { 0 };
    let header = Header { version: VERSION, pid: 0 };
    let sets = [Sets { effective, permitted, inheritable: 0 }, Sets::default()];
    // SAFETY: both are laid out as the kernel's structs, and outlive the call, which reads them.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Sees to it that no capability comes from elsewhere: not from programs that are started (bounding set), nor by inheritance
/// (ambient set). To be called as long as there are privileges to do it with.
pub fn seal() -> nix::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong)?;
    for capability in 0.. {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            // That was the last one that this kernel has; or a service manager has left us no privilege to do it with, and
            // `no_new_privs` has to do.
            Err(Errno::EINVAL | Errno::EPERM) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn prctl(what: libc::c_int, argument: libc::c_ulong) -> nix::Result<()> {
    const NOTHING: libc::c_ulong = 0;
    // SAFETY: none of the two that are asked for takes a pointer.
    #[allow(unsafe_code)]
    let result = unsafe { libc::prctl(what, argument, NOTHING, NOTHING, NOTHING) };
    Errno::result(result).map(drop)
}
