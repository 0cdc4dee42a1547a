//! `/etc/nvme/nvme-fabrics.conf` of nvme-cli 3 and its drop-ins: sections of controllers, with defaults for each kind.
//!
//! An option of a controller is what its own line says, else its section, else `[Host]`, else the defaults of its kind, those of
//! the drop-in before those of the main file; an empty value takes back what a wider one says. Sources: nvme-fabrics.conf(5);
//! libnvme 3, design/CONFIG.md and config-ini.c.

use super::{Draft, translate};
use crate::config::finding::{Report, quoted};
use crate::core::device::ControllerKind;

/// May stand anywhere, but for the first four sections' own keys.
const TUNABLE: [&str; 13] = [
    "nr-io-queues",
    "nr-write-queues",
    "nr-poll-queues",
    "queue-size",
    "keep-alive-tmo",
    "reconnect-delay",
    "ctrl-loss-tmo",
    "fast-io-fail-tmo",
    "tos",
    "duplicate-connect",
    "disable-sqflow",
    "hdr-digest",
    "data-digest",
];

/// Go with host and subsystem, so they must not stand in the line of one path.
const SECURITY: [&str; 7] =
    ["tls", "concat", "tls-key", "tls-key-identity", "keyring", "kxchap-secret", "kxchap-ctrl-secret"];

const BOOLEAN: [&str; 6] = ["duplicate-connect", "disable-sqflow", "hdr-digest", "data-digest", "tls", "concat"];

const ADDRESS: [&str; 5] = ["transport", "traddr", "trsvcid", "host-traddr", "host-iface"];

/// A key with its value and line.
#[derive(Debug, Clone)]
struct Setting {
    key: String,
    value: String,
    line: usize,
}

/// What the main file says of each kind, for its drop-ins too.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    discovery: Vec<Setting>,
    io: Vec<Setting>,
}

#[derive(Debug)]
struct Endpoint {
    kind: ControllerKind,
    settings: Vec<Setting>,
    paths: Vec<Setting>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    /// Unknown, or none.
    Foreign,
    DiscoveryDefaults,
    IoDefaults,
    Host,
    Endpoint,
}

#[derive(Default)]
struct File {
    defaults: Defaults,
    host: Vec<Setting>,
    has_host: bool,
    endpoints: Vec<Endpoint>,
}

/// The controllers of a kind. The defaults of the main file are kept for its drop-ins.
pub(super) fn read(
    kind: ControllerKind,
    text: &str,
    is_main: bool,
    defaults: &mut Defaults,
    report: &mut Report<'_>,
) -> Vec<Draft> {
    let file = parse(text, report);
    let of_kind = |defaults: &Defaults| match kind {
        ControllerKind::Discovery => defaults.discovery.clone(),
        ControllerKind::Io => defaults.io.clone(),
    };
    let outer = [of_kind(defaults), of_kind(&file.defaults)].concat();
    let mut drafts = Vec::new();
    for endpoint in file.endpoints.iter().filter(|endpoint| endpoint.kind == kind) {
        for path in &endpoint.paths {
            let Some(own) = path_settings(path, report) else {
                continue;
            };
            let mut draft = Draft { line: path.line, fields: Vec::new() };
            for setting in outer.iter().chain(&file.host).chain(&endpoint.settings).chain(&own) {
                apply(setting, &mut draft);
            }
            drafts.push(draft);
        }
    }
    if is_main {
        *defaults = file.defaults;
    }
    drafts
}

fn parse(text: &str, report: &mut Report<'_>) -> File {
    let mut file = File::default();
    let mut section = Section::Foreign;
    for (index, line) in text.lines().enumerate() {
        let (line, number) = (line.trim(), index + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            section = file.enter(header, number, report);
            continue;
        }
        let Some((key, value)) = line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
            // Not quoted: it may be a part of a secret.
            report.mistake(number, "", "this line is not of the form key = value, ignored");
            continue;
        };
        file.set(section, Setting { key: key.to_owned(), value: value.to_owned(), line: number }, report);
    }
    file
}

