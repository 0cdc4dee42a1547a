//! Addresses as text, made into what a socket takes.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use nix::net::if_::if_nametoindex;

use crate::core::tid::parse_ip;

/// `None` if it is no address; an error if its zone is no interface.
pub fn socket_address(text: &str, port: u16) -> io::Result<Option<SocketAddr>> {
    Ok(match parse_ip(text) {
        Some((IpAddr::V6(ip), Some(zone))) => {
            let scope = match zone.parse() {
                Ok(number) => number,
                Err(_) => if_nametoindex(zone)?,
            };
            Some(SocketAddrV6::new(ip, port, 0, scope).into())
        }
        Some((ip, _)) => Some(SocketAddr::new(ip, port)),
        None => None,
    })
}
