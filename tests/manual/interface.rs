//! The D-Bus interface: the introspection XML, the keys of the dictionaries, and the pages.

use std::collections::BTreeSet;

use stas::bus::pages::{FAILURE_KEY, PARKED_KEY};
use stas::bus::{EntryText, PageState, Role, introspect};

use crate::mdoc::arguments;
use crate::{code, page, same, set};

/// Interface, kind and the whole of it: `org.x Methods list_controllers(in b detailed, …)`.
fn members(xml: &str) -> BTreeSet<String> {
    let attribute =
        |line: &str, name: &str| code::between(line, &format!("{name}=\""), "\"").first().map(|v| v.to_string());
    let mut found = BTreeSet::new();
    let (mut interface, mut member, mut words): (String, Option<&str>, Vec<String>) = Default::default();
    for line in xml.lines().map(str::trim) {
        let name = attribute(line, "name").unwrap_or_default();
        if line.starts_with("<interface") {
            interface = name;
        } else if line.starts_with("<property") {
            let (kind, access) = (attribute(line, "type").unwrap(), attribute(line, "access").unwrap());
            found.insert(format!("{interface} Properties {name} {kind} {access}"));
        } else if line.starts_with("<method") || line.starts_with("<signal") {
            member = Some(if line.starts_with("<method") { "Methods" } else { "Signals" });
            words = vec![name];
        } else if line.starts_with("<arg") {
            let direction = attribute(line, "direction").filter(|_| member == Some("Methods"));
            let kind = attribute(line, "type").unwrap();
            words.push(direction.into_iter().chain([kind, name]).collect::<Vec<_>>().join(" "));
        }
        let ends = line.starts_with("</method") || line.starts_with("</signal") || line.ends_with("/>");
        if let Some(kind) = member.filter(|_| ends && !line.starts_with("<arg") && !line.starts_with("<property")) {
            found.insert(format!("{interface} {kind} {}", words.join(", ")));
            member = None;
        }
    }
    found
}

#[test]
fn every_member_has_its_place() {
    for (role, file) in [(Role::Finder, "org.nvmexpress.staf.5"), (Role::Connector, "org.nvmexpress.stac.5")] {
        let page = page(file);
        let all = members(introspect::xml(role));
        let (standard, ours): (BTreeSet<_>, BTreeSet<_>) =
            all.into_iter().partition(|member| member.starts_with("org.freedesktop."));
        let mut documented = BTreeSet::new();
        for subsection in page.subsections("DESCRIPTION") {
            let Some((kind, interface)) = subsection.split_once(" of ") else { continue };
            for item in page.items_of("DESCRIPTION", &subsection) {
                let (name, separator) = if kind == "Properties" { ("Va", " ") } else { ("Fn", ", ") };
                let mut words = arguments(&item.head, name);
                words.extend(if kind == "Properties" { arguments(&item.head, "Pq") } else { Vec::new() });
                documented.insert(format!("{interface} {kind} {}", words.join(separator)));
            }
        }
        same("members", &ours, "the introspection XML", &documented, file);
        let interfaces = set(standard.iter().map(|member| member.split(' ').next().unwrap()));
        let named = page.anywhere("DESCRIPTION", "", "Li");
        assert!(interfaces.is_subset(&named), "{file} does not name {:?}", interfaces.difference(&named));
    }
}

#[test]
fn every_key_of_a_dictionary_has_its_place() {
    // Written as ("key", value) for a controller; for the daemon as "key": value, or inserted.
    let source = code::source("src/daemon/publish.rs").split_whitespace().collect::<Vec<_>>().join(" ");
    let pairs = source.replace("( \"", "(\"");
    let pairs = code::between(&pairs, "(\"", "\",").into_iter().filter(|key| !key.is_empty() && !key.contains('"'));
    let members = source.split("\": ").map(|before| before.rsplit('"').next().unwrap());
    let members = members.filter(|key| key.chars().all(|c| c.is_ascii_alphanumeric() || " .-_".contains(c)));
    let inserted = code::between(&source, "insert(\"", "\"");
    let mut keys: BTreeSet<String> = set(pairs);
    keys.extend(set(members.chain(inserted).chain([FAILURE_KEY, PARKED_KEY, PageState::KEY])));
    let (finder, connector) = (page("org.nvmexpress.staf.5"), page("org.nvmexpress.stac.5"));
    let mut documented = BTreeSet::new();
    for page in [&finder, &connector] {
        for subsection in ["Controllers", "The daemon"] {
            // A key may have spaces: all between two macros is one.
            let items = page.items_of("DESCRIPTION", subsection);
            let heads =
                items.flat_map(|item| item.head.split("Li ").map(|key| key.trim().to_owned()).collect::<Vec<_>>());
            documented.extend(heads.map(|key| key.trim_end_matches(" ,").to_owned()).filter(|key| !key.is_empty()));
        }
    }
    same("keys", &keys, "src/daemon/publish.rs", &documented, "the pages of the D-Bus interfaces");
    let entry = EntryText::default();
    let of_entry = set(entry.pairs().iter().map(|(key, _)| *key));
    same("keys", &of_entry, "a log page entry", &finder.heads("DESCRIPTION", "Log page entries", "Li"), &finder.file);
}
