//! A file for nvme-stas as TOML that means the same.
//!
//! What the daemons would ignore is left out, and the findings say so. A comment comes along when it stands directly above a
//! key that does. That the result means the same is not assumed: it is read, and compared.

use std::fmt::Write;
use std::path::Path;

use crate::config::controller::Draft;
use crate::config::edit::toml_string;
use crate::config::finding::{Finding, Report, Severity};
use crate::config::identity::{IdentitySources, parse_identity};
use crate::config::keys::{
    ADDRESS, COMMON, CONNECTOR, FINDER, HOST, IDENTITY, Key, OPTIONS, OWN_OPTIONS, QUEUES, SECRETS, SOURCE, set,
};
use crate::config::settings::{Common, ConnectOptions, ConnectorSettings, FinderSettings};
use crate::config::value::{Entry, Value};
use crate::config::{Loaded, Syntax, file, ini, parse_connector, parse_finder};

/// Reads an INI file; the TOML, and what there is to say about the file.
///
/// # Errors
/// One line: the file cannot be read, or is not for nvme-stas.
pub fn to_toml(path: &Path) -> Result<(String, Vec<Finding>), String> {
    let at = |why: String| format!("{}: {why}", path.display());
    let contents = file::read(path).map_err(|error| at(format!("cannot be read: {error}")))?;
    convert(&contents.text, path).map_err(at)
}

/// The same of the text of one; `path` is for messages.
///
/// # Errors
/// It is not for nvme-stas.
pub fn convert(text: &str, path: &Path) -> Result<(String, Vec<Finding>), String> {
    if Syntax::of(text) == Syntax::Toml {
        return Err("is no file for nvme-stas: none of its sections is in it".to_owned());
    }
    let entries = ini::read(text, &mut Report::new(path, Severity::Warning));
    let toml = write(&entries, &text.lines().collect::<Vec<_>>());
    let findings = if entries.iter().any(|entry| entry.section.as_deref() == Some(HOST)) {
        compared(parse_identity, text, &toml, path)
    } else {
        // Which daemon's file it is, it does not say: it is that of the one that understands more of it.
        let finder = compared(parse_finder, text, &toml, path);
        let connector = compared(parse_connector, text, &toml, path);
        if connector.len() < finder.len() { connector } else { finder }
    };
    Ok((toml, findings))
}

type Parser<S> = fn(&str, &Path) -> Result<Loaded<S>, Vec<Finding>>;

/// The findings about the original; and an error if the result is not the same to a daemon.
fn compared<S: PartialEq>(parse: Parser<S>, text: &str, toml: &str, path: &Path) -> Vec<Finding> {
    let original = match parse(text, path) {
        Ok(loaded) => loaded,
        Err(findings) => return findings,
    };
    let mut findings = original.findings;
    match parse(toml, path) {
        Ok(converted) if converted.settings == original.settings => {}
        Ok(_) => findings.push(Finding::about(path, Severity::Error, "the TOML does not mean the same; compare them")),
        Err(of_toml) => {
            let why = of_toml.first().map(|finding| finding.message.as_str()).unwrap_or_default();
            let message = format!("the TOML has to be corrected before it is used: {why}");
            findings.push(Finding::about(path, Severity::Error, message));
        }
    }
    findings
}

/// Keys first: below a table they would belong to it.
fn write(entries: &[Entry], lines: &[&str]) -> String {
    let mut keys = String::new();
    let mut tables = String::new();
    for (index, entry) in entries.iter().enumerate() {
        let comment = comment_above(lines, entry.line);
        match &entry.value {
            Value::Table(fields) => {
                let _ = write!(tables, "\n{comment}[[{}]]\n", entry.key);
                for field in fields {
                    if let Some(value) = typed(field, of_controller) {
                        let _ = writeln!(tables, "{} = {value}", field.key);
                    }
                }
            }
            _ if is_repeated(entry, entries.get(index.saturating_add(1)..).unwrap_or_default()) => {}
            _ => {
                if let Some(value) = typed(entry, at_top_level) {
                    let _ = writeln!(keys, "{comment}{} = {value}", entry.key);
                }
            }
        }
    }
    let text = keys + &tables;
    text.trim_start_matches('\n').to_owned()
}

/// Whether the same key comes once more with a value that it takes: the last one counts, and TOML allows only one.
fn is_repeated(entry: &Entry, later: &[Entry]) -> bool {
    later.iter().any(|other| other.key == entry.key && typed(other, at_top_level).is_some())
}

/// The value in the first TOML type with which the key takes it; `None` if it does not take it anyhow.
fn typed(entry: &Entry, accepts: fn(&Entry) -> bool) -> Option<String> {
    let Value::Bare(text) = &entry.value else {
        return None;
    };
    let with = |value: Value| Entry { value, section: None, ..entry.clone() };
    let boolean = text.to_lowercase().parse().ok();
    let candidates = [
        (Some(Value::Text(text.clone())), toml_string(text)),
        (text.parse().ok().map(Value::Integer), text.trim_start_matches('+').to_owned()),
        (boolean.map(Value::Boolean), text.to_lowercase()),
    ];
    if !accepts(entry) {
        return None;
    }
    candidates
        .into_iter()
        .find(|(value, _)| value.clone().is_some_and(|value| accepts(&with(value))))
        .map(|(_, text)| text)
}

