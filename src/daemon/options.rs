//! The daemons' command lines.

use std::ffi::OsString;
use std::path::PathBuf;

use pico_args::Arguments;

use crate::bus::Role;
use crate::config::Paths;
use crate::core::Roles;
use crate::daemon::boot::{self, Boot};
use crate::suggest;

/// Which of the daemons was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Stafd,
    Stacd,
    /// `stas run`: both roles.
    Run,
    /// `stas boot`: both roles until the host can boot.
    Boot,
}

impl Program {
    pub fn name(self) -> &'static str {
        match self {
            Program::Stafd => "stafd",
            Program::Stacd => "stacd",
            Program::Run => "stas",
            Program::Boot => "stas boot",
        }
    }

    pub fn roles(self) -> Roles {
        Roles { finder: self != Program::Stacd, connector: self != Program::Stafd }
    }

    pub fn bus_roles(self) -> Vec<Role> {
        match self {
            Program::Stafd => vec![Role::Finder],
            Program::Stacd => vec![Role::Connector],
            Program::Run | Program::Boot => vec![Role::Finder, Role::Connector],
        }
    }

    /// The name of its directory below `/run`: what a boot leaves is for the daemon.
    pub fn directory(self) -> &'static str {
        if self == Program::Boot { Program::Run.name() } else { self.name() }
    }

    fn help(self) -> String {
        let (usage, does, conf) = match self {
            Program::Stafd => (
                "stafd [OPTIONS]",
                "Finds NVMe-oF discovery controllers and keeps their log pages.",
                "  -f, --conf-file FILE  configuration (default /etc/stas/stafd.conf)\n",
            ),
            Program::Stacd => (
                "stacd [OPTIONS]",
                "Connects NVMe-oF I/O controllers: those that stafd's discovery controllers list, and configured ones.",
                "  -f, --conf-file FILE  configuration (default /etc/stas/stacd.conf)\n",
            ),
            Program::Run => (
                "stas run [OPTIONS]",
                "stafd and stacd in one process; needs no D-Bus.",
                "      --stafd-conf FILE finder's configuration (default /etc/stas/stafd.conf)
      --stacd-conf FILE connector's configuration (default /etc/stas/stacd.conf)\n",
            ),
            Program::Boot => return boot::HELP.to_owned(),
        };
        format!(
            "{does}

Usage: {usage}

Options:
{conf}  -s, --syslog          log to syslog instead of standard error
      --tron            trace on: log debug messages
      --no-wait         exit when /dev/nvme-fabrics is missing instead of waiting for it
      --idl FILE        write the D-Bus introspection XML to FILE (- for standard output) and exit
  -v, --version         print the version and exit
  -h, --help            print this and exit

Signals: SIGHUP re-reads the configuration, SIGTERM and SIGINT stop. I/O connections stay when the daemon stops.
Exit status: 0 stopped as asked, 1 could not run, 2 wrong option.
"
        )
    }
}

/// What a daemon was told.
#[derive(Debug)]
pub struct Options {
    pub program: Program,
    pub finder_conf: PathBuf,
    pub connector_conf: PathBuf,
    pub sys_conf: PathBuf,
    pub syslog: bool,
    pub tron: bool,
    pub no_wait: bool,
    /// Of `stas boot`.
    pub boot: Option<Boot>,
}