impl File {
    fn enter(&mut self, header: &str, line: usize, report: &mut Report<'_>) -> Section {
        let Some(name) = header.strip_suffix(']').map(str::trim) else {
            report.mistake(line, "", "] is missing; what follows is ignored");
            return Section::Foreign;
        };
        let kind = match name {
            "Discovery Controller Defaults" => return Section::DiscoveryDefaults,
            "I/O Controller Defaults" => return Section::IoDefaults,
            "Host" => {
                if std::mem::replace(&mut self.has_host, true) {
                    report.mistake(line, "", "a second [Host]: a file has one, and both are taken as one");
                }
                return Section::Host;
            }
            "Discovery Controller" => ControllerKind::Discovery,
            "Subsystem" => ControllerKind::Io,
            _ => {
                report.mistake(line, "", format!("unknown section {}, ignored", quoted(name)));
                return Section::Foreign;
            }
        };
        self.endpoints.push(Endpoint { kind, settings: Vec::new(), paths: Vec::new() });
        Section::Endpoint
    }

    fn set(&mut self, section: Section, setting: Setting, report: &mut Report<'_>) {
        let key = setting.key.as_str();
        let is_option = TUNABLE.contains(&key) || SECURITY.contains(&key);
        let place = match section {
            Section::Foreign => return,
            // We are connected to discovery controllers as long as they are wanted.
            _ if key == "persistent" => return,
            Section::Host if key == "hostsymname" => {
                let why = "is not used: the symbolic name is that of sys.conf";
                return report.add(crate::config::Severity::Info, Some(setting.line), "hostsymname", why.to_owned());
            }
            Section::DiscoveryDefaults if is_option => &mut self.defaults.discovery,
            Section::IoDefaults if is_option => &mut self.defaults.io,
            Section::Host if is_option || matches!(key, "hostnqn" | "hostid") => &mut self.host,
            Section::Endpoint if is_option || matches!(key, "nqn" | "controller") => {
                let Some(endpoint) = self.endpoints.last_mut() else {
                    return;
                };
                if key == "controller" { &mut endpoint.paths } else { &mut endpoint.settings }
            }
            _ => return report.mistake(setting.line, "", format!("unknown key {} here, ignored", quoted(key))),
        };
        place.push(setting);
    }
}

/// The fields of a `controller =` line; `None`, with a finding, if one of them is not understood: without it the line may
/// stand for another controller.
fn path_settings(path: &Setting, report: &mut Report<'_>) -> Option<Vec<Setting>> {
    let mut settings = Vec::new();
    for part in path.value.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').map_or((part, ""), |(key, value)| (key.trim(), value.trim()));
        let why = match key {
            _ if ADDRESS.contains(&key) && value.is_empty() => format!("{key} has no value"),
            _ if SECURITY.contains(&key) => format!("{key} belongs to the section, not to one path"),
            "persistent" => continue,
            _ if ADDRESS.contains(&key) || TUNABLE.contains(&key) => {
                settings.push(Setting { key: key.to_owned(), value: value.to_owned(), line: path.line });
                continue;
            }
            _ => format!("unknown key {}", quoted(key)),
        };
        report.mistake(path.line, "controller", format!("{why}; the line is left out"));
        return None;
    }
    Some(settings)
}

fn apply(setting: &Setting, draft: &mut Draft) {
    let Setting { key, value, line } = setting;
    let ours = translate(key, "").map(|(ours, _)| ours).unwrap_or_default();
    if value.is_empty() {
        return draft.fields.retain(|field| field.key != ours);
    }
    if let Some((ours, value)) = translate(key, value) {
        let value = if BOOLEAN.contains(&key.as_str()) { boolean(&value) } else { &value };
        draft.set(&ours, value, *line);
    }
}

/// The words for yes and no; others as they are, for our reader to complain of.
fn boolean(text: &str) -> &str {
    let is_one_of = |words: [&str; 6]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match text {
        _ if is_one_of(["1", "yes", "y", "true", "t", "on"]) => "true",
        _ if is_one_of(["0", "no", "n", "false", "f", "off"]) => "false",
        _ => text,
    }
}
