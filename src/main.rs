//! `stas` answers to several names, as first word or as the name it is called by.

#[cfg(all(target_env = "gnu", target_feature = "crt-static", panic = "abort"))]
mod stand_ins;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use stas::ctl;
use stas::daemon::{self, options::Program};
use stas::exit::Exit;
use stas::suggest;

const HELP: &str = "Finds NVMe over Fabrics storage and attaches it.

Usage: stas NAME [OPTIONS], or a link called NAME

Names:
  run      both daemons in one process
  boot     attaches what this machine boots from, in an initramfs
  stafd    the finder: discovery controllers and their log pages
  stacd    the connector: I/O controllers
  stafctl  asks the finder
  stacctl  asks the connector
  tree     shows what is connected, from both
  nbft     shows the firmware's boot tables
  stasadm  names this host, and checks the configuration

Options:
  -h, --help     this text; each name has its own
  -v, --version  the version
";

/// Names that only count as the first word: links of such common names would be in the way of other programs.
const SUBCOMMANDS: [&str; 4] = ["run", "boot", "tree", "nbft"];

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let called = if args.is_empty() { OsString::new() } else { args.remove(0) };
    let called = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    if let Some(main) = find(&called).filter(|_| !SUBCOMMANDS.contains(&called.as_str())) {
        return main(args);
    }
    let first = args.first().and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    if let Some(main) = find(&first) {
        args.remove(0);
        return main(args);
    }
    match first.as_str() {
        "-v" | "--version" => println!("stas {}", env!("CARGO_PKG_VERSION")),
        "-h" | "--help" => print!("{HELP}"),
        "" => {
            eprint!("{HELP}");
            return Exit::Usage.into();
        }
        unknown => {
            eprintln!("stas: there is no {unknown:?}{}; `stas -h` lists all", suggest::meant_in(unknown, HELP));
            return Exit::Usage.into();
        }
    }
    Exit::Done.into()
}

fn find(name: &str) -> Option<fn(Vec<OsString>) -> ExitCode> {
    Some(match name {
        "run" => |args| daemon::main(Program::Run, args),
        "boot" => |args| daemon::main(Program::Boot, args),
        "stafd" => |args| daemon::main(Program::Stafd, args),
        "stacd" => |args| daemon::main(Program::Stacd, args),
        "stafctl" => ctl::stafctl,
        "stacctl" => ctl::stacctl,
        "tree" => ctl::tree,
        "nbft" => ctl::nbft,
        "stasadm" => ctl::stasadm,
        _ => return None,
    })
}
