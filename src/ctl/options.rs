//! The command lines of `stafctl` and `stacctl`.

use std::ffi::OsString;

use pico_args::Arguments;

use crate::bus::{ControllerId, Role};
use crate::core::tid::{Transport, canonical_address};
use crate::suggest;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    Help,
    Version,
    Ask(Options),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    pub json: bool,
    pub command: Command,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// `tron`, `troff`.
    Tron(bool),
    Status,
    /// `ls`.
    List {
        detailed: bool,
    },
    /// `dlp`.
    Page(PageQuery),
    /// `adlp`.
    AllPages {
        detailed: bool,
    },
    Watch,
}

/// Which discovery controller's log page; `None` matches anything.
#[derive(Debug, PartialEq, Eq)]
pub struct PageQuery {
    pub transport: Transport,
    pub traddr: String,
    pub trsvcid: Option<String>,
    pub host_traddr: Option<String>,
    pub host_iface: Option<String>,
    pub host_nqn: Option<String>,
    pub nqn: Option<String>,
}

impl PageQuery {
    pub fn matches(&self, id: &ControllerId) -> bool {
        let address = |text: &str| canonical_address(self.transport, text);
        let same = |wanted: &Option<String>, actual: &str| wanted.as_deref().is_none_or(|wanted| wanted == actual);
        Transport::parse(&id.transport) == Some(self.transport)
            && address(&self.traddr) == address(&id.traddr)
            && self.host_traddr.as_deref().is_none_or(|wanted| address(wanted) == address(&id.host_traddr))
            && same(&self.trsvcid, &id.trsvcid)
            && same(&self.host_iface, &id.host_iface)
            && same(&self.host_nqn, &id.host_nqn)
            && same(&self.nqn, &id.subsysnqn)
    }
}

/// Reads a command line, less the program's name.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn parse(role: Role, args: Vec<OsString>) -> Result<Request, String> {
    let mut args = Arguments::from_vec(args);
    if args.contains(["-h", "--help"]) {
        return Ok(Request::Help);
    }
    if args.contains(["-v", "--version"]) {
        return Ok(Request::Version);
    }
    let json = wants_json(&mut args)?;
    let word = args.subcommand().map_err(|error| error.to_string())?;
    let command = match (word.as_deref(), role) {
        (Some("tron"), _) => Command::Tron(true),
        (Some("troff"), _) => Command::Tron(false),
        (Some("status"), _) => Command::Status,
        (Some("watch"), _) => Command::Watch,
        (Some("ls"), _) => Command::List { detailed: args.contains(["-d", "--detailed"]) },
        (Some("dlp"), Role::Finder) => Command::Page(page_query(&mut args)?),
        (Some("adlp"), Role::Finder) => Command::AllPages { detailed: args.contains(["-d", "--detailed"]) },
        (Some(other), _) => {
            return Err(format!("there is no command '{other}'{}", suggest::meant_in(other, help(role))));
        }
        (None, _) => return Err("no command given".to_owned()),
    };
    nothing_more(args, help(role))?;
    Ok(Request::Ask(Options { json, command }))
}

/// What the command line of `stas tree` asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum TreeRequest {
    Help,
    Show { json: bool },
}

/// Reads the command line of `stas tree`, less its name.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn parse_tree(args: Vec<OsString>) -> Result<TreeRequest, String> {
    let mut args = Arguments::from_vec(args);
    if args.contains(["-h", "--help"]) {
        return Ok(TreeRequest::Help);
    }
    let json = wants_json(&mut args)?;
    nothing_more(args, TREE_HELP)?;
    Ok(TreeRequest::Show { json })
}

pub fn wants_json(args: &mut Arguments) -> Result<bool, String> {
    match optional(args, ["-o", "--output"])?.as_deref() {
        None => Ok(false),
        Some("json") => Ok(true),
        Some(other) => Err(format!("output format '{other}' is not known; json is")),
    }
}

/// `help` is for guessing what is meant.
pub fn nothing_more(args: Arguments, help: &str) -> Result<(), String> {
    match args.finish().first().map(|extra| extra.to_string_lossy()) {
        None => Ok(()),
        Some(extra) => Err(format!("'{extra}' is not understood here{}", suggest::meant_in(&extra, help))),
    }
}

fn page_query(args: &mut Arguments) -> Result<PageQuery, String> {
    let transport = optional(args, ["-t", "--transport"])?.unwrap_or_else(|| "tcp".to_owned());
    Ok(PageQuery {
        transport: Transport::parse(&transport)
            .ok_or_else(|| format!("transport '{transport}' is none of tcp, rdma, fc, loop"))?,
        traddr: optional(args, ["-a", "--traddr"])?.ok_or("dlp needs -a TRADDR")?,
        trsvcid: optional(args, ["-s", "--trsvcid"])?,
        host_traddr: optional(args, ["-w", "--host-traddr"])?,
        host_iface: optional(args, ["-f", "--host-iface"])?,
        host_nqn: optional(args, ["-q", "--host-nqn"])?,
        nqn: optional(args, ["-n", "--nqn"])?,
    })
}

fn optional(args: &mut Arguments, names: [&'static str; 2]) -> Result<Option<String>, String> {
    args.opt_value_from_str(names).map_err(|error| error.to_string())
}

pub fn help(role: Role) -> &'static str {
    match role {
        Role::Finder => STAFCTL_HELP,
        Role::Connector => STACCTL_HELP,
    }
}

const STAFCTL_HELP: &str = "\
stafctl - ask stafd, the finder of NVMe-oF discovery controllers

Usage: stafctl [-o json] COMMAND

