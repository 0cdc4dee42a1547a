//! A log page, or another long reply, on its way from a child to the daemon: a memory file, sealed so that nobody can change it
//! while it is read.
//!
//! Pages have up to 16 MiB, too much for a packet.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::wire::discovery::{ENTRY_SIZE, HEADER_SIZE, MAX_RECORDS};

const SEALS: SealFlag =
    SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE).union(SealFlag::F_SEAL_SEAL);

pub fn write(page: &[u8]) -> io::Result<OwnedFd> {
    let file = memfd_create("stas-reply", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(file);
    file.write_all(page)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
    Ok(file.into())
}

/// Reads a page of `bytes` bytes; refuses what is not sealed, of another size, or larger than a page may be.
pub fn read(file: Option<OwnedFd>, bytes: u64) -> io::Result<Box<[u8]>> {
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let file = File::from(file.ok_or_else(|| invalid("the helper process sent nothing with its reply"))?);
    let seals = SealFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GET_SEALS)?);
    if !seals.contains(SEALS) {
        return Err(invalid("the helper process sent a reply without seals"));
    }
    let page_max = HEADER_SIZE as u64 + MAX_RECORDS * ENTRY_SIZE as u64;
    let size = usize::try_from(bytes).map_err(|_| invalid("reply too large"))?;
    if bytes > page_max || file.metadata()?.len() != bytes {
        return Err(invalid("the helper process sent a reply of the wrong size"));
    }
    let mut page = vec![0; size].into_boxed_slice();
    file.read_exact_at(&mut page, 0)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_arrives_as_it_was_sent() {
        let page: Vec<u8> = (0..5000).map(|i| i as u8).collect();
        assert_eq!(*read(Some(write(&page).unwrap()), 5000).unwrap(), page);
    }

    #[test]
    fn a_sent_page_cannot_be_changed() {
        let mut file = File::from(write(&[0; 1024]).unwrap());
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(1).is_err());
    }

    #[test]
    fn what_is_not_a_sealed_page_of_that_size_is_refused() {
        let complaint = |file, bytes| read(file, bytes).unwrap_err().to_string();
        assert_eq!(complaint(None, 1024), "the helper process sent nothing with its reply");
        let wrong_size = "the helper process sent a reply of the wrong size";
        assert_eq!(complaint(Some(write(&[0; 1024]).unwrap()), 1025), wrong_size);
        let huge = 1024 + 16385 * 1024;
        let file = File::from(memfd_create("huge", MFdFlags::MFD_ALLOW_SEALING).unwrap());
        file.set_len(huge).unwrap();
        fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS)).unwrap();
        assert_eq!(complaint(Some(file.into()), huge), wrong_size);
        let file = memfd_create("open", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        assert_eq!(complaint(Some(file), 0), "the helper process sent a reply without seals");
    }
}
