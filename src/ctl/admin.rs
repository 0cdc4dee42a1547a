//! `stasadm`: who this host is, and whether the configuration is in order. Talks to no daemon.
//!
//! It changes `sys.conf` and the identity files it is told to write, and nothing else. What it finds about a configuration
//! file goes to standard output, a line each: that is what it was asked for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pico_args::Arguments;

use super::nbft::booted_as;
use super::print;
use crate::config::{
    self, EXCLUSIONS, Finding, Origin, Severity, check_symname, edit_identity, host_uuid, load_connector,
    load_exclusions, load_finder, load_identity, present_identity,
};
use crate::core::host::NQN_OF_UUID;
use crate::exit::Exit;
use crate::suggest;

#[derive(Debug, PartialEq, Eq)]
enum Command {
    HostNqn { file: Option<PathBuf>, if_missing: bool },
    HostId { file: Option<PathBuf>, if_missing: bool },
    SetSymname { file: Option<PathBuf>, name: String },
    ClearSymname,
    Check { stafd_conf: PathBuf, stacd_conf: PathBuf },
    Convert { file: PathBuf },
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Help,
    Version,
    Do { sys_conf: PathBuf, command: Command },
}

/// What a command has to say: to standard output, and whether it all went well.
struct Outcome {
    text: String,
    good: bool,
}

impl From<String> for Outcome {
    fn from(text: String) -> Outcome {
        Outcome { text, good: true }
    }
}

/// `stasadm`, with its arguments less its own name.
pub fn stasadm(args: Vec<OsString>) -> ExitCode {
    let outcome = match parse(args) {
        Ok(Request::Help) => Ok(HELP.to_owned().into()),
        Ok(Request::Version) => Ok(format!("stasadm {}\n", env!("CARGO_PKG_VERSION")).into()),
        Ok(Request::Do { sys_conf, command }) => perform(&sys_conf, command),
        Err(why) => {
            eprintln!("stasadm: {why}; `stasadm -h` tells how it is used");
            return Exit::Usage.into();
        }
    };
    match outcome {
        Ok(Outcome { text, good: true }) => print("stasadm", &text),
        Ok(Outcome { text, good: false }) => {
            print("stasadm", &text);
            Exit::Failed.into()
        }
        Err(why) => {
            eprintln!("stasadm: {why}");
            Exit::Failed.into()
        }
    }
}

fn parse(args: Vec<OsString>) -> Result<Request, String> {
    let mut args = Arguments::from_vec(args);
    if args.contains(["-h", "--help"]) {
        return Ok(Request::Help);
    }
    if args.contains(["-v", "--version"]) {
        return Ok(Request::Version);
    }
    let mut path = |names: &'static [&'static str]| -> Result<Option<PathBuf>, String> {
        names.iter().find_map(|name| args.opt_value_from_str(*name).transpose()).transpose().map_err(|e| e.to_string())
    };
    let or = |path: Option<PathBuf>, default: &str| path.unwrap_or_else(|| PathBuf::from(default));
    let sys_conf = or(path(&["-c", "--conf-file"])?, "/etc/stas/sys.conf");
    let file = path(&["-f", "--file"])?;
    let stafd_conf = path(&["--stafd-conf"])?;
    let stacd_conf = path(&["--stacd-conf"])?;
    let if_missing = args.contains("--if-missing");
    let mut words = Vec::new();
    for word in args.finish() {
        words.push(word.into_string().map_err(|word| format!("{} is not UTF-8", word.display()))?);
    }
    if let Some(option) = words.iter().find(|word| word.starts_with('-')) {
        return Err(format!("there is no option '{option}'{}", suggest::meant_in(option, HELP)));
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let takes_file = matches!(words.first(), Some(&("hostnqn" | "hostid" | "set-symname")));
    if file.is_some() && !takes_file {
        return Err("-f goes with hostnqn, hostid and set-symname".to_owned());
    }
    if (stafd_conf.is_some() || stacd_conf.is_some()) && words.first() != Some(&"check") {
        return Err("--stafd-conf and --stacd-conf go with check".to_owned());
    }
    if if_missing && !matches!(words.first(), Some(&("hostnqn" | "hostid"))) {
        return Err("--if-missing goes with hostnqn and hostid".to_owned());
    }
    let command = match words.as_slice() {
        ["hostnqn"] => Command::HostNqn { file, if_missing },
        ["hostid"] => Command::HostId { file, if_missing },
        ["set-symname", name] => Command::SetSymname { file, name: (*name).to_owned() },
        ["set-symname"] => return Err("set-symname needs a NAME".to_owned()),
        ["clear-symname"] => Command::ClearSymname,
        ["check"] => Command::Check {
            stafd_conf: or(stafd_conf, "/etc/stas/stafd.conf"),
            stacd_conf: or(stacd_conf, "/etc/stas/stacd.conf"),
        },
        ["convert", file] => Command::Convert { file: PathBuf::from(file) },
        ["convert"] => return Err("convert needs a FILE".to_owned()),
        [] => return Err("no command given".to_owned()),
        [known @ ("hostnqn" | "hostid" | "set-symname" | "clear-symname" | "check" | "convert"), ..] => {
            return Err(format!("too many words for {known}"));
        }
        [other, ..] => return Err(format!("there is no command '{other}'{}", suggest::meant_in(other, HELP))),
    };
    Ok(Request::Do { sys_conf, command })
}

