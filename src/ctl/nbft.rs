//! `stas nbft`: the boot tables that the firmware left, and what they ask for, from the kernel's copies or from files.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pico_args::Arguments;
use serde::Serialize;

use super::options::{nothing_more, wants_json};
use super::print;
use super::table::{Table as Columns, printable};
use crate::core::nbft::{Discovery, Host, Interface, Nbft, Origin, Primary, Security, Subsystem, Table};
use crate::exit::Exit;
use crate::kernel::nbft::{DIRECTORY, read, read_all};
use crate::wire;

/// All that was found.
#[derive(Debug, Default, Serialize)]
struct Found {
    #[serde(flatten)]
    nbft: Nbft,
    damaged: Vec<Damaged>,
}

/// A table that cannot be used.
#[derive(Debug, Serialize)]
struct Damaged {
    name: String,
    why: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Help,
    Show { json: bool, files: Vec<PathBuf> },
}

/// `stas nbft`, with its arguments less its own name.
pub fn nbft(args: Vec<OsString>) -> ExitCode {
    let (json, files) = match parse(args) {
        Ok(Request::Help) => return print("stas", HELP),
        Ok(Request::Show { json, files }) => (json, files),
        Err(why) => {
            eprintln!("stas nbft: {why}; `stas nbft -h` tells how it is used");
            return Exit::Usage.into();
        }
    };
    let tables = if files.is_empty() {
        read_all(Path::new(DIRECTORY))
    } else {
        Ok(files.iter().map(|file| (file.display().to_string(), read(file))).collect())
    };
    let found = match tables {
        Ok(tables) => found(tables),
        Err(error) => {
            eprintln!("stas nbft: {DIRECTORY} cannot be read: {error}");
            return Exit::Failed.into();
        }
    };
    found.damaged.iter().for_each(|table| eprintln!("stas nbft: {}: {}", printable(&table.name), table.why));
    let text = match json {
        true => serde_json::to_string(&found).unwrap_or_default() + "\n",
        false => found.nbft.tables.iter().map(table_text).collect::<Vec<_>>().join("\n"),
    };
    let printed = print("stas", &text);
    if found.nbft.tables.is_empty() && found.damaged.is_empty() {
        eprintln!("stas nbft: no table in {DIRECTORY}: this machine's firmware did not boot it over NVMe/TCP");
        return Exit::Nothing.into();
    }
    if found.damaged.is_empty() { printed } else { Exit::Failed.into() }
}

fn parse(args: Vec<OsString>) -> Result<Request, String> {
    let mut args = Arguments::from_vec(args);
    if args.contains(["-h", "--help"]) {
        return Ok(Request::Help);
    }
    let json = wants_json(&mut args)?;
    let files = args.values_from_str(["-f", "--file"]).map_err(|error| error.to_string())?;
    nothing_more(args, HELP)?;
    Ok(Request::Show { json, files })
}

fn found(tables: Vec<(String, io::Result<Vec<u8>>)>) -> Found {
    let mut found = Found::default();
    for (name, bytes) in tables {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                found.damaged.push(Damaged { name, why: unreadable(&error) });
                continue;
            }
        };
        match wire::nbft::Table::new(&bytes) {
            Ok(table) => found.nbft.add(&name, &table),
            Err(error) => found.damaged.push(Damaged { name, why: format!("damaged, ignored: {error}") }),
        }
    }
    found
}

/// Who this host was to the storage that the firmware booted it from; `None` if it booted from none, or no usable table says.
///
/// # Errors
/// A table is there and cannot be read: root would get another answer.
pub(super) fn booted_as() -> Result<Option<Host>, String> {
    let tables = read_all(Path::new(DIRECTORY)).map_err(|error| format!("{DIRECTORY} cannot be read: {error}"))?;
    for (name, bytes) in &tables {
        if let Err(error) = bytes {
            return Err(format!("{name} {}", unreadable(error)));
        }
    }
    Ok(found(tables).nbft.host().cloned())
}

fn unreadable(error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => "; only root may read ACPI tables: run this as root, or show a copy with --file",
        _ => "",
    };
    format!("cannot be read: {error}{advice}")
}

fn table_text(table: &Table) -> String {
    let head = format!("{}  revision {}  {}", table.name, table.revision, table.oem);
    let mut text = printable(head.trim_end()) + "\n";
    if let Some(host) = &table.host {
        text.push_str(&host_text(host));
    }
    let mut sections = vec![
        section(&["HFI", "MAC", "VLAN", "ADDRESS", "FROM", "GATEWAY", "DNS", "PCI"], &table.interfaces, interface_row),
        section(&["SSNS", "HFI", "TRADDR", "TRSVCID", "SUBSYSNQN", "NAMESPACE"], &table.subsystems, subsystem_row),
        section(&["DISCOVERY", "HFI", "TRADDR", "TRSVCID", "SUBSYSNQN"], &table.discovery, discovery_row),
    ];
    sections.retain(|section| !section.is_empty());
    text.push_str(&sections.concat());
    let rejected = table.rejected.iter().map(|rejected| format!("{} is not used: {}", rejected.what, rejected.why));
    let notes = table.subsystems.iter().filter_map(subsystem_note);
    let discovery_notes = table.discovery.iter().filter_map(discovery_note);
    for line in notes.chain(discovery_notes).chain(rejected).chain(table.remarks.iter().cloned()) {
        text.push_str(&format!("  {}\n", printable(&line)));
    }
    text
}