impl Options {
    /// Where the configuration is.
    pub fn paths(&self) -> Paths {
        let roles = self.program.roles();
        Paths {
            finder: roles.finder.then(|| self.finder_conf.clone()),
            connector: roles.connector.then(|| self.connector_conf.clone()),
            sys: self.sys_conf.clone(),
        }
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    Serve(Options),
    /// Write the introspection XML to this file.
    Idl(PathBuf),
    /// Print this and exit.
    Print(String),
}

/// `Err` is a line for standard error.
pub fn parse(program: Program, args: Vec<OsString>) -> Result<Request, String> {
    let mut args = Arguments::from_vec(args);
    if args.contains(["-h", "--help"]) {
        return Ok(Request::Print(program.help()));
    }
    if args.contains(["-v", "--version"]) {
        return Ok(Request::Print(format!("{} {}\n", program.name(), env!("CARGO_PKG_VERSION"))));
    }
    let called = if program == Program::Run { "stas run" } else { program.name() };
    parse_rest(program, args).map_err(|error| format!("{called}: {error}; `{called} -h` tells how it is used"))
}

fn parse_rest(program: Program, mut args: Arguments) -> Result<Request, String> {
    let (finder_names, connector_names): (&[_], &[_]) = match program {
        Program::Stafd => (&["-f", "--conf-file"], &[]),
        Program::Stacd => (&[], &["-f", "--conf-file"]),
        Program::Run | Program::Boot => (&["--stafd-conf"], &["--stacd-conf"]),
    };
    let finder_conf = path(&mut args, finder_names, "/etc/stas/stafd.conf")?;
    let connector_conf = path(&mut args, connector_names, "/etc/stas/stacd.conf")?;
    let (mut idl, mut boot) = (PathBuf::new(), None);
    match program {
        Program::Boot => boot = Some(boot::parse(&mut args)?),
        Program::Stafd | Program::Stacd | Program::Run => idl = path(&mut args, &["--idl"], "")?,
    }
    let is_daemon = boot.is_none();
    let options = Options {
        program,
        finder_conf,
        connector_conf,
        sys_conf: PathBuf::from("/etc/stas/sys.conf"),
        syslog: is_daemon && args.contains(["-s", "--syslog"]),
        no_wait: is_daemon && args.contains("--no-wait"),
        tron: args.contains("--tron"),
        boot,
    };
    if let Some(unknown) = args.finish().first().map(|word| word.to_string_lossy()) {
        return Err(format!("unknown option '{unknown}'{}", suggest::meant_in(&unknown, &program.help())));
    }
    if !idl.as_os_str().is_empty() {
        return Ok(Request::Idl(idl));
    }
    Ok(Request::Serve(options))
}

fn path(args: &mut Arguments, names: &'static [&'static str], default: &str) -> Result<PathBuf, String> {
    for name in names {
        if let Some(path) = args.opt_value_from_str(*name).map_err(|error| error.to_string())? {
            return Ok(path);
        }
    }
    Ok(PathBuf::from(default))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::goal::Until;

    fn parse_words(program: Program, words: &str) -> Result<Request, String> {
        parse(program, words.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn each_program_has_its_own_configuration_options() {
        let Ok(Request::Serve(options)) = parse_words(Program::Stafd, "-f a.conf -s --tron") else { panic!() };
        assert_eq!(options.finder_conf, PathBuf::from("a.conf"));
        assert!(options.syslog && options.tron && !options.no_wait);
        let Ok(Request::Serve(options)) = parse_words(Program::Run, "--stacd-conf=c") else { panic!() };
        assert_eq!(options.connector_conf, PathBuf::from("c"));
        assert_eq!(options.finder_conf, PathBuf::from("/etc/stas/stafd.conf"));
        assert!(parse_words(Program::Run, "-f a.conf").is_err());
        assert!(parse_words(Program::Stacd, "--conf-file").is_err());
    }

    #[test]
    fn a_boot_has_an_end() {
        let Ok(Request::Serve(options)) = parse_words(Program::Boot, "--until nqn.a --nbft a --nbft b --deadline 7")
        else {
            panic!()
        };
        let boot = options.boot.unwrap();
        assert_eq!((boot.network, boot.tables.len(), boot.until), (false, 2, Until::Subsystem("nqn.a".into())));
        assert_eq!(boot.patience.unwrap().as_secs(), 7);
        for wrong in ["--until root", "--deadline soon", "--no-wait", "--idl -"] {
            assert!(parse_words(Program::Boot, wrong).is_err(), "{wrong}");
        }
        let Ok(Request::Serve(options)) = parse_words(Program::Boot, "--network --deadline 0") else { panic!() };
        let boot = options.boot.unwrap();
        assert_eq!((boot.network, boot.patience, boot.until), (true, None, Until::Any));
    }

    #[test]
    fn an_unknown_option_is_named() {
        assert!(parse_words(Program::Stacd, "--nonsense").unwrap_err().contains("--nonsense"));
        assert!(matches!(parse_words(Program::Stafd, "--idl -"), Ok(Request::Idl(path)) if path.as_os_str() == "-"));
        assert!(matches!(parse_words(Program::Stafd, "--bad -h"), Ok(Request::Print(_))));
    }
}
