//! Confinement: a process that reads what others wrote gives up, for good, whatever it does not need for that.
//!
//! Root stays root, for the bus lets nobody else own our names; what is left to it is another matter:
//!
//! - no capabilities, and none that could come back (capabilities(7), `no_new_privs`);
//! - of the file system only a few places (`files`, by Landlock);
//! - of the kernel only the system calls of a loop that waits, reads and writes (`calls`, by seccomp).
//!
//! What takes more is asked of the [helper](crate::helper), which looks at each request again. A kernel that lacks a piece is
//! no obstacle: the others are in force, and the caller is told what is missing.

mod calls;
mod files;

use std::ffi::OsString;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};

use crate::kernel::capabilities;

/// What of the file system can be used. Nothing else can be opened, made, renamed or removed; what is open stays so.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Files, or directories with all that is in them. Those that do not exist are left out.
    pub read: Vec<PathBuf>,
    /// Directories in which files are made and replaced. Of one that does not exist, the nearest above it.
    pub write: Vec<PathBuf>,
}

/// Confines this thread, which ought to be the only one of its process. Returns what could not be done, and why.
pub fn confine(places: &Places) -> Vec<String> {
    let lacks = [
        drop_capabilities().map_err(|errno| format!("capabilities: {errno}")),
        set_no_new_privs().map_err(|errno| format!("no_new_privs: {errno}")),
        files::restrict_to(places).map_err(|why| format!("Landlock: {why}")),
        // Last, for what comes before takes other calls.
        calls::restrict().map_err(|why| format!("seccomp: {why}")),
    ];
    lacks.into_iter().filter_map(Result::err).collect()
}

fn drop_capabilities() -> nix::Result<()> {
    let sealed = capabilities::seal();
    // Old kernels bind a socket to an interface only with this one.
    if capabilities::keep_only(Some(capabilities::NET_RAW), false).is_ok() && !can_bind_to_interface() {
        return capabilities::keep_only(Some(capabilities::NET_RAW), true).and(sealed);
    }
    capabilities::keep_only(None, false).and(sealed)
}

fn can_bind_to_interface() -> bool {
    let bound = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .and_then(|socket| setsockopt(&socket, sockopt::BindToDevice, &OsString::from("lo")));
    bound != Err(Errno::EPERM)
}
