//! `/etc/nvme/discovery.conf`: a line of `nvme discover` options for each discovery controller.
//!
//! nvme-cli splits a line at spaces and `=` and hands it to `getopt_long`. Sources: nvme-discover(1); nvme-cli 2, fabrics.c,
//! `discover_from_conf_file` and `NVMF_ARGS`.

use super::{Draft, translate};
use crate::config::finding::{Report, quoted};
use crate::suggest::meant;

/// What follows an option.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Value,
    Flag,
    /// Of no meaning here.
    IgnoredValue,
    IgnoredFlag,
}

use Kind::{Flag, IgnoredFlag, IgnoredValue, Value};

/// Its long name, its letter, and what follows it.
type Known = (&'static str, char, Kind);

const OPTIONS: [Known; 37] = [
    ("transport", 't', Value),
    ("nqn", 'n', Value),
    ("traddr", 'a', Value),
    ("trsvcid", 's', Value),
    ("host-traddr", 'w', Value),
    ("host-iface", 'f', Value),
    ("hostnqn", 'q', Value),
    ("hostid", 'I', Value),
    ("dhchap-secret", 'S', Value),
    ("dhchap-ctrl-secret", 'C', Value),
    ("kxchap-secret", '\0', Value),
    ("kxchap-ctrl-secret", '\0', Value),
    ("keyring", '\0', Value),
    ("tls-key", '\0', Value),
    ("tls-key-identity", '\0', Value),
    ("nr-io-queues", 'i', Value),
    ("nr-write-queues", 'W', Value),
    ("nr-poll-queues", 'P', Value),
    ("queue-size", 'Q', Value),
    ("keep-alive-tmo", 'k', Value),
    ("reconnect-delay", 'c', Value),
    ("ctrl-loss-tmo", 'l', Value),
    ("fast-io-fail-tmo", 'F', Value),
    ("tos", 'T', Value),
    ("duplicate-connect", 'D', Flag),
    ("disable-sqflow", '\0', Flag),
    ("hdr-digest", 'g', Flag),
    ("data-digest", 'G', Flag),
    ("tls", '\0', Flag),
    ("concat", '\0', Flag),
    ("persistent", 'p', IgnoredFlag),
    ("quiet", '\0', IgnoredFlag),
    ("verbose", 'v', IgnoredFlag),
    ("force", '\0', IgnoredFlag),
    ("output-format", 'o', IgnoredValue),
    ("raw", 'r', IgnoredValue),
    ("context", '\0', IgnoredValue),
];

pub(super) fn read(text: &str, report: &mut Report<'_>) -> Vec<Draft> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(number, line)| draft(line, number, report)).collect()
}

fn draft(line: &str, number: usize, report: &mut Report<'_>) -> Draft {
    let mut draft = Draft { line: number, fields: Vec::new() };
    let mut words = line.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let Some((option, attached)) = find(word) else {
            let name = word.split('=').next().unwrap_or_default();
            let options = OPTIONS.map(|(option, ..)| format!("--{option}"));
            let meant = meant(name, options.iter().map(String::as_str).filter(|_| name.starts_with("--")));
            report.mistake(number, "", format!("unknown option {}{meant}, ignored", quoted(name)));
            // What follows most likely belongs to it.
            if word.starts_with('-') && !word.contains('=') {
                words.next_if(|next| !next.starts_with('-'));
            }
            continue;
        };
        let (name, _, kind) = option;
        let takes_value = matches!(kind, Value | IgnoredValue);
        let is_number =
            |word: &str| word.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let value = match attached {
            Some(value) => Some(value),
            None if takes_value => words.next_if(|next| !next.starts_with('-') || is_number(next)),
            None => Some("true"),
        };
        match (kind, value) {
            (Value | Flag, Some(value)) => {
                if let Some((key, value)) = translate(name, value) {
                    draft.set(&key, &value, number);
                }
            }
            (IgnoredValue | IgnoredFlag, Some(_)) => {}
            (_, None) => report.mistake(number, name, "has no value, ignored"),
        }
    }
    draft
}

/// The option that a word is or begins with, and the value that it carries along.
fn find(word: &str) -> Option<(Known, Option<&str>)> {
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let name = name.replace('_', "-");
        let mut begun = OPTIONS.into_iter().filter(|(option, ..)| option.starts_with(&name));
        let exact = OPTIONS.into_iter().find(|(option, ..)| *option == name);
        let unique = || begun.next().filter(|_| !name.is_empty() && begun.next().is_none());
        return Some((exact.or_else(unique)?, value));
    }
    let mut short = word.strip_prefix('-')?.chars();
    let letter = short.next()?;
    let option = OPTIONS.into_iter().find(|(_, option, _)| *option == letter && letter != '\0')?;
    let rest = short.as_str();
    let value = rest.strip_prefix('=').unwrap_or(rest);
    Some((option, (!value.is_empty()).then_some(value)))
}