fn perform(sys_conf: &Path, command: Command) -> Result<Outcome, String> {
    match command {
        Command::HostNqn { file, if_missing } => make_nqn(sys_conf, file.as_deref(), if_missing).map(Outcome::from),
        Command::HostId { file, if_missing } => make_id(sys_conf, file.as_deref(), if_missing).map(Outcome::from),
        Command::SetSymname { file, name } => {
            check_symname(&name)?;
            if file.is_some() && name.contains(char::is_whitespace) {
                return Err("a name with spaces cannot be kept in a file; leave out -f".to_owned());
            }
            save(sys_conf, "symname", &name, file.as_deref()).map(|()| String::new().into())
        }
        Command::ClearSymname => {
            edit_identity(sys_conf, "symname", None).map_err(as_root).map(|()| String::new().into())
        }
        Command::Check { stafd_conf, stacd_conf } => Ok(check(sys_conf, &stafd_conf, &stacd_conf)),
        Command::Convert { file } => {
            let (toml, findings) = config::to_toml(&file)?;
            findings.iter().for_each(|finding| eprintln!("stasadm: {finding}"));
            Ok(Outcome { text: toml, good: !findings.iter().any(|finding| finding.severity == Severity::Error) })
        }
    }
}

/// Both numbers of a host go together: the kernel refuses one NQN with two identifiers.
fn make_nqn(sys_conf: &Path, file: Option<&Path>, if_missing: bool) -> Result<String, String> {
    let (present_nqn, present_id) = present_identity(sys_conf).map_err(|findings| first(&findings))?;
    if let Some(nqn) = present_nqn.filter(|_| if_missing) {
        return Ok(nqn + "\n");
    }
    let nqn = match booted_as()? {
        Some(host) => host.nqn,
        None => format!("{NQN_OF_UUID}{}", machine_uuid(present_id.as_deref())?),
    };
    save(sys_conf, "nqn", &nqn, file)?;
    if present_id.is_some_and(|id| id_of(Some(&nqn)).is_ok_and(|of_nqn| of_nqn != id)) {
        eprintln!("stasadm: the host identifier is not the one of this NQN; `stasadm hostid` makes it so");
    }
    Ok(nqn + "\n")
}

/// `present`: the host's identifier so far.
fn machine_uuid(present: Option<&str>) -> Result<String, String> {
    match (host_uuid(Path::new("/"))?, present) {
        ((_, Origin::Random), Some(id)) => Ok(id.to_owned()),
        ((uuid, Origin::Random), None) => {
            eprintln!("stasadm: nothing identifies this machine, so the NQN is made by chance: keep it");
            Ok(uuid)
        }
        ((uuid, _), _) => Ok(uuid),
    }
}

fn make_id(sys_conf: &Path, file: Option<&Path>, if_missing: bool) -> Result<String, String> {
    let (present_nqn, present_id) = present_identity(sys_conf).map_err(|findings| first(&findings))?;
    if let Some(id) = present_id.filter(|_| if_missing) {
        return Ok(id + "\n");
    }
    let id = id_of(present_nqn.as_deref())?;
    save(sys_conf, "id", &id, file)?;
    Ok(id + "\n")
}

/// The identifier that goes with an NQN: what the firmware booted with under that name, before anything made of it.
fn id_of(nqn: Option<&str>) -> Result<String, String> {
    let of_firmware = booted_as()?.filter(|host| nqn.is_none_or(|nqn| nqn == host.nqn)).and_then(|host| host.id);
    let of_nqn = || config::check_id(nqn?.strip_prefix(NQN_OF_UUID)?).ok();
    match of_firmware.or_else(of_nqn) {
        Some(id) => Ok(id),
        None => Ok(host_uuid(Path::new("/"))?.0),
    }
}

fn first(findings: &[Finding]) -> String {
    findings.first().map(ToString::to_string).unwrap_or_default()
}

