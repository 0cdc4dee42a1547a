//! Who this host is: `sys.conf`, and the files it refers to.
//!
//! NQN and host id are mandatory: without them there is nothing to connect as, and a made-up identity would not be the one
//! that the storage knows. The key is optional, and whatever is wrong with it costs only itself. Sources: sys.conf(5) of
//! nvme-stas; NVM Express Base Specification, "NVMe Qualified Names", "Host Identifier"; kernel: `nvmf_parse_options`.

use std::io;
use std::path::Path;

use crate::config::file;
use crate::config::finding::{Finding, Loaded, Report, Severity, quoted};
use crate::config::keys::{IDENTITY, known, set, unknown};
use crate::config::secret::{parse_dhchap, read_key};
use crate::config::settings::{HostIdentity, Secret, path_of};
use crate::config::value::Entry;
use crate::config::{Syntax, read_entries};
use crate::core::tid::NQN_MAX;
use crate::wire::dim::SYMNAME_MAX;

/// Where the host's NQN is unless `sys.conf` says something else.
pub const NQN_FILE: &str = "/etc/nvme/hostnqn";
/// Its host identifier.
pub const ID_FILE: &str = "/etc/nvme/hostid";
/// Its key; there need not be one.
pub const KEY_FILE: &str = "/etc/nvme/hostkey";

/// What `sys.conf` says: values, or `file://PATH`. Empty where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySources {
    pub nqn: String,
    pub id: String,
    /// A path is no secret, but a key is.
    pub key: Secret,
    pub symname: String,
}

impl Default for IdentitySources {
    fn default() -> IdentitySources {
        let nothing = String::new;
        IdentitySources { nqn: nothing(), id: nothing(), key: Secret::new(nothing()), symname: nothing() }
    }
}

/// Reads `sys.conf` at the given path and the files it refers to. The file itself may be missing; the identity may not.
///
/// # Errors
/// All that is wrong, at once; among it at least one [`Severity::Error`].
pub fn load_identity(sys_conf: &Path) -> Result<Loaded<HostIdentity>, Vec<Finding>> {
    let contents = match file::read(sys_conf) {
        Ok(contents) => contents,
        Err(error) if error.kind() == io::ErrorKind::NotFound => file::Contents::of(""),
        Err(error) => return Err(vec![Finding::about(sys_conf, Severity::Error, format!("cannot be read: {error}"))]),
    };
    let syntax = Syntax::of(&contents.text);
    let mut report = Report::new(sys_conf, syntax.mistake());
    super::report_garbled(&contents, &mut report);
    let entries = read_entries(syntax, &contents.text, &mut report);
    let sources = sources(&entries, &mut report);
    if report.is_broken() {
        // What an unreadable file does not say is not missing.
        return Err(report.into_findings());
    }
    let mut resolver = Resolver { entries: &entries, exposed: contents.exposed, syntax, report };
    let identity = resolver.identity(&sources);
    match identity {
        Some(identity) => resolver.report.conclude(identity),
        None => Err(resolver.report.into_findings()),
    }
}

/// Reads the text of a `sys.conf`, but not the files it refers to; `path` is for messages.
///
/// # Errors
/// As for [`load_identity`].
pub fn parse_identity(text: &str, path: &Path) -> Result<Loaded<IdentitySources>, Vec<Finding>> {
    let syntax = Syntax::of(text);
    let mut report = Report::new(path, syntax.mistake());
    let entries = read_entries(syntax, text, &mut report);
    let sources = sources(&entries, &mut report);
    report.conclude(sources)
}

fn sources(entries: &[Entry], report: &mut Report<'_>) -> IdentitySources {
    let mut sources = IdentitySources::default();
    for entry in entries {
        match set(IDENTITY, &mut sources, entry) {
            Some(Ok(())) => {}
            Some(Err(why)) => report.mistake(entry.line, &entry.key, why),
            None => report.mistake(entry.line, "", unknown(&entry.key, &known(IDENTITY).collect::<Vec<_>>())),
        }
    }
    sources
}

/// Follows the sources and judges what it finds.
struct Resolver<'a> {
    entries: &'a [Entry],
    /// Whether other users can read `sys.conf` itself.
    exposed: bool,
    syntax: Syntax,
    report: Report<'a>,
}

