//! The command line tools: `stafctl` and `stacctl`, which ask a running daemon; `stas tree`, which asks both; `stasadm` and
//! `stas nbft`, which ask none.
//!
//! Tables are for people, `-o json` is for programs and has the keys that D-Bus has. Talking to a daemon may block here,
//! for [`client::TIMEOUT`] at most. Nothing here touches devices.

mod admin;
pub mod client;
mod json;
mod nbft;
mod options;
mod show;
mod table;
mod tree;
mod watch;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

pub use admin::stasadm;
pub use nbft::nbft;

use crate::bus::Role;
use crate::exit::Exit;
use client::{Client, Failure, Places};
use options::{Command, Options, PageQuery, Request, TreeRequest};

/// `stafctl`, with its arguments less its own name.
pub fn stafctl(args: Vec<OsString>) -> ExitCode {
    run(Role::Finder, args)
}

/// `stacctl`, with its arguments less its own name.
pub fn stacctl(args: Vec<OsString>) -> ExitCode {
    run(Role::Connector, args)
}

/// `stas tree`, with its arguments less its own name.
pub fn tree(args: Vec<OsString>) -> ExitCode {
    let json = match options::parse_tree(args) {
        Ok(TreeRequest::Help) => return print("stas", options::TREE_HELP),
        Ok(TreeRequest::Show { json }) => json,
        Err(why) => {
            eprintln!("stas tree: {why}; `stas tree -h` tells how it is used");
            return Exit::Usage.into();
        }
    };
    match tree::collect() {
        Ok(tree) if json => print("stas", &tree.json()),
        Ok(tree) => {
            tree.unreachable().iter().for_each(|why| eprintln!("stas: {why}"));
            print("stas", &tree.text(tree::Lines::of_locale()))
        }
        Err(failure) => {
            eprintln!("stas: {failure}");
            Exit::Failed.into()
        }
    }
}

/// How the tool of a role is called.
fn tool(role: Role) -> &'static str {
    match role {
        Role::Finder => "stafctl",
        Role::Connector => "stacctl",
    }
}

fn run(role: Role, args: Vec<OsString>) -> ExitCode {
    let request = match options::parse(role, args) {
        Ok(request) => request,
        Err(why) => {
            eprintln!("{tool}: {why}; `{tool} -h` tells how it is used", tool = tool(role));
            return Exit::Usage.into();
        }
    };
    let text = match request {
        Request::Help => options::help(role).to_owned(),
        Request::Version => format!("{} {}\n", tool(role), env!("CARGO_PKG_VERSION")),
        Request::Ask(Options { json, command: Command::Watch }) => match watch::run(role, &Places::of(role), json) {
            Ok(()) => return Exit::Done.into(),
            Err(failure) => {
                eprintln!("{}: {failure}", tool(role));
                return Exit::Failed.into();
            }
        },
        Request::Ask(options) => match ask(role, &Places::of(role), &options) {
            Ok(text) => text,
            Err(failure) => {
                eprintln!("{}: {failure}", tool(role));
                return Exit::Failed.into();
            }
        },
    };
    print(tool(role), &text)
}

/// Writes to standard output.
fn print(tool: &str, text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Ok(()) => Exit::Done.into(),
        // Whoever read us had enough (`| head`).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Exit::Done.into(),
        Err(error) => {
            eprintln!("{tool}: cannot write: {error}");
            Exit::Failed.into()
        }
    }
}

/// Performs a command; what to print.
fn ask(role: Role, places: &Places, options: &Options) -> Result<String, Failure> {
    let mut client = Client::open(role, places)?;
    let json = options.json;
    match &options.command {
        // It has no end, so its text cannot be returned.
        Command::Watch => Ok(String::new()),
        Command::Tron(on) => client.set_tron(*on).map(|()| String::new()),
        Command::Status => {
            let info = client.process_info()?;
            if json { Ok(info + "\n") } else { show::status(&info) }
        }
        Command::List { detailed } => {
            // The table shows one detail: whether a controller is parked.
            let controllers = client.list_controllers(*detailed || !json)?;
            Ok(match (json, detailed) {
                (true, _) => json::objects(&controllers),
                (false, true) => show::controllers_in_detail(&controllers),
                (false, false) => show::controllers(&controllers),
            })
        }
        Command::Page(query) => {
            let id = find_controller(&mut client, query)?;
            let entries = client.log_pages(&id)?;
            Ok(if json { json::objects(&entries) } else { show::entries(&entries) })
        }
        Command::AllPages { detailed } => {
            let pages = client.all_log_pages(*detailed)?;
            if json { Ok(pages + "\n") } else { show::pages(&pages, *detailed) }
        }
    }
}

/// The one discovery controller that a query means: what it does not say may be anything.
fn find_controller(client: &mut Client, query: &PageQuery) -> Result<crate::bus::ControllerId, Failure> {
    let known = client.list_controllers(false)?;
    let mut matching = known.iter().map(show::controller_id).filter(|id| query.matches(id));
    match (matching.next(), matching.count()) {
        (Some(id), 0) => Ok(id),
        (None, _) => {
            Err(Failure::Refused("no such discovery controller; `stafctl ls` shows those that there are".to_owned()))
        }
        (Some(_), others) => Err(Failure::Refused(format!(
            "{} discovery controllers match; tell them apart with -n, -f, -w or -q",
            others.saturating_add(1)
        ))),
    }
}
