//! One message is one packet on a `SOCK_SEQPACKET` pair: its id and the message, perhaps with a descriptor. So the messages
//! of several children never mix. Both ends are the same program, so the format (postcard) needs neither names nor versions.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Serialize, de::DeserializeOwned};

use super::message::RequestId;

/// Ten times what the longest connect request needs.
pub const PACKET_MAX: usize = 64 << 10;

/// A message with the number of its request, as one packet.
///
/// # Errors
/// When it is longer than [`PACKET_MAX`].
pub fn encode(id: RequestId, message: &impl Serialize) -> io::Result<Vec<u8>> {
    let packet = postcard::to_allocvec(&(id, message)).map_err(io::Error::other)?;
    if packet.len() > PACKET_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message for the helper process is too long"));
    }
    Ok(packet)
}

/// The other way round.
///
/// # Errors
/// When it is no such message.
pub fn decode<M: DeserializeOwned>(packet: &[u8]) -> io::Result<(RequestId, M)> {
    postcard::from_bytes(packet).map_err(io::Error::other)
}

/// Blocks if the socket does.
pub fn send(socket: BorrowedFd<'_>, packet: &[u8], passed: Option<BorrowedFd<'_>>) -> nix::Result<()> {
    let passed = passed.map(|passed| [passed.as_raw_fd()]);
    let rights = passed.as_ref().map(|passed| ControlMessage::ScmRights(passed));
    let control = rights.as_slice();
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(packet)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// The packet and the descriptor that came with it, unless we may have no more; `None` when the other side has closed.
pub fn recv(socket: BorrowedFd<'_>) -> nix::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    // Memory is for the packet that is there: a buffer for the longest one would be most of what a helper has.
    let length = nix::sys::socket::recv(socket.as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)?;
    let mut packet = vec![0; length.min(PACKET_MAX)];
    let mut control = nix::cmsg_space!(RawFd);
    let mut pieces = [IoSliceMut::new(&mut packet)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut control), flags)?;
    let mut passed = None;
    // The kernel leaves out a descriptor for which there is no room (`MSG_CTRUNC`): that is a matter of this packet alone.
    for control in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            for descriptor in descriptors {
                // SAFETY: the kernel has just made this descriptor for us; nobody else knows of it.
                #[allow(unsafe_code)]
                let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
                passed = Some(owned);
            }
        }
    }
    match message.bytes {
        0 => Ok(None),
        _ if message.flags.contains(MsgFlags::MSG_TRUNC) => Err(Errno::EMSGSIZE),
        _ => Ok(Some((packet, passed))),
    }
}
