//! The configuration in force: read at start and on SIGHUP, by the helper.
//!
//! At start, what is wrong with a file of nvme-stas' dialect costs only itself, as there. A reload is stricter, for it
//! could cost storage that is in use: with a mistake that was not there before, or with a file gone, nothing changes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use log::Level;

use crate::config::settings::{ConnectorSettings, FinderSettings, HostIdentity, IpFamily};
use crate::config::{self, Configuration, Finding, Severity};
use crate::core::Event;
use crate::core::nbft::{Configured, Entries};
use crate::daemon::options::Program;

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

impl Settings {
    /// Logs what is remarkable about the files, and yields settings only if none has an error. `known`: who this host is,
    /// whatever its files say; they may be missing then, for they need not be in an initramfs.
    pub fn new(program: Program, configuration: Configuration, known: Option<HostIdentity>) -> Option<Settings> {
        let Configuration { host, finder, connector, mut findings, files, .. } = configuration;
        let host = match (host, known) {
            (Ok(host), Some(HostIdentity { nqn, id, .. })) => Some(HostIdentity { nqn, id, ..host }),
            (Ok(host), None) => Some(host),
            (Err(_), Some(known)) => Some(known),
            (Err(found), None) => {
                findings.extend(found);
                None
            }
        };
        let mut mistakes = report(&findings);
        let roles = program.roles();
        if (roles.finder && finder.is_none()) || (roles.connector && connector.is_none()) {
            return None;
        }
        let host = host?;
        let tron = finder.as_ref().is_some_and(|finder| finder.common.tron)
            || connector.as_ref().is_some_and(|connector| connector.common.tron);
        let mut settings = Settings { host, tron, finder, connector, mistakes: BTreeSet::new(), files };
        for complaint in settings.contradictions() {
            log::error!("{complaint}");
            mistakes.insert(complaint);
        }
        settings.mistakes = mistakes;
        Some(settings)
    }

    /// The same for a reload; `None` also where the files are worse than those of the running settings.
    pub fn anew(&self, program: Program, configuration: Configuration) -> Option<Settings> {
        let mut settings = Settings::new(program, configuration, None)?;
        for path in self.files.difference(&settings.files) {
            log::error!("{}: is gone; put it back, empty if nothing is to be configured", path.display());
        }
        if !self.files.is_subset(&settings.files) || !settings.mistakes.is_subset(&self.mistakes) {
            return None;
        }
        settings.keep_identity(self);
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

/// Logs findings; the mistakes among them are returned, without the line, which moves.
fn report(findings: &[Finding]) -> BTreeSet<String> {
    let mut mistakes = BTreeSet::new();
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
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Paths;
    use std::fs;

    /// The files of a `stacd` in a directory of its own.
    fn paths(name: &str, stacd_conf: &str) -> Paths {
        let directory = std::env::temp_dir().join(format!("stas-settings-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let connector = Some(directory.join("stacd.conf"));
        let paths = Paths { finder: None, connector, sys: directory.join("sys.conf") };
        fs::write(&paths.sys, "nqn = \"nqn.a\"\nid = \"f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f\"\n").unwrap();
        fs::write(paths.connector.as_ref().unwrap(), stacd_conf).unwrap();
        paths
    }

    fn load(paths: &Paths) -> Option<Settings> {
        Settings::new(Program::Stacd, paths.read(), None)
    }

    fn reload(running: &Settings, paths: &Paths) -> Option<Settings> {
        running.anew(Program::Stacd, paths.read())
    }

    const INI: &str = "[Controllers]\ncontroller=transport=tcp;traddr=192.0.2.1;trsvcid=4420;nqn=nqn.x\nodd=1\n";

    #[test]
    fn a_reload_with_a_new_mistake_changes_nothing() {
        let paths = paths("mistake", INI);
        let conf = paths.connector.clone().unwrap();
        let running = load(&paths).unwrap();
        assert!(reload(&running, &paths).is_some(), "the mistake that was there before is no news");
        for broken in [INI.replace("tcp", "tpc"), INI.replace("[Controllers]", "[Contrlolers]"), "kato = yes".into()] {
            fs::write(&conf, &broken).unwrap();
            assert!(reload(&running, &paths).is_none(), "{broken}");
        }
        fs::write(&conf, format!("# moved\n{INI}")).unwrap();
        assert!(reload(&running, &paths).is_some());
    }

    #[test]
    fn a_reload_without_the_file_changes_nothing() {
        let paths = paths("gone", INI);
        let running = load(&paths).unwrap();
        fs::remove_file(paths.connector.as_ref().unwrap()).unwrap();
        assert!(reload(&running, &paths).is_none());
        assert!(load(&paths).is_some(), "at start there need not be one");
    }

    #[test]
    fn a_reload_does_not_change_who_we_are() {
        let paths = paths("identity", INI);
        let running = load(&paths).unwrap();
        let sys_conf = fs::read_to_string(&paths.sys).unwrap().replace("nqn.a", "nqn.b");
        fs::write(&paths.sys, sys_conf).unwrap();
        assert_eq!(reload(&running, &paths).unwrap().host.nqn, "nqn.a");
        assert_eq!(load(&paths).unwrap().host.nqn, "nqn.b");
    }
}