fn host_text(host: &Host) -> String {
    let chosen = |configured| if configured { "configured" } else { "the firmware's default" };
    let primary = match host.primary {
        Primary::NotIndicated => "",
        Primary::Unselected => ", another table names this host",
        Primary::Selected => ", this table names this host",
    };
    let nqn = format!("  host NQN  {} ({}{primary})\n", printable(&host.nqn), chosen(host.nqn_configured));
    let id = host.id.as_ref().map(|id| format!("  host id   {id} ({})\n", chosen(host.id_configured)));
    nqn + &id.unwrap_or_default()
}

fn section<T>(headings: &[&'static str], rows: &[T], row: impl Fn(&T) -> Vec<String>) -> String {
    let mut columns = Columns::new(headings);
    rows.iter().for_each(|item| columns.row(row(item)));
    if rows.is_empty() { String::new() } else { columns.text(2) }
}

fn interface_row(interface: &Interface) -> Vec<String> {
    let prefix = interface.prefix.map(|prefix| format!("/{prefix}")).unwrap_or_default();
    let mut from = match interface.origin {
        Origin::Static => "static".to_owned(),
        Origin::Dhcp => "DHCP".to_owned(),
        Origin::Automatic => "automatic".to_owned(),
    };
    if let Some(server) = interface.dhcp_server {
        from.push_str(&format!(" {server}"));
    }
    let mut gateway = text_of(&interface.gateway);
    if let (Some(_), Some(metric)) = (interface.gateway, interface.route_metric) {
        gateway.push_str(&format!(" metric {metric}"));
    }
    vec![
        interface.hfi.to_string(),
        interface.mac.to_string(),
        text_of(&interface.vlan),
        interface.address.map(|address| format!("{address}{prefix}")).unwrap_or_default(),
        from,
        gateway,
        joined(&interface.dns),
        interface.pci.clone(),
    ]
}

fn subsystem_row(subsystem: &Subsystem) -> Vec<String> {
    let namespace = &subsystem.namespace;
    let nsid = namespace.nsid.map(|nsid| nsid.to_string());
    let parts: Vec<String> = [nsid, namespace.wwid.clone()].into_iter().flatten().collect();
    vec![
        subsystem.ssns.to_string(),
        joined(&subsystem.hfis),
        subsystem.traddr.to_string(),
        subsystem.trsvcid.to_string(),
        subsystem.subsysnqn.clone(),
        parts.join(" "),
    ]
}

/// What is special about it: a line, or none.
fn subsystem_note(subsystem: &Subsystem) -> Option<String> {
    let unavailable = match (subsystem.unavailable, subsystem.diagnostics.join(", ")) {
        (true, why) if why.is_empty() => Some("the firmware could not use it".to_owned()),
        (true, why) => Some(format!("the firmware could not use it ({why})")),
        (false, _) => None,
    };
    let notes = [
        unavailable,
        subsystem.security.as_ref().map(security_note),
        subsystem.header_digest.then(|| "header digest".to_owned()),
        subsystem.data_digest.then(|| "data digest".to_owned()),
        subsystem.non_bootable.then(|| "not for booting".to_owned()),
        subsystem.dhcp_root_path.as_ref().map(|path| format!("from the DHCP root path {path}")),
    ];
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    (!notes.is_empty()).then(|| format!("SSNS {}: {}", subsystem.ssns, notes.join("; ")))
}

fn security_note(security: &Security) -> String {
    let key = match (security.key_needed(), &security.keypath) {
        (true, None) => ", not connected without a key".to_owned(),
        (true, Some(path)) => format!(", not connected without a key, which the firmware has from {path}"),
        (false, _) => String::new(),
    };
    format!("security profile {}: {security}{key}", security.index)
}

fn discovery_row(discovery: &Discovery) -> Vec<String> {
    vec![
        discovery.index.to_string(),
        discovery.hfi.to_string(),
        discovery.traddr.clone(),
        discovery.trsvcid.to_string(),
        discovery.subsysnqn.clone(),
    ]
}

fn discovery_note(discovery: &Discovery) -> Option<String> {
    let referenced = discovery.referenced.then(|| "its subsystems are above, it is not asked again".to_owned());
    let notes: Vec<String> =
        [referenced, discovery.security.as_ref().map(security_note)].into_iter().flatten().collect();
    (!notes.is_empty()).then(|| format!("discovery {}: {}", discovery.index, notes.join("; ")))
}

fn text_of<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map(T::to_string).unwrap_or_default()
}

fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

const HELP: &str = "\
stas nbft - the firmware's boot tables (NVMe Boot Firmware Table, NBFT)

Usage: stas nbft [-o json] [-f FILE]...

Shows who this host was to the storage when the firmware booted it, the
interfaces (HFI), the subsystems with the interfaces that lead to them (SSNS),
and the discovery controllers; and what of it is not used, with the reason. A
damaged table is reported and ignored.

Options:
  -f, --file FILE     show this copy of a table, and not this machine's
  -o, --output json   print JSON
  -h, --help          this text

Examples:
  stas nbft
  stas nbft -o json | jq -r '.tables[].subsystems[].subsysnqn'
  stas nbft -f /tmp/NBFT.copy

Reads /sys/firmware/acpi/tables/NBFT*, which the kernel lets only root read;
copies may be read by whoever can.

Exit status: 0 shown; 1 a table cannot be read or is damaged, the others are
shown; 2 wrong usage; 3 there is no table.
";

#[cfg(test)]
#[path = "nbft_tests.rs"]
mod tests;
