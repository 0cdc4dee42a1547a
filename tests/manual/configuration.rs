//! Keys and their defaults: the tables of the parser, the settings' own defaults, the pages, and the files that are
//! installed in `/etc/stas`, where every key is commented out.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use stas::config::settings::{ConnectorSettings, FinderSettings};
use stas::config::{
    Finding, ID_FILE, IdentitySources, KEY_FILE, KeysOf, KnownKey, Loaded, NQN_FILE, known_keys, parse_connector,
    parse_finder, parse_identity,
};

use crate::mdoc::{Item, Page, arguments};
use crate::{page, project, same, set};

/// The tables, as keys.
const TABLES: [&str; 2] = ["controller", "exclude"];

/// A file of configuration.
struct File {
    name: &'static str,
    keys: KeysOf,
    /// Its settings as JSON, and those of an empty file.
    parse: fn(&str) -> Result<Value, String>,
}

const FILES: [File; 3] = [
    File { name: "stafd.conf", keys: KeysOf::Finder, parse: |text| json(parse_finder(text, Path::new("stafd.conf"))) },
    File {
        name: "stacd.conf",
        keys: KeysOf::Connector,
        parse: |text| json(parse_connector(text, Path::new("stacd.conf"))),
    },
    File { name: "sys.conf", keys: KeysOf::Identity, parse: parse_sys },
];

fn json<S: Serialize>(loaded: Result<Loaded<S>, Vec<Finding>>) -> Result<Value, String> {
    Ok(serde_json::to_value(clean(loaded)?).unwrap())
}

fn clean<S>(loaded: Result<Loaded<S>, Vec<Finding>>) -> Result<S, String> {
    match loaded {
        Ok(loaded) if loaded.findings.is_empty() => Ok(loaded.settings),
        Ok(loaded) => Err(format!("{:?}", loaded.findings)),
        Err(findings) => Err(format!("{findings:?}")),
    }
}

/// Where `sys.conf` says nothing, there is a file of its own.
fn parse_sys(text: &str) -> Result<Value, String> {
    let sources = clean(parse_identity(text, Path::new("sys.conf")))?;
    let or = |value: String, file: &str| if value.is_empty() { format!("file://{file}") } else { value };
    let IdentitySources { nqn, id, key, symname } = sources;
    let key = or(key.reveal().to_owned(), KEY_FILE);
    Ok(serde_json::json!({"nqn": or(nqn, NQN_FILE), "id": or(id, ID_FILE), "key": key, "symname": symname}))
}

impl File {
    fn page(&self) -> Page {
        page(&format!("{}.5", self.name))
    }

    fn shipped(&self) -> String {
        std::fs::read_to_string(project("etc/stas").join(self.name)).unwrap()
    }

    /// All keys outside of tables.
    fn top_level(&self) -> Vec<KnownKey> {
        known_keys(self.keys).into_iter().filter(|key| !TABLES.contains(&key.name)).collect()
    }
}

/// `#key = value`, less the sign; prose has a space behind it.
fn is_key(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('#').filter(|rest| !rest.starts_with(' '))?.split_once(" = ")
}

/// The keys that stand before the first table, with the prose above them.
fn shown(text: &str) -> Vec<(&str, &str, String)> {
    let mut shown = Vec::new();
    for paragraph in text.split("#[[").next().unwrap().split("\n\n") {
        let prose: Vec<&str> = paragraph.lines().filter(|line| is_key(line).is_none()).collect();
        shown.extend(paragraph.lines().filter_map(is_key).map(|(key, value)| (key, value, prose.join("\n"))));
    }
    shown
}

/// What of the defaults another value differs in.
fn difference<'a>(default: &'a Value, other: &Value) -> Vec<&'a Value> {
    match (default, other) {
        (Value::Object(ours), Value::Object(theirs)) => {
            ours.iter().flat_map(|(key, value)| difference(value, &theirs[key])).collect()
        }
        _ if default == other => Vec::new(),
        _ => vec![default],
    }
}

/// That the default is nothing is said like that, because it is not a value to be set.
fn says_unset(text: &str) -> bool {
    ["the kernel's", "not given"].iter().any(|words| text.contains(words))
}

#[test]
fn every_key_has_its_place_in_its_page() {
    for file in FILES {
        let page = file.page();
        let keys = set(file.top_level().iter().map(|key| key.name));
        same("keys", &keys, "src/config/keys.rs", &page.heads("KEYS", "", "Va"), &page.file);
        if file.keys == KeysOf::Identity {
            continue;
        }
        let in_tables = page.subsections("TABLES");
        assert_eq!(in_tables, set(TABLES.map(|table| format!("[[{table}]]"))), "{}", page.file);
        let anywhere = page.heads("KEYS", "Connections", "Va");
        let of_controller = set(known_keys(KeysOf::Controller).iter().map(|key| key.name));
        assert!(anywhere.is_subset(&of_controller), "{}: Connections has what no controller has", page.file);
        let own = of_controller.difference(&anywhere).cloned().collect();
        same(
            "keys of a controller",
            &own,
            "src/config/keys.rs",
            &page.anywhere("TABLES", "[[controller]]", "Va"),
            &page.file,
        );
        let of_exclusion = set(known_keys(KeysOf::Exclusion).iter().map(|key| key.name));
        same(
            "keys of an exclusion",
            &of_exclusion,
            "src/config/keys.rs",
            &page.heads("TABLES", "[[exclude]]", "Va"),
            &page.file,
        );
    }
}