Commands:
  ls [-d]     the discovery controllers; -d: everything known of each
  adlp [-d]   all discovery log pages; -d: everything known of the controllers
  dlp -a TRADDR [-s TRSVCID] [-t TRANSPORT] [-n NQN] [-f IFACE] [-w ADDRESS]
      [-q NQN]
              the log page of one discovery controller
  status      the daemon itself
  watch       a line for each change as it happens, until interrupted
  tron        trace on: debug messages in the log (root only)
  troff       trace off (root only)

Options of dlp; what is not given may be anything:
  -a, --traddr ADDRESS      address of the discovery controller
  -s, --trsvcid SERVICE     its port
  -t, --transport NAME      tcp (default), rdma, fc, loop
  -n, --nqn NQN             its subsystem NQN
  -f, --host-iface NAME     interface of this host
  -w, --host-traddr ADDRESS address of this host
  -q, --host-nqn NQN        NQN of this host

Options:
  -o, --output json   print JSON, with the keys of the D-Bus interface
  -d, --detailed      show more
  -h, --help          this text
  -v, --version       the version

Examples:
  stafctl ls
  stafctl dlp -a 192.0.2.10 -s 8009
  stafctl -o json adlp | jq -r '.[].\"log-pages\"[].subnqn'

Lines of watch: \"up\" and \"down\" (a controller is connected, or is not any more
or no longer wanted), \"log page\" (it changed), \"removed\" (a discovery
controller left the list), \"tron\", \"daemon\" (stafd came or went).

Exit status: 0 done, 1 stafd cannot be reached or refused, 2 wrong usage.
stafd is looked for on the system bus, then at /run/stas/control and
/run/stafd/control.
";

const STACCTL_HELP: &str = "\
stacctl - ask stacd, the connector of NVMe-oF I/O controllers

Usage: stacctl [-o json] COMMAND

Commands:
  ls [-d]     the I/O controllers; -d: everything known of each
  status      the daemon itself
  watch       a line for each change as it happens, until interrupted
  tron        trace on: debug messages in the log (root only)
  troff       trace off (root only)

Options:
  -o, --output json   print JSON, with the keys of the D-Bus interface
  -d, --detailed      show more
  -h, --help          this text
  -v, --version       the version

Examples:
  stacctl ls
  stacctl watch
  stacctl -o json ls -d | jq -r '.[] | select(.connected == \"False\").traddr'

Lines of watch: \"up\" and \"down\" (a controller is connected, or is not any more
or no longer wanted), \"tron\", \"daemon\" (stacd came or went).

Exit status: 0 done, 1 stacd cannot be reached or refused, 2 wrong usage.
stacd is looked for on the system bus, then at /run/stas/control and
/run/stacd/control.
";

pub const TREE_HELP: &str = "\
stas tree - this host's storage connections in one screen

Usage: stas tree [-o json]

Shows the host, below it its discovery controllers (state, origin, log page
entries), below them the subsystems that they list with their disks, and below
those the paths with their state. I/O controllers that no discovery controller
lists come last. A path is \"not wanted\" when an exclusion or the limit of
attempts keeps the connector from it.

Options:
  -o, --output json   print JSON
  -h, --help          this text

Examples:
  stas tree
  stas tree -o json | jq '.\"discovery-controllers\"[].subsystems[].paths[].state'

Exit status: 0 done, also when one of the daemons is away; 1 neither stafd nor
stacd can be reached; 2 wrong usage.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(role: Role, line: &str) -> Result<Request, String> {
        parse(role, line.split_ascii_whitespace().map(OsString::from).collect())
    }

    fn command(line: &str) -> Command {
        match parsed(Role::Finder, line) {
            Ok(Request::Ask(options)) => options.command,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands_of_nvme_stas_are_understood() {
        assert_eq!(command("tron"), Command::Tron(true));
        assert_eq!(command("troff"), Command::Tron(false));
        assert_eq!(command("ls --detailed"), Command::List { detailed: true });
        assert_eq!(command("watch"), Command::Watch);
        assert_eq!(command("adlp -d"), Command::AllPages { detailed: true });
        let Command::Page(query) =
            command("dlp -t rdma -a ::ffff:192.0.2.1 -s 4420 -f eth0 -q nqn.h -n nqn.d -w 192.0.2.9")
        else {
            panic!()
        };
        let id = ControllerId {
            transport: "rdma".into(),
            traddr: "192.0.2.1".into(),
            trsvcid: "4420".into(),
            subsysnqn: "nqn.d".into(),
            host_traddr: "192.0.2.9".into(),
            host_iface: "eth0".into(),
            host_nqn: "nqn.h".into(),
        };
        assert!(query.matches(&id));
        assert!(!query.matches(&ControllerId { host_iface: "eth1".into(), ..id }));
    }

    #[test]
    fn json_may_come_before_and_after() {
        for line in ["-o json ls", "ls -o json", "ls --output json"] {
            assert!(matches!(parsed(Role::Connector, line), Ok(Request::Ask(Options { json: true, .. }))), "{line}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["", "-d ls", "dlp", "dlp -a", "dlp -a x -t pcie", "ls x", "ls --all", "-o xml ls", "LS"] {
            assert!(parsed(Role::Finder, line).is_err(), "{line}");
        }
        assert!(parsed(Role::Connector, "adlp").is_err());
    }

    #[test]
    fn help_fits_a_terminal() {
        for text in [STAFCTL_HELP, STACCTL_HELP, TREE_HELP] {
            assert!(text.lines().all(|line| line.len() <= 80 && line.trim_end() == line));
        }
    }
}
