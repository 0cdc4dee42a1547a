//! nvme-cli's list of what no program of this host is to connect of its own accord: `/etc/nvme/exclusions.conf`, and
//! `exclusions.conf.d/*.conf` beside it.
//!
//! ```text
//! [exclusions]
//! exclusion = transport=tcp;traddr=192.0.2.10;nqn=nqn.2014-08.org.example:retired
//! ```
//!
//! Other sections belong to later versions. A line that is not understood excludes nothing, as with nvme-cli: with a key less it
//! would exclude more than it was meant to. Source: libnvme 3, design/EXCLUSIONS.md, exclusion.c and tid.c.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::file;
use crate::config::finding::{Finding, Report, Severity, quoted};
use crate::core::exclusion::HostExclusion;
use crate::core::tid::Transport;

pub const EXCLUSIONS: &str = "/etc/nvme/exclusions.conf";

/// Lists that are read, and exclusions that are kept: more is nobody's intention.
const LISTS_MAX: usize = 256;
const EXCLUSIONS_MAX: usize = 4096;

/// The directory of the further lists.
pub fn drop_ins(main: &Path) -> PathBuf {
    let mut name = main.as_os_str().to_owned();
    name.push(".d");
    PathBuf::from(name)
}

/// The main list and its drop-ins, as far as they are there, in this order.
pub(super) fn with_drop_ins(main: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(drop_ins(main)).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_list = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "conf");
    let mut paths: Vec<PathBuf> = entries.filter(is_list).take(LISTS_MAX).collect();
    paths.sort();
    paths.insert(0, main.to_owned());
    paths
}

/// Reads the main list at this path and its drop-ins. None of them needs to be there; what cannot be read excludes nothing.
pub fn load_exclusions(main: &Path) -> (Vec<HostExclusion>, Vec<Finding>) {
    let (mut exclusions, mut findings) = (Vec::new(), Vec::new());
    for path in with_drop_ins(main) {
        match file::read(&path) {
            Ok(contents) => {
                let (more, remarks) = parse_exclusions(&contents.text, &path);
                exclusions.extend(more);
                findings.extend(remarks);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let message = format!("cannot be read, so it excludes nothing: {error}");
                findings.push(Finding::about(&path, Severity::Warning, message));
            }
        }
    }
    if exclusions.len() > EXCLUSIONS_MAX {
        let message = format!("more than {EXCLUSIONS_MAX} exclusions; the others exclude nothing");
        findings.push(Finding::about(main, Severity::Warning, message));
        exclusions.truncate(EXCLUSIONS_MAX);
    }
    (exclusions, findings)
}

/// Reads the text of one list; `path` is for messages.
pub fn parse_exclusions(text: &str, path: &Path) -> (Vec<HostExclusion>, Vec<Finding>) {
    let mut report = Report::new(path, Severity::Warning);
    let mut exclusions = Vec::new();
    let mut in_section = Some(false);
    for (index, line) in text.lines().enumerate() {
        let (line, number) = (line.trim(), index + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            in_section = header.split_once(']').map(|(name, _)| name.trim() == "exclusions");
            if in_section.is_none() {
                report.mistake(number, "", "] is missing; what follows excludes nothing");
            }
            continue;
        }
        match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            Some(("exclusion", value)) if in_section == Some(true) => match exclusion(value) {
                Ok(exclusion) => {
                    exclusions.push(HostExclusion { place: format!("{}:{number}", path.display()), ..exclusion });
                }
                Err(why) => report.mistake(number, "exclusion", format!("{why}; it excludes nothing")),
            },
            Some(("exclusion", _)) if in_section == Some(false) => {
                report.mistake(number, "exclusion", "does not stand in [exclusions]; it excludes nothing");
            }
            _ if in_section == Some(true) => {
                report.mistake(number, "", format!("{} is no exclusion = …, ignored", quoted(line)));
            }
            _ => {}
        }
    }
    (exclusions, report.into_findings())
}

