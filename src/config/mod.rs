//! Configuration: what the administrator wrote, checked, with defaults filled in.
//!
//! A file has one of two syntaxes, told apart by its content: TOML, or the INI dialect of nvme-stas, accepted so that an
//! existing installation keeps working. Either becomes a list of keys with values and lines; from there on the way is the
//! same:
//!
//! ```text
//! file ──▶ toml or ini ──▶ [Entry] ──▶ keys (table of all keys) ──▶ settings, findings
//! ```
//!
//! Mistakes are [`Finding`]s. In TOML each one is an error and the file is not used: the caller keeps the configuration it
//! has and can say all that is wrong at once. In INI each one is a warning and the rest of the file counts, as nvme-stas
//! does it. Nothing here logs, and no finding ever holds a secret.

mod assemble;
mod controller;
mod convert;
mod edit;
mod exclusions;
mod file;
mod finding;
mod generate;
mod identity;
mod ini;
mod keys;
mod secret;
pub mod settings;
mod sources;
mod toml;
mod value;
mod whole;

use std::io;
use std::path::Path;

pub use convert::{convert, to_toml};
pub use edit::{edit, edit_identity, replace_file};
pub use exclusions::{EXCLUSIONS, drop_ins, load_exclusions, parse_exclusions};
pub use finding::{Finding, Loaded, Severity};
pub use generate::{Origin, host_uuid, uuid_of_hash};
pub use identity::{
    ID_FILE, IdentitySources, KEY_FILE, NQN_FILE, check_id, check_symname, load_identity, parse_identity,
    present_identity,
};
pub use keys::KnownKey;
pub use sources::parse_source;
pub use whole::{Configuration, Exclusions, Paths};

pub use secret::{parse_dhchap, read_key};

use crate::core::host::HostIds;
use assemble::Daemon;
use file::Contents;
use finding::Report;
use settings::{Common, ConnectorSettings, FinderSettings, HostIdentity};
use value::Entry;

/// Reads `stafd.conf`. A missing file means defaults, with a finding that says so.
///
/// # Errors
/// All that is wrong with the file, at once; among it at least one [`Severity::Error`].
pub fn load_finder(path: &Path) -> Result<Loaded<FinderSettings>, Vec<Finding>> {
    load(path)
}

/// Reads `stacd.conf`. A missing file means defaults, with a finding that says so.
///
/// # Errors
/// As for [`load_finder`].
pub fn load_connector(path: &Path) -> Result<Loaded<ConnectorSettings>, Vec<Finding>> {
    load(path)
}

/// Reads the text of a `stafd.conf`; `path` is for messages.
///
/// # Errors
/// As for [`load_finder`].
pub fn parse_finder(text: &str, path: &Path) -> Result<Loaded<FinderSettings>, Vec<Finding>> {
    parse(&Contents::of(text), path)
}

/// Reads the text of a `stacd.conf`; `path` is for messages.
///
/// # Errors
/// As for [`load_finder`].
pub fn parse_connector(text: &str, path: &Path) -> Result<Loaded<ConnectorSettings>, Vec<Finding>> {
    parse(&Contents::of(text), path)
}

/// The host ids that go with the host NQNs of these settings, and what is wrong with them.
pub fn host_ids<'a>(host: &HostIdentity, settings: impl Iterator<Item = &'a Common>) -> (HostIds, Vec<String>) {
    let controllers = settings.flat_map(|common| &common.controllers);
    let given =
        controllers.filter(|one| !one.host_id.is_empty()).map(|one| (one.host_nqn.as_str(), one.host_id.as_str()));
    HostIds::new(&host.nqn, &host.id, given)
}

/// What has keys: a file outside of its tables, or a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysOf {
    Finder,
    Connector,
    Identity,
    Controller,
    Exclusion,
}

/// Every key that is understood there.
pub fn known_keys(of: KeysOf) -> Vec<KnownKey> {
    match of {
        KeysOf::Finder => assemble::top_level_keys::<FinderSettings>(),
        KeysOf::Connector => assemble::top_level_keys::<ConnectorSettings>(),
        KeysOf::Identity => keys::known(keys::IDENTITY).collect(),
        KeysOf::Controller => controller::controller_keys(),
        KeysOf::Exclusion => controller::exclusion_keys(),
    }
}

