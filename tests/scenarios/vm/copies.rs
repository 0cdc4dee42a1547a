//! Machines from a copy of one that has booted: most scenarios want the same machine, and booting it is half of what they take.
//!
//! The first scenario of a kind boots it with no scenario to run. When it has come so far that it waits for one (see `init`), its
//! state is saved as for a migration; each scenario then begins with that state, and is told which one it is on the console.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A machine that waits for a scenario: what it has booted from, and its state.
#[derive(Debug)]
pub struct Booted {
    initramfs: File,
    state: File,
}

impl Booted {
    /// The files have no names any more: whatever becomes of this process, they are gone with it.
    pub fn initramfs(&self) -> PathBuf {
        path_of(&self.initramfs)
    }

    pub fn state(&self) -> PathBuf {
        path_of(&self.state)
    }
}

fn path_of(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

/// Those that were made so far in this process, by kind; or why one could not be made.
static MADE: Mutex<BTreeMap<String, Result<Arc<Booted>, String>>> = Mutex::new(BTreeMap::new());

/// Gives the copy of this kind, made by `make` if there is none yet. That boots a machine from an initramfs, and once it waits has
/// its state saved to a file, which are its arguments.
pub fn get(
    kind: &str,
    directory: &Path,
    make: impl FnOnce(&Path, &Path) -> Result<(), String>,
) -> Result<Arc<Booted>, String> {
    let mut made = MADE.lock().expect("no holder panics");
    let copy = made.entry(kind.to_owned()).or_insert_with(|| {
        let path = |what: &str| directory.join(format!("{}.{kind}.{what}", std::process::id()));
        let [initramfs, state] = ["cpio", "state"].map(path);
        let opened = make(&initramfs, &state).and_then(|()| {
            let open = |path: &Path| File::open(path).map_err(|error| format!("{}: {error}", path.display()));
            Ok(Arc::new(Booted { initramfs: open(&initramfs)?, state: open(&state)? }))
        });
        for path in [initramfs, state] {
            let _ = fs::remove_file(path);
        }
        opened
    });
    copy.clone()
}

/// Has a running machine save its state and end, by its monitor.
pub fn save(monitor: &Path, state: &Path) -> io::Result<()> {
    let mut monitor = UnixStream::connect(monitor)?;
    let state = state.display();
    write!(monitor, "migrate_set_parameter max-bandwidth 10G\nmigrate \"exec:cat >{state}\"\nquit\n")?;
    // What it answers is of no interest, but has to be heard.
    io::copy(&mut monitor, &mut io::sink()).map(drop)
}