fn exclusion(text: &str) -> Result<HostExclusion, String> {
    let mut exclusion = HostExclusion::default();
    let keys = &mut exclusion.keys;
    let mut empty = true;
    for field in text.split(';').map(str::trim).filter(|field| !field.is_empty()) {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("{} has no value", quoted(field)))?;
        let (key, value) = (key.trim(), value.trim());
        if value.is_empty() {
            return Err(format!("{} has no value", quoted(key)));
        }
        empty = false;
        let place = match key {
            "transport" => {
                let transport = Transport::parse(value);
                keys.transport = Some(transport.ok_or_else(|| format!("{} is no transport", quoted(value)))?);
                continue;
            }
            "traddr" => &mut keys.traddr,
            "trsvcid" => &mut keys.trsvcid,
            "nqn" => &mut keys.subsysnqn,
            "host-traddr" => &mut exclusion.host_traddr,
            "host-iface" => &mut keys.host_iface,
            "hostnqn" => &mut keys.host_nqn,
            "hostid" => &mut exclusion.host_id,
            _ => {
                let accepted = "transport, traddr, trsvcid, nqn, host-traddr, host-iface, hostnqn, hostid";
                return Err(format!("unknown key {}; accepted: {accepted}", quoted(key)));
            }
        };
        value.clone_into(place);
    }
    if empty { Err("is empty".to_owned()) } else { Ok(exclusion) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;
    use crate::config::settings::Exclusion;

    fn parse(text: &str) -> (Vec<HostExclusion>, Vec<String>) {
        let (exclusions, findings) = parse_exclusions(text, Path::new("/x"));
        (exclusions, findings.iter().map(Finding::to_string).collect())
    }

    #[test]
    fn entries_of_the_section_count_wherever_it_is_opened() {
        let (exclusions, findings) = parse(
            "# a list\n\n[ exclusions ] \n exclusion = transport=tcp; traddr=192.0.2.1 ;trsvcid=4420;nqn=nqn.a=b;\n\
             [other]\nx = 1\n[exclusions]\nexclusion=host-traddr=192.0.2.2;host-iface=eth0;hostnqn=nqn.h;hostid=1-2\n",
        );
        assert_eq!(findings, Vec::<String>::new());
        let keys = Exclusion {
            transport: Some(Transport::Tcp),
            traddr: "192.0.2.1".into(),
            trsvcid: "4420".into(),
            subsysnqn: "nqn.a=b".into(),
            ..Exclusion::default()
        };
        let first = HostExclusion { keys, place: "/x:4".into(), ..HostExclusion::default() };
        let keys = Exclusion { host_iface: "eth0".into(), host_nqn: "nqn.h".into(), ..Exclusion::default() };
        let (host_traddr, host_id, place) = ("192.0.2.2".into(), "1-2".into(), "/x:8".into());
        let second = HostExclusion { keys, host_traddr, host_id, place };
        assert_eq!(exclusions, [first, second]);
    }

    #[test]
    fn what_is_not_understood_excludes_nothing_and_is_told() {
        for (text, line) in [
            ("exclusion = nqn=nqn.a", 1),
            ("[other]\nexclusion = nqn=nqn.a", 2),
            ("[exclusions]\nexclusion = subsysnqn=nqn.a", 2),
            ("[exclusions]\nexclusion = nqn=nqn.a;trsvcid=", 2),
            ("[exclusions]\nexclusion = nqn=nqn.a;tcp", 2),
            ("[exclusions]\nexclusion = transport=pcie", 2),
            ("[exclusions]\nexclusion = ;", 2),
            ("[exclusions]\nexclude = nqn=nqn.a", 2),
            ("[exclusions\nexclusion = nqn=nqn.a", 1),
        ] {
            let (exclusions, findings) = parse(text);
            assert_eq!(exclusions, [], "{text}");
            assert!(findings.len() == 1 && findings[0].starts_with(&format!("/x:{line}: ")), "{text}: {findings:?}");
        }
    }

    #[test]
    fn drop_ins_are_read_and_nothing_needs_to_exist() {
        let scratch = Scratch::new();
        let main = scratch.join("exclusions.conf");
        assert_eq!(load_exclusions(&main), (vec![], vec![]));
        for (name, nqn) in [("b.conf", "nqn.b"), ("a.conf", "nqn.a"), ("c.conf~", "nqn.c"), (".conf", "nqn.d")] {
            let name = format!("exclusions.conf.d/{name}");
            scratch.file(&name, format!("[exclusions]\nexclusion = nqn={nqn}\n"), 0o644);
        }
        let nqns: Vec<_> = load_exclusions(&main).0.into_iter().map(|exclusion| exclusion.keys.subsysnqn).collect();
        assert_eq!(nqns, ["nqn.a", "nqn.b"]);
    }
}
