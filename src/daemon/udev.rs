//! Discovery controllers that others have connected, while nvme-cli's udev rule is out of force (see the helper's `udev_rule`):
//! what it would have started for them when they say that they have news is started by us.

use std::path::Path;

use crate::core::Machine;
use crate::core::device::ControllerKind;
use crate::helper::udev_rule::SYSTEMD;
use crate::kernel::sysfs::Sysfs;
use crate::wire::uevent::{ControllerEvent, NvmeEvent, Uevent};

/// The unit that the rule would start now: a discovery controller that is not ours has news. `None` where there is
/// no systemd.
pub fn unit_for(uevent: &Uevent<'_>, machine: &Machine, sysfs: &Sysfs) -> Option<String> {
    use ControllerEvent::{DiscoveryLogChanged, Rediscover};
    let NvmeEvent::Controller { device, event: DiscoveryLogChanged | Rediscover } = uevent.nvme_event() else {
        return None;
    };
    let is_ours = machine.links().served_by(device).next().is_some();
    let is_discovery =
        || sysfs.controller(device).ok().flatten().is_some_and(|it| it.kind == ControllerKind::Discovery);
    (!is_ours && is_discovery() && Path::new(SYSTEMD).exists())
        .then(|| unit_name(device, uevent.get("NVME_HOST_TRADDR"), uevent.get("NVME_HOST_IFACE")))
}

/// Arguments with `=` between option and value, and tabs between arguments, escaped as in systemd.unit(5); but hyphens
/// are not, for the unit's own command undoes `\xNN` and nothing else.
fn unit_name(device: &str, host_traddr: Option<&str>, host_iface: Option<&str>) -> String {
    let given = |value: Option<&str>| value.filter(|value| !matches!(*value, "" | "none")).map(str::to_owned);
    let options =
        [("device", Some(device.to_owned())), ("host-traddr", given(host_traddr)), ("host-iface", given(host_iface))];
    let arguments: Vec<String> =
        options.into_iter().filter_map(|(option, value)| Some(format!("--{option}={}", value?))).collect();
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' | b'-' => char::from(byte).to_string(),
        other => format!("\\x{other:02x}"),
    };
    let instance: String = arguments.join("\t").bytes().map(escaped).collect();
    format!("nvmf-connect@{instance}.service")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_called_as_nvme_stas_calls_it() {
        assert_eq!(unit_name("nvme3", Some("none"), None), r"nvmf-connect@--device\x3dnvme3.service");
        assert_eq!(
            unit_name("nvme3", Some("192.0.2.1"), Some("eth0")),
            r"nvmf-connect@--device\x3dnvme3\x09--host-traddr\x3d192.0.2.1\x09--host-iface\x3deth0.service"
        );
        assert_eq!(
            unit_name("nvme3", Some("fe80::1%eth0"), Some("a/b")),
            r"nvmf-connect@--device\x3dnvme3\x09--host-traddr\x3dfe80::1\x25eth0\x09--host-iface\x3da\x2fb.service"
        );
    }
}
