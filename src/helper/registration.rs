//! What this host says of itself when it registers with a discovery controller: what the connection really uses, as sysfs
//! shows it at that moment.

use std::net::IpAddr;

use nix::sys::utsname::uname;

use super::message::Failure;
use crate::core::device::Device;
use crate::core::tid::{NQN_MAX, Transport, parse_ip};
use crate::kernel::admin;
use crate::wire::dim::{Registration, SYMNAME_MAX};
use crate::wire::discovery::{
    ADRFAM_FC, ADRFAM_IPV4, ADRFAM_IPV6, ADRFAM_LOOP, TRTYPE_FC, TRTYPE_LOOP, TRTYPE_RDMA, TRTYPE_TCP,
};

/// Registers over the connection of `device`. `host_id` counts where sysfs does not show it.
pub fn register(
    file: impl std::os::fd::AsFd,
    device: &Device,
    host_id: &str,
    symbolic_name: &str,
) -> Result<(), Failure> {
    let shown = Some(device.host_id.as_str()).filter(|id| !id.is_empty());
    let host_id = parse_host_id(shown.unwrap_or(host_id))
        .ok_or_else(|| Failure::BadField("the host ID is not a UUID".to_owned()))?;
    if symbolic_name.len() > SYMNAME_MAX || symbolic_name.chars().any(char::is_control) {
        return Err(Failure::BadField("the symbolic name cannot be sent".to_owned()));
    }
    if device.host_nqn.is_empty() || device.host_nqn.len() > NQN_MAX {
        return Err(Failure::BadField("the kernel does not show the host NQN".to_owned()));
    }
    let uname = uname()?;
    let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let (traddr, adrfam) = own_address(device);
    let registration = Registration {
        host_nqn: &device.host_nqn,
        host_id,
        symbolic_name,
        name: &text(uname.nodename()),
        version: &format!("{} {}", text(uname.sysname()), text(uname.release())),
        trtype: match device.transport {
            Transport::Tcp => TRTYPE_TCP,
            Transport::Rdma => TRTYPE_RDMA,
            Transport::Fc => TRTYPE_FC,
            Transport::Loop => TRTYPE_LOOP,
        },
        adrfam,
        traddr: &traddr,
    };
    admin::register(file, registration)
}

/// The address that the connection comes from, and its family. Empty where the kernel does not tell: then the controller
/// takes what it sees, whose family is that of its own address.
fn own_address(device: &Device) -> (String, u8) {
    let own = [&device.src_addr, &device.host_traddr].into_iter().find(|address| !address.is_empty());
    let own = own.cloned().unwrap_or_default();
    match device.transport {
        Transport::Fc => (own, ADRFAM_FC),
        Transport::Loop => (String::new(), ADRFAM_LOOP),
        Transport::Tcp | Transport::Rdma => {
            // The zone means something on this host only.
            let ip = |address: &str| parse_ip(address).map(|(ip, _)| ip);
            let adrfam = match ip(&own).or_else(|| ip(&device.traddr)) {
                Some(IpAddr::V6(_)) => ADRFAM_IPV6,
                _ => ADRFAM_IPV4,
            };
            (ip(&own).map(|ip| ip.to_string()).unwrap_or_default(), adrfam)
        }
    }
}

/// A UUID as 16 bytes, in the order in which its digits are written (kernel: `uuid_parse`).
fn parse_host_id(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::device::ControllerKind;

    fn device(transport: Transport, traddr: &str, src_addr: &str, host_traddr: &str) -> Device {
        Device {
            kind: ControllerKind::Discovery,
            state: "live".into(),
            traddr: traddr.into(),
            trsvcid: "8009".into(),
            subsysnqn: "nqn.cdc".into(),
            host_traddr: host_traddr.into(),
            src_addr: src_addr.into(),
            host_nqn: "nqn.h".into(),
            dctype: "cdc".into(),
            cntrltype: "discovery".into(),
            ..Device::new("nvme0", transport)
        }
    }

    #[test]
    fn the_address_registered_is_the_one_in_use() {
        use Transport::{Fc, Loop, Rdma, Tcp};
        let own =
            |transport, traddr, src_addr, host_traddr| own_address(&device(transport, traddr, src_addr, host_traddr));
        assert_eq!(own(Tcp, "192.0.2.1", "192.0.2.9", "192.0.2.8"), ("192.0.2.9".into(), ADRFAM_IPV4));
        assert_eq!(own(Tcp, "fe80::1%eth0", "fe80::9%eth0", ""), ("fe80::9".into(), ADRFAM_IPV6));
        assert_eq!(own(Tcp, "2001:db8::1", "", ""), (String::new(), ADRFAM_IPV6));
        assert_eq!(own(Rdma, "192.0.2.1", "", "192.0.2.8"), ("192.0.2.8".into(), ADRFAM_IPV4));
        assert_eq!(own(Fc, "nn-0x1:pn-0x2", "", "nn-0x3:pn-0x4"), ("nn-0x3:pn-0x4".into(), ADRFAM_FC));
        assert_eq!(own(Loop, "", "", ""), (String::new(), ADRFAM_LOOP));
    }

    #[test]
    fn a_host_id_is_a_uuid() {
        let id = parse_host_id("f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f").unwrap();
        assert_eq!((id[0], id[1], id[15]), (0xf0, 0xe1, 0x1f));
        for wrong in ["", "f0e1d2c3", "+0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f", "f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f00"]
        {
            assert_eq!(parse_host_id(wrong), None, "{wrong}");
        }
    }
}
