//! The kernel's uevents: to wait for, and to forge.

use super::Guest;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
    sockopt::{RcvBufForce, ReceiveTimeout},
};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The multicast group of the kernel's own messages.
const KERNEL: u32 = 1;

impl Guest {
    /// The uevents from now on.
    pub fn uevents(&self) -> Uevents {
        let socket = open();
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL)).unwrap();
        // Room for all that hundreds of controllers bring about.
        setsockopt(&socket, RcvBufForce, &(16 << 20)).unwrap();
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(10, 0)).unwrap();
        Uevents(socket)
    }

    /// Sends a uevent that is none, for it does not come from the kernel, to whoever listens, and to a daemon by itself. `lines`
    /// is what a uevent has between its NULs. Whether either was sent.
    pub fn forge_uevent(&self, daemon: u32, lines: &[&str]) -> [nix::Result<usize>; 2] {
        let message = lines.join("\0") + "\0";
        let socket = open();
        [NetlinkAddr::new(0, KERNEL), NetlinkAddr::new(daemon, 0)].map(|to| {
            // The second is refused if the daemon's socket has another address than its process id.
            let sent = sendto(socket.as_raw_fd(), message.as_bytes(), &to, MsgFlags::empty());
            super::say(&format!("forged uevent {lines:?}: {sent:?}"));
            sent
        })
    }
}

#[derive(Debug)]
pub struct Uevents(OwnedFd);

impl Uevents {
    /// The next event with this text in it, its lines separated by blanks.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        loop {
            let event = self.next().unwrap_or_else(|error| panic!("waited for a uevent with {text}: {error}"));
            if event.contains(text) {
                return event;
            }
        }
    }

    fn next(&self) -> io::Result<String> {
        let mut buffer = [0; 8192];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        Ok(String::from_utf8_lossy(&buffer[..length]).replace('\0', " "))
    }
}

fn open() -> OwnedFd {
    let protocol = SockProtocol::NetlinkKObjectUEvent;
    socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol).unwrap()
}
