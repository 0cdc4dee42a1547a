//! nvme-cli's udev rule, by which it connects whatever a discovery controller lists as soon as that says that it has
//! news: with our discovery controllers it would be in our way, and choose another interface than we do.
//!
//! While we run, and udev does, a file of the same name in `/run` takes the rule's place, without the part that is
//! about what we do (udev(7): of files of one name, the one in `/run` counts more than that in `/usr/lib`). As
//! nvme-stas does it. udevd looks for changed rules by itself, before it handles an event, at most every three seconds.
//! Who may write such a file rules the host, so it is always this one, word for word.
//!
//! Since version 3, nvme-cli asks the registry of the host whose a discovery controller is: then its rule may stay.

use std::fs;
use std::io;
use std::path::Path;

const DIRECTORY: &str = "/run/udev/rules.d";
const RULE: &str = "/run/udev/rules.d/70-nvmf-autoconnect.rules";

/// Where udevd is asked from other processes: there as long as it runs.
const UDEVD: &str = "/run/udev/control";

/// Comes with the libnvme that keeps the registry.
const REGISTRY_RULES: [&str; 2] =
    ["/usr/lib/udev/rules.d/70-nvmf-registry.rules", "/lib/udev/rules.d/70-nvmf-registry.rules"];

/// There where systemd runs (sd_booted(3)).
pub const SYSTEMD: &str = "/run/systemd/system";

/// By this we know our file again.
const OURS: &str = "# Made by stas, in place of the rule of nvme-cli while it runs.\n";

/// The part of the rule that is about Fibre Channel: the transport finds those discovery controllers, and nobody else
/// asks it.
const FIBRE_CHANNEL: &str = r#"ACTION=="change", SUBSYSTEM=="fc", ENV{FC_EVENT}=="nvmediscovery", \
  ENV{NVMEFC_HOST_TRADDR}=="*", ENV{NVMEFC_TRADDR}=="*", \
  RUN+="/usr/bin/systemctl --no-block restart nvmf-connect@--device\x3dnone\x09--transport\x3dfc\x09--traddr\x3d$env{NVMEFC_TRADDR}\x09--trsvcid\x3dnone\x09--host-traddr\x3d$env{NVMEFC_HOST_TRADDR}.service"
"#;

/// Puts the rule out of force, unless there is nothing to override, or in force again. Whether it is out of force now, and
/// what went wrong. A file that an earlier run left is taken over.
pub fn set_aside(on: bool) -> (bool, Option<String>) {
    let is_needed = Path::new(UDEVD).exists() && !REGISTRY_RULES.iter().any(|rule| Path::new(rule).exists());
    if !on || !is_needed {
        return restore();
    }
    if Path::new(RULE).exists() && !is_ours() {
        // Somebody else's, which stays.
        return (false, None);
    }
    match write() {
        Ok(()) => (true, None),
        Err(error) => {
            let complaint = format!("{RULE}: cannot be written: {error}; nvme-cli may connect what is ours to connect");
            (false, Some(complaint))
        }
    }
}

fn restore() -> (bool, Option<String>) {
    if !is_ours() {
        return (false, None);
    }
    let complaint =
        |error| format!("{RULE}: cannot be removed: {error}; nvme-cli's own rule stays out of force until it is");
    let removed = fs::remove_file(RULE).map_err(complaint);
    (removed.is_err(), removed.err())
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
