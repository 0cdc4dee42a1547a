//! Reading a small file that an administrator wrote.
//!
//! Never hangs and never takes more memory than it is told to, whatever the path leads to: a fifo, a device, a huge file.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

/// Largest configuration file, in bytes.
pub(super) const SIZE_MAX: u64 = 1 << 20;

/// What was in a file.
#[derive(Debug)]
pub(super) struct Contents {
    /// With U+FFFD in place of what is not UTF-8.
    pub(super) text: String,
    /// The first line that is not UTF-8, counted from 1.
    pub(super) garbled_line: Option<usize>,
    /// Whether other users than root may read the file by its mode, owner and group.
    pub(super) exposed: bool,
}

impl Contents {
    /// As if read from a file that is in order.
    pub(super) fn of(text: &str) -> Contents {
        Contents { text: text.to_owned(), garbled_line: None, exposed: false }
    }
}

/// Reads the file at `path`. More than [`SIZE_MAX`] bytes are an error of kind `FileTooLarge`.
pub(super) fn read(path: &Path) -> io::Result<Contents> {
    // Without O_NONBLOCK, opening a fifo waits for its writer.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied if !geteuid().is_root() => {
            io::Error::new(error.kind(), format!("{error}; run this as root"))
        }
        _ => error,
    })?;
    // Of the open file, not of the path: the answer is about what is read.
    let exposed = is_exposed(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {} KiB", SIZE_MAX >> 10)));
    }
    let garbled_line = std::str::from_utf8(&bytes).err().map(|error| {
        let valid = bytes.iter().take(error.valid_up_to());
        valid.filter(|byte| **byte == b'\n').count() + 1
    });
    let text = String::from_utf8_lossy(&bytes);
    // Editors on other systems begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
    Ok(Contents { text, garbled_line, exposed })
}

/// Group root is as good as root. An owner can always give himself the right to read.
fn is_exposed(metadata: &Metadata) -> bool {
    let is_foreign = metadata.uid() != 0 && metadata.uid() != geteuid().as_raw();
    let group_reads = metadata.mode() & 0o040 != 0 && metadata.gid() != 0;
    let all_read = metadata.mode() & 0o004 != 0;
    metadata.is_file() && (is_foreign || group_reads || all_read)
}
