//! Sockets on which the kernel tells what happens: netlink(7).
//!
//! Of uevents (`NETLINK_KOBJECT_UEVENT`), group 1 carries the kernel's own messages, group 2 udev's, so no udev is needed.
//! Any process may send to a netlink socket, and into group 1 if it is privileged; only what the kernel itself sent is an
//! event here. What the bytes say is for [`crate::wire::uevent`].

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, UnixCredentials, bind,
    recvmsg, setsockopt, socket, sockopt,
};

/// The kernel's own messages.
const GROUP_KERNEL: u32 = 1;

/// Room for some ten thousand uevents: when 250 controllers connect at once with their namespaces, each event must wait for
/// its turn. Counted against the sender, so nothing is used before it is needed.
const RECEIVE_BUFFER: usize = 16 << 20;

/// What [`KernelSocket::recv`] needs at least: the kernel does not send longer ones (`UEVENT_BUFFER_SIZE` is 2048, plus the
/// path).
pub const MESSAGE_MAX: usize = 8192;

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A message from the kernel.
    Event(&'a [u8]),
    /// A message from somebody else: to be ignored.
    Forged,
    /// A message of the kernel's that did not fit: to be treated like [`Received::Overflow`].
    Truncated,
    /// Messages were lost: what they would have said has to be looked up otherwise.
    Overflow,
    /// There is nothing more at the moment.
    Nothing,
}

/// A non-blocking socket that listens to the kernel.
#[derive(Debug)]
pub struct KernelSocket {
    socket: OwnedFd,
}

impl KernelSocket {
    /// Subscribed to the kernel's uevents.
    pub fn uevents() -> io::Result<KernelSocket> {
        let socket = KernelSocket::new(SockProtocol::NetlinkKObjectUEvent, RECEIVE_BUFFER)?;
        socket.subscribe(GROUP_KERNEL)?;
        Ok(socket)
    }

    /// From here on, of devices that come only those of the class "misc" are told of, such as `/dev/nvme-fabrics`. Each controller
    /// and disk brings a dozen others into being, and what comes of a controller is told by a change of it: who does not wait
    /// for disks need not wake up for any of these.
    pub fn leave_out_additions(&self) -> io::Result<()> {
        const WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
        let mut filter = [
            step(WORD, 0, 0, 0),
            step(IS, u32::from_be_bytes(*b"add@"), 0, 3),
            // After "add@/devices/virtual".
            step(WORD, 20, 0, 0),
            step(IS, u32::from_be_bytes(*b"/mis"), 1, 0),
            step(RETURN, 0, 0, 0),
            step(RETURN, u32::MAX, 0, 0),
        ];
        let length = u16::try_from(filter.len()).unwrap_or_default();
        let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
        let size = libc::socklen_t::try_from(size_of_val(&program)).unwrap_or_default();
        // SAFETY: the kernel copies the program, and the `len` steps that it points to, both of which are here meanwhile.
        #[allow(unsafe_code)]
        let result = unsafe {
            let program = (&raw const program).cast();
            libc::setsockopt(self.socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program, size)
        };
        Ok(Errno::result(result).map(drop)?)
    }

    /// Subscribed to nothing yet.
    pub(super) fn new(protocol: SockProtocol, receive_buffer: usize) -> io::Result<KernelSocket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        // Forcing needs CAP_NET_ADMIN; without it the limit in net.core.rmem_max applies, and a smaller buffer works too.
        if setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &receive_buffer)?;
        }
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(KernelSocket { socket })
    }

    /// To multicast groups, a bit for each.
    pub(super) fn subscribe(&self, groups: u32) -> io::Result<()> {
        Ok(bind(self.socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?)
    }

    /// Takes one message into `buffer` of [`MESSAGE_MAX`] bytes. Errors are those of a socket that is of no use any more.
    pub fn recv<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
        let mut control = nix::cmsg_space!(UnixCredentials);
        let mut pieces = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let (length, from_kernel, truncated) =
            match recvmsg::<NetlinkAddr>(self.socket.as_raw_fd(), &mut pieces, Some(&mut control), flags) {
                Ok(message) => {
                    let sender = message.address.map(|address| address.pid());
                    let credentials = message.cmsgs()?.find_map(credentials);
                    let from_kernel = sender == Some(0) && credentials.is_some_and(|c| c.pid() == 0 && c.uid() == 0);
                    (message.bytes, from_kernel, message.flags.contains(MsgFlags::MSG_TRUNC))
                }
                Err(Errno::EAGAIN) => return Ok(Received::Nothing),
                Err(Errno::ENOBUFS) => return Ok(Received::Overflow),
                Err(errno) => return Err(errno.into()),
            };
        Ok(match (from_kernel, truncated) {
            (false, _) => Received::Forged,
            (true, true) => Received::Truncated,
            (true, false) => Received::Event(buffer.get(..length).unwrap_or_default()),
        })
    }
}

impl AsRawFd for KernelSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn credentials(message: ControlMessageOwned) -> Option<UnixCredentials> {
    match message {
        ControlMessageOwned::ScmCredentials(credentials) => Some(credentials),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{getsockname, sendto};

    /// Drops events of the kernel's that happen to arrive meanwhile.
    fn next(socket: &KernelSocket) -> String {
        loop {
            match socket.recv(&mut [0; MESSAGE_MAX]).unwrap() {
                Received::Event(_) => {}
                other => return format!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_idle_socket_has_nothing() {
        assert_eq!(next(&KernelSocket::uevents().unwrap()), "Nothing");
    }

    /// What becomes of a message that another process sends.
    fn sent(message: &[u8]) -> [String; 2] {
        let victim = KernelSocket::uevents().unwrap();
        victim.leave_out_additions().unwrap();
        let attacker = KernelSocket::uevents().unwrap();
        let address: NetlinkAddr = getsockname(victim.as_raw_fd()).unwrap();
        let target = NetlinkAddr::new(address.pid(), 0);
        // What nobody wants to have is refused.
        let _ = sendto(attacker.as_raw_fd(), message, &target, MsgFlags::empty());
        [next(&victim), next(&victim)]
    }

    #[test]
    fn what_another_process_sends_is_forged() {
        assert_eq!(sent(b"change@/devices/virtual/nvme-fabrics/ctl/nvme0\0"), ["Forged", "Nothing"]);
        assert_eq!(sent(b"add@/devices/virtual/misc/nvme-fabrics\0"), ["Forged", "Nothing"]);
    }

    #[test]
    fn what_comes_into_being_is_not_told() {
        for message in ["add@/devices/virtual/nvme-fabrics/ctl/nvme0\0", "add@/devices/virtual/bdi/259:0\0", "add@/\0"]
        {
            assert_eq!(sent(message.as_bytes()), ["Nothing", "Nothing"], "{message}");
        }
    }
}