/// Into `sys.conf`; or into a file of its own, to which `sys.conf` then refers.
fn save(sys_conf: &Path, key: &str, value: &str, file: Option<&Path>) -> Result<(), String> {
    let Some(file) = file else {
        return edit_identity(sys_conf, key, Some(value)).map_err(as_root);
    };
    let file = std::path::absolute(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let reference = file.to_str().map(|path| format!("file://{path}"));
    let reference = reference.ok_or_else(|| format!("{} is not UTF-8", file.display()))?;
    let written = config::replace_file(&file, &format!("{value}\n"));
    written.map_err(|error| as_root(format!("{}: cannot be written: {error}", file.display())))?;
    edit_identity(sys_conf, key, Some(&reference)).map_err(as_root)
}

/// What most likely helps against an error.
fn as_root(why: String) -> String {
    let is_said = why.ends_with("; run this as root");
    if is_said || nix::unistd::geteuid().is_root() { why } else { format!("{why}; run this as root") }
}

/// Every finding of every file. A warning counts as a failure: part of a file is not used.
fn check(sys_conf: &Path, stafd_conf: &Path, stacd_conf: &Path) -> Outcome {
    fn all<S>(loaded: Result<config::Loaded<S>, Vec<Finding>>) -> Vec<Finding> {
        loaded.map_or_else(|findings| findings, |loaded| loaded.findings)
    }
    let (identity, finder, connector) = (load_identity(sys_conf), load_finder(stafd_conf), load_connector(stacd_conf));
    let commons =
        [finder.as_ref().ok().map(|it| &it.settings.common), connector.as_ref().ok().map(|it| &it.settings.common)];
    let host = identity.as_ref().ok().map(|loaded| &loaded.settings);
    let complaints = host.map(|host| config::host_ids(host, commons.into_iter().flatten()).1).unwrap_or_default();
    let at_odds = complaints.into_iter().map(|why| Finding::about(sys_conf, Severity::Error, why)).collect();
    let (_, of_exclusions) = load_exclusions(Path::new(EXCLUSIONS));
    let findings = [all(identity), all(finder), all(connector), at_odds, of_exclusions].concat();
    let line = |finding: &Finding| {
        let severity = match finding.severity {
            Severity::Info => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        format!("{severity}: {finding}\n")
    };
    // Both daemons may name the same further file.
    let mut lines: Vec<String> = Vec::new();
    for line in findings.iter().map(line) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    Outcome { text: lines.concat(), good: findings.iter().all(|finding| finding.severity == Severity::Info) }
}

pub const HELP: &str = "\
stasadm - name this host, and check the configuration of stafd and stacd

Usage: stasadm [-c FILE] COMMAND

Commands:
  hostnqn [-f FILE]  make the host NQN: the one that the firmware booted with
                     (NBFT), else from what identifies this machine: the UUID
                     in its firmware, else in its device tree, else its machine
                     id; where there is nothing, by chance
  hostid [-f FILE]   make the host identifier: the one that the firmware booted
                     with under the host NQN, else the UUID of that
  set-symname [-f FILE] NAME
                     set the symbolic name that discovery controllers show
  clear-symname      have no symbolic name
  check              read all configuration files as the daemons do and print
                     what is wrong, a line for each finding
  convert FILE       print a configuration file of nvme-stas as TOML

Options:
  -c, --conf-file FILE  the host's configuration (default /etc/stas/sys.conf)
  -f, --file FILE       keep the value in FILE; FILE is what gets written into
                        the configuration then
      --if-missing      only print what the host has; make it if it has none
      --stafd-conf FILE, --stacd-conf FILE
                        check these instead of those in /etc/stas
  -h, --help            this text
  -v, --version         the version

Comments, order and permissions of the configuration stay as they are. What
convert prints has the secrets of FILE in it: keep it as FILE is kept.

Examples:
  stasadm hostnqn --if-missing -f /etc/nvme/hostnqn
  stasadm hostid --if-missing -f /etc/nvme/hostid
  stasadm check && systemctl reload stas
  stasadm convert /etc/stas/stafd.conf

Exit status: 0 done, or nothing is wrong; 1 it failed, or check or convert
found an error (check: or a warning); 2 wrong usage.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Request, String> {
        parse(line.split_ascii_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn commands_of_nvme_stas_are_understood() {
        let file = Some(PathBuf::from("/x"));
        for (line, command) in [
            ("hostnqn", Command::HostNqn { file: None, if_missing: false }),
            ("hostid --file=/x", Command::HostId { file: file.clone(), if_missing: false }),
            ("set-symname -f /x name", Command::SetSymname { file, name: "name".into() }),
            ("clear-symname", Command::ClearSymname),
        ] {
            assert_eq!(parsed(line), Ok(Request::Do { sys_conf: "/etc/stas/sys.conf".into(), command }), "{line}");
        }
        let request = parsed("-c /c convert f").unwrap();
        assert_eq!(request, Request::Do { sys_conf: "/c".into(), command: Command::Convert { file: "f".into() } });
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "",
            "x",
            "hostnqn x",
            "-f /x clear-symname",
            "set-symname",
            "set-symname a b",
            "convert",
            "check --all",
            "hostid --stafd-conf x",
            "check --if-missing",
            "hostnqn -f",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn help_fits_a_terminal() {
        assert!(HELP.lines().all(|line| line.len() <= 80 && line.trim_end() == line));
    }
}
