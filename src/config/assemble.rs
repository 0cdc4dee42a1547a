//! From the keys of a file to the settings of a daemon. The same for both syntaxes and, as far as they share keys, for both
//! daemons.

use crate::config::controller::{controller, controller_keys, exclusion};
use crate::config::finding::{Report, quoted};
use crate::config::keys::{
    COMMON, CONNECTOR, CONTROLLERS, FINDER, Key, KnownKey, OPTIONS, QUEUES, known, set, unknown,
};
use crate::config::settings::{Common, ConnectorSettings, ControllerEntry, FinderSettings};
use crate::config::value::{Entry, Value};
use crate::core::device::ControllerKind;
use crate::suggest;

const CONTROLLER: &str = "controller";
const EXCLUDE: &str = "exclude";

/// What differs between `stafd.conf` and `stacd.conf`.
pub(super) trait Daemon: Default + 'static {
    /// The controllers it connects.
    const KIND: ControllerKind;
    const KEYS: &'static [Key<Self>];

    fn common(&mut self) -> &mut Common;
}

impl Daemon for FinderSettings {
    const KIND: ControllerKind = ControllerKind::Discovery;
    const KEYS: &'static [Key<FinderSettings>] = FINDER;

    fn common(&mut self) -> &mut Common {
        &mut self.common
    }
}

impl Daemon for ConnectorSettings {
    const KIND: ControllerKind = ControllerKind::Io;
    const KEYS: &'static [Key<ConnectorSettings>] = CONNECTOR;

    fn common(&mut self) -> &mut Common {
        &mut self.common
    }
}

/// The settings that `entries` make of the defaults. Where a key repeats, the last one counts.
pub(super) fn settings<D: Daemon>(entries: &[Entry], report: &mut Report<'_>) -> D {
    let mut settings = D::default();
    for entry in entries {
        place(&mut settings, entry, report);
    }
    settings
}

fn place<D: Daemon>(settings: &mut D, entry: &Entry, report: &mut Report<'_>) {
    let of_controllers = entry.section.as_deref().is_none_or(|section| section == CONTROLLERS);
    match (entry.key.as_str(), &entry.value) {
        (CONTROLLER, Value::Table(fields)) if of_controllers => {
            let controllers = &mut settings.common().controllers;
            if let Some(controller) = controller(D::KIND, fields, entry.line, report) {
                match controllers.iter().find(|other| contradict(&controller, other)) {
                    Some(_) => report.mistake(entry.line, "host-id", ONE_TO_ONE),
                    None => controllers.push(controller),
                }
            }
        }
        (EXCLUDE, Value::Table(fields)) if of_controllers => {
            settings.common().exclusions.extend(exclusion(fields, entry.line, report));
        }
        (key @ (CONTROLLER | EXCLUDE), _) if of_controllers => {
            report.mistake(entry.line, key, format!("is not a table; accepted: [[{key}]] with its keys below"));
        }
        _ => match set_scalar(settings, entry) {
            Some(Ok(())) => {}
            Some(Err(why)) => report.mistake(entry.line, &entry.key, why),
            None => report.mistake(entry.line, "", unknown_key::<D>(entry)),
        },
    }
}

const ONE_TO_ONE: &str = "contradicts an earlier controller, and this one is left out: a host NQN has one host ID, and a host ID \
                          one host NQN";

fn contradict(one: &ControllerEntry, other: &ControllerEntry) -> bool {
    let both_given = !one.host_id.is_empty() && !other.host_id.is_empty();
    both_given && (one.host_nqn == other.host_nqn) != (one.host_id == other.host_id)
}

fn set_scalar<D: Daemon>(settings: &mut D, entry: &Entry) -> Option<Result<(), String>> {
    set(D::KEYS, settings, entry).or_else(|| {
        let common = settings.common();
        set(COMMON, common, entry)
            .or_else(|| set(OPTIONS, &mut common.options, entry))
            .or_else(|| if has_queues::<D>() { set(QUEUES, &mut common.options, entry) } else { None })
    })
}

fn has_queues<D: Daemon>() -> bool {
    D::KIND == ControllerKind::Io
}

fn unknown_key<D: Daemon>(entry: &Entry) -> String {
    match &entry.section {
        Some(section) => {
            let keys = top_level_keys::<D>();
            let place = match keys.iter().find(|key| key.name == entry.key) {
                Some(key) => format!(", it belongs into [{}]", key.section),
                None => {
                    let of_section = keys.iter().filter(|key| key.section == section).map(|key| key.name);
                    suggest::meant(&entry.key, of_section)
                }
            };
            format!("unknown key {} in [{section}]{place}, ignored", quoted(&entry.key))
        }
        None if controller_keys().iter().any(|key| key.name == entry.key) => {
            format!("{} belongs into a table, below [[controller]] or [[exclude]]", quoted(&entry.key))
        }
        None => unknown(&entry.key, &top_level_keys::<D>()),
    }
}

/// All keys that `D` has outside of tables, and the tables.
pub(super) fn top_level_keys<D: Daemon>() -> Vec<KnownKey> {
    let queues: &'static [_] = if has_queues::<D>() { QUEUES } else { &[] };
    let tables = [CONTROLLER, EXCLUDE].map(|name| KnownKey { name, section: CONTROLLERS });
    known(COMMON).chain(known(OPTIONS)).chain(known(queues)).chain(known(D::KEYS)).chain(tables).collect()
}

/// Whether either daemon has a key of this name outside of tables.
pub(super) fn is_top_level(name: &str) -> bool {
    let of_both = [top_level_keys::<FinderSettings>(), top_level_keys::<ConnectorSettings>()];
    of_both.iter().flatten().any(|key| key.name == name)
}
