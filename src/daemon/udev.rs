//! nvme-cli's udev rule, by which it connects whatever a discovery controller lists as soon as that says that it has
//! news: with our discovery controllers it would be in our way, and choose another interface than we do.
//!
//! While we run, and udev does, a file of the same name in `/run` takes the rule's place, without the part that is
//! about what we do (udev(7): of files of one name, the one in `/run` counts more than that in `/usr/lib`). As
//! nvme-stas does it. udevd looks for changed rules by itself, before it handles an event, at most every three seconds.
//!
//! Discovery controllers that others have connected are served by that rule no longer, so we start for them what it
//! would have started. Since version 3, nvme-cli asks the registry of the host whose a discovery controller is: then
//! its rule may stay.

use std::fs;
use std::io;
use std::path::Path;

use crate::core::Machine;
use crate::core::device::ControllerKind;
use crate::kernel::sysfs::Sysfs;
use crate::wire::uevent::{ControllerEvent, NvmeEvent, Uevent};

const DIRECTORY: &str = "/run/udev/rules.d";
const RULE: &str = "/run/udev/rules.d/70-nvmf-autoconnect.rules";

/// Where udevd is asked from other processes: there as long as it runs.
const UDEVD: &str = "/run/udev/control";

/// Comes with the libnvme that keeps the registry.
const REGISTRY_RULES: [&str; 2] =
    ["/usr/lib/udev/rules.d/70-nvmf-registry.rules", "/lib/udev/rules.d/70-nvmf-registry.rules"];

const SYSTEMD: &str = "/run/systemd/system";

/// By this we know our file again.
const OURS: &str = "# Made by stas, in place of the rule of nvme-cli while it runs.\n";

/// The part of the rule that is about Fibre Channel: the transport finds those discovery controllers, and nobody else
/// asks it.
const FIBRE_CHANNEL: &str = r#"ACTION=="change", SUBSYSTEM=="fc", ENV{FC_EVENT}=="nvmediscovery", \
  ENV{NVMEFC_HOST_TRADDR}=="*", ENV{NVMEFC_TRADDR}=="*", \
  RUN+="/usr/bin/systemctl --no-block restart nvmf-connect@--device\x3dnone\x09--transport\x3dfc\x09--traddr\x3d$env{NVMEFC_TRADDR}\x09--trsvcid\x3dnone\x09--host-traddr\x3d$env{NVMEFC_HOST_TRADDR}.service"
"#;

/// The rule of nvme-cli is out of force as long as this exists.
#[derive(Debug)]
pub struct Override {
    _only_here: (),
}

impl Override {
    /// `None` where there is nothing to override, or it does not work. One that an earlier run left is taken over.
    pub fn begin() -> Option<Override> {
        if !Path::new(UDEVD).exists() || REGISTRY_RULES.iter().any(|rule| Path::new(rule).exists()) {
            // What an earlier run left is not needed any more.
            drop(is_ours().then_some(Override { _only_here: () }));
            return None;
        }
        if Path::new(RULE).exists() && !is_ours() {
            log::debug!("{RULE}: is somebody else's, and stays");
            return None;
        }
        match write() {
            Ok(()) => Some(Override { _only_here: () }),
            Err(error) => {
                log::warn!("{RULE}: cannot be written: {error}; nvme-cli may connect what is ours to connect");
                None
            }
        }
    }

    /// The unit that the rule would start now: a discovery controller that is not ours has news. `None` where there is
    /// no systemd.
    pub fn unit_for(&self, uevent: &Uevent<'_>, machine: &Machine, sysfs: &Sysfs) -> Option<String> {
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
}

impl Drop for Override {
    fn drop(&mut self) {
        if is_ours()
            && let Err(error) = fs::remove_file(RULE)
        {
            log::warn!("{RULE}: cannot be removed: {error}; nvme-cli's own rule stays out of force until it is");
        }
    }
}

fn is_ours() -> bool {
    fs::read_to_string(RULE).is_ok_and(|text| text.starts_with(OURS))
}

fn write() -> io::Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    let rule = if Path::new(SYSTEMD).exists() { FIBRE_CHANNEL } else { "" };
    // udevd reads only what ends in .rules.
    let made = Path::new(DIRECTORY).join(".70-nvmf-autoconnect.rules.new");
    fs::write(&made, format!("{OURS}{rule}"))?;
    fs::rename(made, RULE)
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