impl Resolver<'_> {
    fn identity(&mut self, sources: &IdentitySources) -> Option<HostIdentity> {
        let nqn = self.mandatory("nqn", &sources.nqn, NQN_FILE, "hostnqn", check_nqn);
        let id = self.mandatory("id", &sources.id, ID_FILE, "hostid", check_id);
        let key = self.key(sources.key.reveal());
        let symname = self.symname(&sources.symname);
        Some(HostIdentity { nqn: nqn?, id: id?, key, symname })
    }

    fn mandatory(
        &mut self,
        key: &str,
        source: &str,
        default_file: &str,
        command: &str,
        check: fn(&str) -> Result<String, String>,
    ) -> Option<String> {
        let path = path_of(source).or_else(|| source.is_empty().then_some(default_file));
        let value = match path {
            Some(path) => file::read(Path::new(path))
                .map_err(|error| format!("cannot read {path}: {error}"))
                .and_then(|contents| first_word(&contents.text).ok_or_else(|| format!("{path} is empty")))
                .map_err(|why| format!("this host has none: {why}; `stasadm {command} -f {path}` makes one"))
                .and_then(|word| check(&word).map_err(|why| format!("{path}: {why}"))),
            None => check(source).map_err(|why| format!("{why}; `stasadm {command}` makes a new one")),
        };
        value.map_err(|why| self.remark(Severity::Error, key, why)).ok()
    }

    /// A key inside of `sys.conf` is treated like the ones in the other files, see [`super::exposure`]. One in a file of its
    /// own is looked at now and read again for each connect.
    fn key(&mut self, source: &str) -> Option<Secret> {
        let Some(path) = path_of(source).or_else(|| source.is_empty().then_some(KEY_FILE)) else {
            if self.exposed {
                let (severity, message) = super::exposure(self.syntax);
                self.remark(severity, "key", message);
            }
            return parse_dhchap(source).map_err(|why| self.remark(self.syntax.mistake(), "key", why)).ok();
        };
        if source.is_empty() && !Path::new(path).exists() {
            return None;
        }
        match read_key(Path::new(path)) {
            Ok(_) => Some(Secret::new(format!("file://{path}"))),
            Err(why) => {
                self.remark(Severity::Warning, "key", format!("no key is used: {why}"));
                None
            }
        }
    }

    fn symname(&mut self, source: &str) -> Option<String> {
        let name = match path_of(source) {
            _ if source.is_empty() => return None,
            None => Ok(source.to_owned()),
            Some(path) => file::read(Path::new(path))
                .map_err(|error| format!("cannot read {path}: {error}"))
                .and_then(|contents| first_word(&contents.text).ok_or_else(|| format!("{path} is empty"))),
        };
        let checked = name.and_then(|name| check_symname(&name).map(|()| name));
        checked.map_err(|why| self.remark(Severity::Warning, "symname", format!("no name is used: {why}"))).ok()
    }

    fn remark(&mut self, severity: Severity, key: &str, message: String) {
        let line = self.entries.iter().rev().find(|entry| entry.key == key).map(|entry| entry.line);
        self.report.add(severity, line, key, message);
    }
}

/// The host's NQN and identifier as far as `sys.conf` leads to usable ones, for who makes the missing one.
///
/// # Errors
/// What is wrong with `sys.conf`. It may be missing.
pub fn present_identity(sys_conf: &Path) -> Result<(Option<String>, Option<String>), Vec<Finding>> {
    let text = file::read(sys_conf).map(|contents| contents.text).unwrap_or_default();
    let sources = parse_identity(&text, sys_conf)?.settings;
    let value = |source: &str, default_file| match path_of(source).or(source.is_empty().then_some(default_file)) {
        Some(path) => file::read(Path::new(path)).ok().and_then(|contents| first_word(&contents.text)),
        None => Some(source.to_owned()),
    };
    let nqn = value(&sources.nqn, NQN_FILE).and_then(|nqn| check_nqn(&nqn).ok());
    Ok((nqn, value(&sources.id, ID_FILE).and_then(|id| check_id(&id).ok())))
}

/// # Errors
/// What a symbolic name has to be.
pub fn check_symname(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > SYMNAME_MAX || name.chars().any(char::is_control) {
        return Err(format!("{} is not a name of at most {SYMNAME_MAX} bytes", quoted(name)));
    }
    Ok(())
}

fn first_word(text: &str) -> Option<String> {
    text.split_whitespace().next().map(str::to_owned)
}

fn check_nqn(nqn: &str) -> Result<String, String> {
    if !nqn.starts_with("nqn.") {
        return Err(format!("the host NQN {} does not begin with \"nqn.\"", quoted(nqn)));
    }
    if nqn.len() > NQN_MAX {
        return Err(format!("the host NQN has {} bytes; accepted: at most {NQN_MAX}", nqn.len()));
    }
    // It becomes an option of the kernel's connect call, where a comma would end it.
    if nqn.chars().any(|c| c == ',' || c.is_whitespace() || c.is_control()) {
        return Err(format!("the host NQN {} contains a comma, white space or a control character", quoted(nqn)));
    }
    Ok(nqn.to_owned())
}

/// A UUID in lower case, but not one that says "nobody" (all zeros) or "not set" (all ones, as from some firmware).
///
/// # Errors
/// What is wrong with it.
pub fn check_id(id: &str) -> Result<String, String> {
    let hyphens = [8, 13, 18, 23];
    let is_uuid = id.len() == 36
        && id.bytes().enumerate().all(|(at, byte)| match hyphens.contains(&at) {
            true => byte == b'-',
            false => byte.is_ascii_hexdigit(),
        });
    if !is_uuid {
        let form = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
        return Err(format!("the host id {} is not a UUID; accepted: {form}", quoted(id)));
    }
    let id = id.to_ascii_lowercase();
    let all = |digit| id.chars().all(|c| c == digit || c == '-');
    if all('0') || all('f') {
        return Err(format!("the host id {id} stands for no host"));
    }
    Ok(id)
}