fn at_top_level(entry: &Entry) -> bool {
    takes::<IdentitySources>(&[IDENTITY], entry)
        || takes::<FinderSettings>(&[FINDER], entry)
        || takes::<ConnectorSettings>(&[CONNECTOR], entry)
        || takes::<Common>(&[COMMON], entry)
        || takes::<ConnectOptions>(&[OPTIONS, QUEUES], entry)
}

fn of_controller(entry: &Entry) -> bool {
    takes::<Draft>(&[ADDRESS, SOURCE], entry)
        || takes::<ConnectOptions>(&[OPTIONS, QUEUES, OWN_OPTIONS, SECRETS], entry)
}

fn takes<S: Default>(tables: &[&[Key<S>]], entry: &Entry) -> bool {
    tables.iter().any(|table| matches!(set(table, &mut S::default(), entry), Some(Ok(()))))
}

/// The comment lines that end at the line before `line`, which counts from 1.
fn comment_above(lines: &[&str], line: usize) -> String {
    let above = lines.get(..line.saturating_sub(1)).unwrap_or_default();
    let comment = above.iter().rev().map_while(|line| line.trim_start().strip_prefix(['#', ';']));
    let mut comment: Vec<&str> = comment.collect();
    comment.reverse();
    comment.into_iter().map(|text| format!("#{}\n", text.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(text: &str) -> (String, Vec<Finding>) {
        convert(text, Path::new("x.conf")).unwrap()
    }

    #[test]
    fn a_finders_file_means_the_same() {
        let text = "\
# nvme-stas
[Controllers]
; the array in room 5
#
controller=transport=tcp;traddr=192.0.2.1;trsvcid=8009;kato=5;hdr-digest=True
controller = transport = fc ; traddr = nn-0x1:pn-0x2 ; host-traddr = nn-0x3:pn-0x4
exclude = host-iface=eth9

[Global]
# Loud.
tron = TRUE
kato=7
kato=9
ip-family=ipv4
[Service Discovery]
zeroconf=disabled
[Discovery controller connection management]

zeroconf-connections-persistence = 5 days
";
        let expected = "\
# Loud.
tron = true
kato = 9
ip-family = \"ipv4\"
zeroconf = \"disabled\"
zeroconf-connections-persistence = \"5 days\"

# the array in room 5
#
[[controller]]
transport = \"tcp\"
traddr = \"192.0.2.1\"
trsvcid = \"8009\"
kato = 5
hdr-digest = true

[[controller]]
transport = \"fc\"
traddr = \"nn-0x1:pn-0x2\"
host-traddr = \"nn-0x3:pn-0x4\"

[[exclude]]
host-iface = \"eth9\"
";
        assert_eq!(converted(text), (expected.to_owned(), vec![]));
    }

    #[test]
    fn the_other_files_as_well() {
        let (toml, findings) = converted("[Host]\nnqn=file:///etc/nvme/hostnqn\nsymname = 5\n");
        assert_eq!((toml.as_str(), findings), ("nqn = \"file:///etc/nvme/hostnqn\"\nsymname = \"5\"\n", vec![]));
        let (toml, findings) = converted(
            "[I/O controller connection management]\ndisconnect-trtypes=tcp+rdma\nconnect-attempts-on-ncc=3\n[Global]\nnr-io-queues=4\n",
        );
        assert_eq!(findings, []);
        assert_eq!(toml, "disconnect-trtypes = \"tcp+rdma\"\nconnect-attempts-on-ncc = 3\nnr-io-queues = 4\n");
    }

    #[test]
    fn what_does_not_count_is_left_out_and_told() {
        let (toml, findings) = converted("[Global]\ntron=maybe\nnonsense=1\nkato=3\n[Babylon]\na=1\n");
        assert_eq!(toml, "kato = 3\n");
        assert_eq!(findings.len(), 3);
        assert!(findings.iter().all(|finding| finding.severity == Severity::Warning), "{findings:?}");
    }

    /// Of the three files of nvme-stas 2.4: section, key, default, and another value.
    const FINDERS: &[[&str; 4]] = &[
        ["Global", "tron", "false", "true"],
        ["Global", "hdr-digest", "false", "true"],
        ["Global", "data-digest", "false", "true"],
        ["Global", "kato", "30", "45"],
        ["Global", "queue-size", "128", "16"],
        ["Global", "reconnect-delay", "10", "5"],
        ["Global", "ctrl-loss-tmo", "600", "-1"],
        ["Global", "disable-sqflow", "false", "true"],
        ["Global", "ignore-iface", "false", "true"],
        ["Global", "ip-family", "ipv4+ipv6", "ipv6"],
        ["Global", "pleo", "enabled", "disabled"],
        ["Service Discovery", "zeroconf", "enabled", "disabled"],
        ["Discovery controller connection management", "persistent-connections", "true", "false"],
        ["Discovery controller connection management", "zeroconf-connections-persistence", "72hours", "3 days 5 hours"],
        ["Controllers", "controller", "", "transport=tcp;traddr=localhost;trsvcid=8009"],
        ["Controllers", "exclude", "", "transport=tcp;traddr=fe80::2c6e:dee7:857:26bb # one address"],
    ];
    const CONNECTORS: &[[&str; 4]] = &[
        ["Global", "tron", "false", "True"],
        ["Global", "hdr-digest", "false", "true"],
        ["Global", "data-digest", "false", "true"],
        ["Global", "kato", "120", "0"],
        ["Global", "nr-io-queues", "1", "8"],
        ["Global", "nr-write-queues", "0", "2"],
        ["Global", "nr-poll-queues", "0", "3"],
        ["Global", "queue-size", "128", "1024"],
        ["Global", "reconnect-delay", "10", "20"],
        ["Global", "ctrl-loss-tmo", "600", "0"],
        ["Global", "disable-sqflow", "false", "true"],
        ["Global", "ignore-iface", "false", "true"],
        ["Global", "ip-family", "ipv4+ipv6", "ipv4"],
        ["I/O controller connection management", "disconnect-scope", "only-stas-connections", "no-disconnect"],
        ["I/O controller connection management", "disconnect-trtypes", "tcp", "tcp+rdma+fc"],
        ["I/O controller connection management", "connect-attempts-on-ncc", "0", "4"],
        ["Controllers", "controller", "", "transport=fc;traddr=nn-0x1:pn-0x2;host-traddr=nn-0x3:pn-0x4;nqn=nqn.empire"],
        ["Controllers", "exclude", "", "host-iface=enp0s8"],
    ];
    const HOSTS: &[[&str; 4]] = &[
        ["Host", "nqn", "file:///etc/nvme/hostnqn", "nqn.2014-08.org.example:host"],
        ["Host", "id", "file:///etc/nvme/hostid", "f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f"],
        ["Host", "key", "file:///etc/nvme/hostkey", "file:///root/hostkey"],
        ["Host", "symname", "", "rack 7"],
    ];

    /// What may stand in one controller.
    const OF_CONTROLLER: &[[&str; 2]] = &[
        ["nqn", "nqn.2014-08.org.example:storage"],
        ["trsvcid", "4420"],
        ["host-traddr", "192.0.2.2"],
        ["host-iface", "enp0s8"],
        ["host-nqn", "nqn.2014-08.org.example:host"],
        ["dhchap-secret", "DHHC-1:00:MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTGxWMnb:"],
        ["dhchap-ctrl-secret", "DHHC-1:00:MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTGxWMnb:"],
        ["hdr-digest", "true"],
        ["data-digest", "true"],
        ["nr-io-queues", "4"],
        ["nr-write-queues", "1"],
        ["nr-poll-queues", "1"],
        ["queue-size", "64"],
        ["kato", "7"],
        ["reconnect-delay", "3"],
        ["ctrl-loss-tmo", "-1"],
        ["disable-sqflow", "true"],
    ];

    #[track_caller]
    fn means_the_same(text: &str) -> String {
        let (toml, findings) = converted(text);
        let remarks: Vec<_> = findings
            .iter()
            .filter(|finding| !finding.message.contains("what follows # is taken as a comment"))
            .collect();
        assert!(remarks.is_empty(), "{text}{remarks:?}");
        toml
    }

    #[test]
    fn nothing_of_nvme_stas_files_is_lost() {
        for file in [FINDERS, CONNECTORS, HOSTS] {
            let mut all = [String::new(), String::new()];
            for [section, key, default, other] in file {
                let texts = [default, other].map(|value| format!("[{section}]\n{key}={value}\n"));
                let toml = texts.each_ref().map(|text| means_the_same(text));
                assert_ne!(toml[0], toml[1], "{key}");
                assert!(toml[1].contains(key), "{key}: {}", toml[1]);
                all.iter_mut().zip(texts).for_each(|(all, text)| *all += &text);
            }
            for text in all {
                let toml = means_the_same(&text);
                let missing = file.iter().find(|[_, key, value, _]| !value.is_empty() && !toml.contains(key));
                assert_eq!(missing, None, "{toml}");
            }
        }
    }

    #[test]
    fn nothing_of_a_controller_is_lost() {
        let line = OF_CONTROLLER.iter().map(|pair| pair.join("=")).collect::<Vec<_>>().join(";");
        let toml = means_the_same(&format!("[Controllers]\ncontroller=transport=tcp;traddr=192.0.2.1;{line}\n"));
        for [key, _] in OF_CONTROLLER {
            assert!(toml.contains(&format!("\n{key} = ")), "{key}: {toml}");
        }
    }

    #[test]
    fn a_result_that_cannot_be_used_is_an_error() {
        let (_, findings) = converted("[Controllers]\ncontroller=transport=tcp\n");
        assert!(findings.iter().any(|finding| finding.severity == Severity::Error), "{findings:?}");
        assert!(convert("tron = true\n", Path::new("x")).is_err());
    }
}