#[test]
fn every_key_has_its_section_in_the_dialect_of_nvme_stas() {
    for file in FILES {
        let page = file.page();
        let sections = |keys: &[KnownKey]| set(keys.iter().map(|key| format!("[{}] {}", key.section, key.name)));
        let pairs = |item: &Item| {
            let section = item.head.strip_prefix("Bq ").unwrap_or_else(|| panic!("{}: {}", page.file, item.head));
            item.body_arguments("Va").into_iter().map(|key| format!("[{section}] {key}")).collect::<Vec<_>>()
        };
        let documented: BTreeSet<String> = page.items_of("COMPATIBILITY", "").flat_map(pairs).collect();
        same("keys", &sections(&known_keys(file.keys)), "src/config/keys.rs", &documented, &page.file);
    }
}

#[test]
fn defaults_are_the_real_ones() {
    for file in FILES {
        let (page, text, parse) = (file.page(), file.shipped(), file.parse);
        let (shown, default) = (shown(&text), parse("").unwrap());
        let shipped = format!("etc/stas/{}", file.name);
        let keys = set(file.top_level().iter().map(|key| key.name));
        same("keys", &keys, "src/config/keys.rs", &set(shown.iter().map(|(key, ..)| *key)), &shipped);
        for (key, value, prose) in shown {
            let set = parse(&format!("{key} = {value}\n")).unwrap_or_else(|why| panic!("{shipped}: {key}: {why}"));
            let different = difference(&default, &set);
            let item = page.items_of("KEYS", "").find(|item| arguments(&item.head, "Va") == [key]);
            let item = item.unwrap_or_else(|| panic!("{}: {key} has no place in it", page.file));
            let documented = item.default().unwrap_or_else(|| panic!("{}: {key} has no Default:", page.file));
            match different.iter().find(|default| !default.is_null()) {
                None if different.is_empty() => {
                    assert_eq!(documented, (true, value.to_owned()), "{}: the default of {key}", page.file);
                }
                None => {
                    assert!(
                        says_unset(&prose),
                        "{shipped}: {key} is not set by default; say \"Default: the kernel's\""
                    );
                    let (is_value, words) = documented;
                    assert!(!is_value && says_unset(&words), "{}: {key} is not set by default: {words}", page.file);
                }
                Some(real) => panic!("{shipped}: {key} = {value} is not the default, which is {real}"),
            }
        }
    }
}

#[test]
fn files_mean_the_defaults_as_they_are_installed_and_with_all_keys_active() {
    assert_eq!(
        json(parse_finder("", Path::new(""))).unwrap(),
        serde_json::to_value(FinderSettings::default()).unwrap()
    );
    let connector = serde_json::to_value(ConnectorSettings::default()).unwrap();
    assert_eq!(json(parse_connector("", Path::new(""))).unwrap(), connector);
    for file in FILES {
        let (text, parse) = (file.shipped(), file.parse);
        let default = parse("").unwrap();
        assert_eq!(parse(&text).unwrap(), default, "{} as installed", file.name);
        let active = |line: &str| {
            let stripped = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line);
            format!("{stripped}\n")
        };
        let all: String = text.lines().map(active).collect();
        let mut settings = parse(&all).unwrap_or_else(|why| panic!("{} with all keys active: {why}", file.name));
        if let Some(common) = settings.get_mut("common") {
            for (list, length) in [("controllers", 1), ("exclusions", 1)] {
                assert_eq!(common[list].as_array().unwrap().len(), length, "{}: {list}", file.name);
                common[list] = Value::Array(Vec::new());
            }
        }
        let different = difference(&default, &settings);
        assert!(different.iter().all(|default| default.is_null()), "{}: {different:?}", file.name);
    }
}

/// The keys of a table stand below it, each with an example.
#[test]
fn installed_files_show_the_keys_of_tables() {
    for file in FILES.iter().filter(|file| file.keys != KeysOf::Identity) {
        let text = file.shipped();
        let (_, tables) = text.split_once("#[[controller]]").unwrap();
        let (controller, exclude) = tables.split_once("#[[exclude]]").unwrap();
        let top_level = set(file.top_level().iter().map(|key| key.name));
        for (table, keys, text) in
            [("controller", KeysOf::Controller, controller), ("exclude", KeysOf::Exclusion, exclude)]
        {
            let keys = set(known_keys(keys).iter().map(|key| key.name)).difference(&top_level).cloned().collect();
            let mut shown = set(text.lines().filter_map(is_key).map(|(key, _)| key));
            // Another name of nqn.
            shown.insert("subsysnqn".to_owned());
            same(
                &format!("keys of [[{table}]]"),
                &keys,
                "src/config/keys.rs",
                &shown,
                &format!("etc/stas/{}", file.name),
            );
        }
    }
}