fn load<D: Daemon>(path: &Path) -> Result<Loaded<D>, Vec<Finding>> {
    match file::read(path) {
        Ok(contents) => {
            parse(&contents, path).map(with_sources).map(|loaded| check_key_files(loaded, path, &contents.text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Loaded {
            settings: D::default(),
            findings: vec![Finding::about(path, Severity::Info, "does not exist, defaults are used")],
        }),
        Err(error) => Err(vec![Finding::about(path, Severity::Error, format!("cannot be read: {error}"))]),
    }
}

/// Adds the controllers of the files that the settings name. What is said here of the same controller counts more.
fn with_sources<D: Daemon>(mut loaded: Loaded<D>) -> Loaded<D> {
    let common = loaded.settings.common();
    let mut controllers = Vec::new();
    for path in &common.sources {
        let (more, findings) = sources::load(D::KIND, path);
        controllers.extend(more);
        loaded.findings.extend(findings);
    }
    controllers.append(&mut common.controllers);
    common.controllers = controllers;
    loaded
}

/// A key file is read when it is needed; that it cannot be used is better said before. `text`: that of the file at `path`.
fn check_key_files<D: Daemon>(mut loaded: Loaded<D>, path: &Path, text: &str) -> Loaded<D> {
    let unusable = loaded.settings.common().key_files().filter_map(|file| Some((file, read_key(file).err()?)));
    let finding = |(file, why): (&Path, String)| {
        let names_it = |line: &str| !line.trim_start().starts_with('#') && line.contains(&*file.to_string_lossy());
        let line = text.lines().position(names_it).map(|index| index.saturating_add(1));
        let message = format!("no controller with this key can be connected: {why}");
        Finding { line, ..Finding::about(path, Severity::Warning, message) }
    };
    let findings: Vec<Finding> = unusable.map(finding).collect();
    loaded.findings.extend(findings);
    loaded
}

fn parse<D: Daemon>(contents: &Contents, path: &Path) -> Result<Loaded<D>, Vec<Finding>> {
    let syntax = Syntax::of(&contents.text);
    let mut report = Report::new(path, syntax.mistake());
    report_garbled(contents, &mut report);
    let entries = read_entries(syntax, &contents.text, &mut report);
    let mut settings: D = assemble::settings(&entries, &mut report);
    if contents.exposed && settings.common().holds_secrets() {
        let (severity, message) = exposure(syntax);
        report.add(severity, None, "", message);
    }
    report.conclude(settings)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syntax {
    Toml,
    Ini,
}

impl Syntax {
    fn of(text: &str) -> Syntax {
        if ini::is_ini(text) { Syntax::Ini } else { Syntax::Toml }
    }

    /// How bad a mistake is.
    fn mistake(self) -> Severity {
        match self {
            Syntax::Toml => Severity::Error,
            Syntax::Ini => Severity::Warning,
        }
    }
}

fn read_entries(syntax: Syntax, text: &str, report: &mut Report<'_>) -> Vec<Entry> {
    match syntax {
        Syntax::Toml => toml::read(text, report),
        Syntax::Ini => ini::read(text, report),
    }
}

fn report_garbled(contents: &Contents, report: &mut Report<'_>) {
    if let Some(line) = contents.garbled_line {
        report.mistake(line, "", "is not valid UTF-8");
    }
}

/// What to say of a configuration file that holds a secret and that other users can read.
///
/// A file in our own syntax is refused: it was written for this program, most likely minutes ago, and whoever wrote it is
/// there to put it right. An nvme-stas file is not: nvme-stas installs its files readable by all and never minded, so
/// refusing would take storage away from a running installation in the moment it is replaced, while the secret has been
/// readable for as long as the file is there. It is used, and every load says what to do about it.
fn exposure(syntax: Syntax) -> (Severity, String) {
    let what = "holds a secret that other users can read; `chmod 600` it, and change the secret";
    match syntax {
        Syntax::Toml => (Severity::Error, format!("the file is refused: it {what}")),
        Syntax::Ini => (Severity::Warning, format!("the file {what}")),
    }
}

#[cfg(test)]
mod scratch;
#[cfg(test)]
mod tests;
