//! Where a bus listens: the part of D-Bus addresses that a Linux host needs.
//!
//! Facts: D-Bus Specification, "Server Addresses".

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where the system bus listens unless the environment says otherwise.
pub const SYSTEM_BUS_SOCKET: &str = "/run/dbus/system_bus_socket";

/// A unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

impl Address {
    /// The system bus: `DBUS_SYSTEM_BUS_ADDRESS`, or where it usually is.
    ///
    /// # Errors
    /// When the variable has no address of a kind that we can use.
    pub fn system() -> Result<Address, String> {
        match std::env::var("DBUS_SYSTEM_BUS_ADDRESS") {
            Ok(list) if !list.is_empty() => Address::parse(&list).ok_or_else(|| {
                format!("DBUS_SYSTEM_BUS_ADDRESS={list}: no unix:path= or unix:abstract= address in it")
            }),
            _ => Ok(Address::Path(SYSTEM_BUS_SOCKET.into())),
        }
    }

    /// The first usable address of a list.
    pub fn parse(list: &str) -> Option<Address> {
        list.split(';').find_map(|address| {
            let pairs = address.strip_prefix("unix:")?;
            pairs.split(',').find_map(|pair| match pair.split_once('=')? {
                ("path", value) => {
                    let bytes = unescape(value)?;
                    Some(Address::Path(PathBuf::from(String::from_utf8(bytes).ok()?)))
                }
                ("abstract", value) => Some(Address::Abstract(unescape(value)?)),
                _ => None,
            })
        })
    }

    /// The file that appears when the bus does; an abstract address has none.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Address::Path(path) => Some(path),
            Address::Abstract(_) => None,
        }
    }

    /// # Errors
    /// When the address is too long for a socket, or has a NUL in it.
    pub fn socket_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Address::Path(path) => SocketAddr::from_pathname(path),
            Address::Abstract(name) => SocketAddr::from_abstract_name(name),
        }
    }
}

/// `%2f` stands for `/` and so on.
fn unescape(value: &str) -> Option<Vec<u8>> {
    let mut parts = value.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_addresses_of_linux_hosts() {
        let path = |path: &str| Some(Address::Path(path.into()));
        assert_eq!(Address::parse("unix:path=/run/a,guid=1"), path("/run/a"));
        assert_eq!(Address::parse("tcp:host=x;unix:guid=1,path=/a%20b"), path("/a b"));
        assert_eq!(Address::parse("unix:abstract=/tmp/x"), Some(Address::Abstract(b"/tmp/x".to_vec())));
        for bad in ["", "tcp:host=x", "unix:", "unix:path=%2", "unix:path=%zz"] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }
}
