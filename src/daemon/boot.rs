//! `stas boot`: its command line. It is `stas run` without a bus, with the firmware's tables before all, and with an end.

use std::path::PathBuf;
use std::time::Duration;

use pico_args::Arguments;

use crate::daemon::goal::Until;

/// Longer than switches and routers take to begin forwarding after a power failure.
const PATIENCE: u64 = 300;

/// What `stas boot` was told besides what a daemon is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    pub until: Until,
    /// Set the interfaces up as the firmware had them.
    pub network: bool,
    /// How long to wait; `None`: for ever.
    pub patience: Option<Duration>,
    /// Copies of tables to use in the place of this machine's.
    pub tables: Vec<PathBuf>,
    /// Log to the kernel's log.
    pub kmsg: bool,
}

/// Takes the options that are its own.
pub fn parse(args: &mut Arguments) -> Result<Boot, String> {
    let until = text(args, "--until")?.map_or(Ok(Until::Any), |text| Until::parse(&text))?;
    let seconds = text(args, "--deadline")?.map_or(Ok(PATIENCE), |text| {
        text.parse().map_err(|_| format!("--deadline: {text:?} is not a number of seconds"))
    })?;
    Ok(Boot {
        until,
        network: args.contains("--network"),
        patience: (seconds > 0).then(|| Duration::from_secs(seconds)),
        tables: args.values_from_str("--nbft").map_err(|error| error.to_string())?,
        kmsg: args.contains("--kmsg"),
    })
}

fn text(args: &mut Arguments, option: &'static str) -> Result<Option<String>, String> {
    args.opt_value_from_str(option).map_err(|error| error.to_string())
}

pub const HELP: &str = "\
stas boot - attaches what this machine boots from, in an initramfs

Usage: stas boot [--network] [--until WHAT] [--deadline SECONDS] [OPTIONS]

Connects what the firmware's boot tables (NBFT) and the configuration ask for,
each path again and again until it works, and ends as soon as what is waited for
is there; later paths are left to the daemon (stas run, stafd, stacd), which
takes over all connections. Needs no D-Bus, udev, systemd, Avahi or shell, but
the kernel modules nvme-tcp and those of the network cards, loaded before or
meanwhile.

Interfaces are found by MAC address and VLAN. They have to be set up by somebody
else; how far they are is seen as it happens. With --network that is done here,
with what the table says: VLAN, address (that of a DHCP lease too, as it was),
gateway. A table has no MTU: the interface's own stays.

This host is who the table says. sys.conf may give it a key.

Options:
      --network           set the network interfaces of the tables up
      --until WHAT        what to wait for: a block device (/dev/...), an NQN, a
                          namespace by UUID, NGUID or EUI-64; UUID=..., LABEL=...
                          and the like of a file system, where udev runs. Default:
                          any disk of a subsystem in the tables
      --deadline SECONDS  how long to wait (default 300; 0: for ever)
      --nbft FILE         take this copy of a table, and not this machine's; may
                          be given again
      --stafd-conf FILE   discovery controllers (default /etc/stas/stafd.conf)
      --stacd-conf FILE   I/O controllers (default /etc/stas/stacd.conf)
      --kmsg              log to the kernel's log, and not to standard error
      --tron              trace on: log debug messages
  -v, --version           print the version and exit
  -h, --help              print this and exit

Examples:
  stas boot --network
  stas boot --until UUID=3c5f5b9e-2f3c-4b3e-9d38-0d6f3c2a5b11 --deadline 120

Exit status: 0 what is waited for is there; 1 could not run, or was stopped;
2 wrong usage; 3 nothing to connect: no table, and nothing configured; 4 the
deadline has passed, and the log says what is missing.
";
