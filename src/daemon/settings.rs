//! The configuration in force: read at start and on SIGHUP.
//!
//! At start, what is wrong with a file of nvme-stas' dialect costs only itself, as there. A reload is stricter, for it
//! could cost storage that is in use: with a mistake that was not there before, or with a file gone, nothing changes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use log::Level;

use crate::config::settings::{ConnectorSettings, FinderSettings, HostIdentity, IpFamily};
use crate::config::{self, Finding, Loaded, Severity};
use crate::core::Event;
use crate::core::nbft::{Configured, Entries};
use crate::daemon::options::Options;

/// Who this host is, and what its administrator wants.
#[derive(Debug)]
pub struct Settings {
    pub host: HostIdentity,
    pub tron: bool,
    finder: Option<Box<FinderSettings>>,
    connector: Option<Box<ConnectorSettings>>,
    /// What is wrong with the files, though they can be used.
    mistakes: BTreeSet<String>,
    /// The files that there were.
    files: BTreeSet<PathBuf>,
}

/// Where the settings are.
#[derive(Debug, Clone)]
pub struct Paths {
    finder: Option<PathBuf>,
    connector: Option<PathBuf>,
    sys: PathBuf,
    /// Who this host is whatever its files say, as long as it is booted.
    host: Option<HostIdentity>,
}

impl Paths {
    /// `host`: who this host is, whatever its files say.
    pub fn new(options: &Options, host: Option<HostIdentity>) -> Paths {
        let roles = options.program.roles();
        Paths {
            finder: roles.finder.then(|| options.finder_conf.clone()),
            connector: roles.connector.then(|| options.connector_conf.clone()),
            sys: options.sys_conf.clone(),
            host,
        }
    }

    /// Where the host's name is known, its files may be missing: they need not be in an initramfs.
    fn load_host(&self, mistakes: &mut BTreeSet<String>) -> Option<HostIdentity> {
        let Some(known) = &self.host else {
            return report(config::load_identity(&self.sys), mistakes);
        };
        let Ok(loaded) = config::load_identity(&self.sys) else {
            return Some(known.clone());
        };
        let (nqn, id) = (known.nqn.clone(), known.id.clone());
        report(Ok(loaded), mistakes).map(|host| HostIdentity { nqn, id, ..host })
    }

    /// Reads all files, logs what is remarkable, and yields settings only if none has an error.
    pub fn load(&self) -> Option<Settings> {
        let mut mistakes = BTreeSet::new();
        let host = self.load_host(&mut mistakes);
        let finder = self.finder.as_deref().map(|path| report(config::load_finder(path), &mut mistakes));
        let connector = self.connector.as_deref().map(|path| report(config::load_connector(path), &mut mistakes));
        // Only now, so that all files have been looked at and all that is wrong has been said.
        let (host, finder, connector) = (host?, required(finder)?, required(connector)?);
        let tron = finder.as_ref().is_some_and(|finder| finder.common.tron)
            || connector.as_ref().is_some_and(|connector| connector.common.tron);
        let paths = [Some(&self.sys), self.finder.as_ref(), self.connector.as_ref()];
        let files = paths.into_iter().flatten().filter(|path| path.exists()).cloned().collect();
        let (finder, connector) = (finder.map(Box::new), connector.map(Box::new));
        let mut settings = Settings { host, tron, finder, connector, mistakes, files };
        for complaint in settings.contradictions() {
            log::error!("{complaint}");
            settings.mistakes.insert(complaint);
        }
        Some(settings)
    }

    /// The same for a reload; `None` also where the files are worse than those of the running settings.
    pub fn reload(&self, running: &Settings) -> Option<Settings> {
        let mut settings = self.load()?;
        for path in running.files.difference(&settings.files) {
            log::error!("{}: is gone; put it back, empty if nothing is to be configured", path.display());
        }
        if !running.files.is_subset(&settings.files) || !settings.mistakes.is_subset(&running.mistakes) {
            return None;
        }
        settings.keep_identity(running);
        Some(settings)
    }
}

impl Settings {
    /// Every connection is known by the host's names: another name would make strangers of all of them.
    fn keep_identity(&mut self, running: &Settings) {
        if (&self.host.nqn, &self.host.id) != (&running.host.nqn, &running.host.id) {
            log::warn!("the host NQN or host ID changed: that takes effect when the daemon is started anew");
            self.host.nqn = running.host.nqn.clone();
            self.host.id = running.host.id.clone();
        }
    }

    /// What is wrong with the host ids.
    fn contradictions(&self) -> Vec<String> {
        let Configured { finder, connector, .. } = self.configured();
        config::host_ids(&self.host, finder.into_iter().chain(connector)).1
    }

    /// The address families of which announcements in the local network are wanted; `None`: none are.
    pub fn announcements(&self) -> Option<IpFamily> {
        self.finder.as_ref().filter(|finder| finder.zeroconf).map(|finder| finder.common.ip_family)
    }

