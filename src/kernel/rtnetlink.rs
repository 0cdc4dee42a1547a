//! The socket on which the kernel tells of links, addresses and routes: rtnetlink(7). What the bytes say is for
//! [`crate::wire::rtnetlink`].
//!
//! Of routes only new default routes are let through, by a filter in the kernel: a router with a full table has thousands
//! of changes a second, and each would wake us up.

use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::SockProtocol;

use super::netlink::KernelSocket;
use crate::wire::rtnetlink::RTM_NEWROUTE;

/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE (kernel:
/// include/uapi/linux/rtnetlink.h).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

const RECEIVE_BUFFER: usize = 256 << 10;

const RTM_DELROUTE: u16 = RTM_NEWROUTE + 1;

/// Where a message has its type, and a route the length of its destination's prefix.
const TYPE_AT: u32 = 4;
const PREFIX_LENGTH_AT: u32 = 17;

/// A non-blocking socket subscribed to the network's events.
pub fn open() -> io::Result<KernelSocket> {
    let socket = KernelSocket::new(SockProtocol::NetlinkRoute, RECEIVE_BUFFER)?;
    attach_filter(&socket)?;
    socket.subscribe(GROUPS)?;
    Ok(socket)
}

/// Classic BPF (socket(7), `SO_ATTACH_FILTER`), which loads in network byte order.
fn attach_filter(socket: &KernelSocket) -> io::Result<()> {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let kind = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut program = [
        step(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, TYPE_AT),
        step(equal, 4, 0, kind(RTM_DELROUTE)),
        step(equal, 0, 2, kind(RTM_NEWROUTE)),
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, PREFIX_LENGTH_AT),
        step(equal, 0, 1, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the option value is a `sock_fprog` of the given size, and points to a program that outlives the call, which
    // copies it.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