    /// Whether what this host uses may be taken down.
    pub fn disconnects_in_use(&self) -> bool {
        self.connector.as_ref().is_some_and(|connector| connector.disconnect_in_use)
    }

    /// For the state machines, with what the firmware asks for: the names of this host, and what is wanted.
    pub fn events(&self, firmware: Entries) -> [Event; 2] {
        let (mut finder, mut connector) = (self.finder.clone(), self.connector.clone());
        if let Some(finder) = &mut finder {
            finder.common.controllers.extend(firmware.discovery);
        }
        if let Some(connector) = &mut connector {
            connector.common.controllers.extend(firmware.io);
        }
        let commons = finder.iter().map(|finder| &finder.common).chain(connector.iter().map(|one| &one.common));
        let (ids, _) = config::host_ids(&self.host, commons);
        let (host_nqn, symname) = (self.host.nqn.clone(), self.host.symname.clone().unwrap_or_default());
        [Event::HostNamed(ids), Event::Configured { host_nqn, symname, finder, connector }]
    }

    /// What the firmware's controllers have to be connected with.
    pub fn configured(&self) -> Configured<'_> {
        Configured {
            finder: self.finder.as_deref().map(|finder| &finder.common),
            connector: self.connector.as_deref().map(|connector| &connector.common),
            host_key: self.host.key.is_some(),
        }
    }

    /// Whether it names any controller.
    pub fn names_any(&self) -> bool {
        let Configured { finder, connector, .. } = self.configured();
        [finder, connector].into_iter().flatten().any(|common| !common.controllers.is_empty())
    }
}

/// A role that this process does not have needs no settings; one that it has does.
fn required<S>(settings: Option<Option<S>>) -> Option<Option<S>> {
    match settings {
        Some(None) => None,
        Some(settings) => Some(settings),
        None => Some(None),
    }
}

/// Logs the findings about a file; mistakes are also noted, without the line, which moves.
fn report<S>(outcome: Result<Loaded<S>, Vec<Finding>>, mistakes: &mut BTreeSet<String>) -> Option<S> {
    let (settings, findings) = match outcome {
        Ok(Loaded { settings, findings }) => (Some(settings), findings),
        Err(findings) => (None, findings),
    };
    for finding in findings {
        let level = match finding.severity {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warn,
            Severity::Info => Level::Info,
        };
        log::log!(level, "{finding}");
        if finding.severity >= Severity::Warning {
            mistakes.insert(format!("{} {:?} {}", finding.path.display(), finding.key, finding.message));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The files of a `stacd` in a directory of its own.
    fn paths(name: &str, stacd_conf: &str) -> Paths {
        let directory = std::env::temp_dir().join(format!("stas-settings-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let connector = Some(directory.join("stacd.conf"));
        let paths = Paths { finder: None, connector, sys: directory.join("sys.conf"), host: None };
        fs::write(&paths.sys, "nqn = \"nqn.a\"\nid = \"f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f\"\n").unwrap();
        fs::write(paths.connector.as_ref().unwrap(), stacd_conf).unwrap();
        paths
    }

    const INI: &str = "[Controllers]\ncontroller=transport=tcp;traddr=192.0.2.1;trsvcid=4420;nqn=nqn.x\nodd=1\n";

    #[test]
    fn a_reload_with_a_new_mistake_changes_nothing() {
        let paths = paths("mistake", INI);
        let conf = paths.connector.clone().unwrap();
        let running = paths.load().unwrap();
        assert!(paths.reload(&running).is_some(), "the mistake that was there before is no news");
        for broken in [INI.replace("tcp", "tpc"), INI.replace("[Controllers]", "[Contrlolers]"), "kato = yes".into()] {
            fs::write(&conf, &broken).unwrap();
            assert!(paths.reload(&running).is_none(), "{broken}");
        }
        fs::write(&conf, format!("# moved\n{INI}")).unwrap();
        assert!(paths.reload(&running).is_some());
    }

    #[test]
    fn a_reload_without_the_file_changes_nothing() {
        let paths = paths("gone", INI);
        let running = paths.load().unwrap();
        fs::remove_file(paths.connector.as_ref().unwrap()).unwrap();
        assert!(paths.reload(&running).is_none());
        assert!(paths.load().is_some(), "at start there need not be one");
    }

    #[test]
    fn a_reload_does_not_change_who_we_are() {
        let paths = paths("identity", INI);
        let running = paths.load().unwrap();
        let sys_conf = fs::read_to_string(&paths.sys).unwrap().replace("nqn.a", "nqn.b");
        fs::write(&paths.sys, sys_conf).unwrap();
        assert_eq!(paths.reload(&running).unwrap().host.nqn, "nqn.a");
        assert_eq!(paths.load().unwrap().host.nqn, "nqn.b");
    }
}
