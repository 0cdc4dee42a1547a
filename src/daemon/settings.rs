//! The configuration in force: read at start and on SIGHUP. A reload that finds a mistake changes nothing.

use std::path::{Path, PathBuf};

use log::Level;

use crate::config::settings::{ConnectorSettings, FinderSettings, HostIdentity, IpFamily};
use crate::config::{self, Finding, Loaded, Severity};
use crate::core::Event;
use crate::daemon::options::Options;

/// Who this host is, and what its administrator wants.
#[derive(Debug)]
pub struct Settings {
    pub host: HostIdentity,
    pub tron: bool,
    finder: Option<Box<FinderSettings>>,
    connector: Option<Box<ConnectorSettings>>,
}

/// Where the settings are.
#[derive(Debug, Clone)]
pub struct Paths {
    finder: Option<PathBuf>,
    connector: Option<PathBuf>,
    sys: PathBuf,
}

impl Paths {
    pub fn new(options: &Options) -> Paths {
        let roles = options.program.roles();
        Paths {
            finder: roles.finder.then(|| options.finder_conf.clone()),
            connector: roles.connector.then(|| options.connector_conf.clone()),
            sys: options.sys_conf.clone(),
        }
    }

    /// Reads all files, logs what is remarkable, and yields settings only if none has an error.
    pub fn load(&self) -> Option<Settings> {
        let host = report(config::load_identity(&self.sys));
        let finder = self.finder.as_deref().map(|path| load(path, config::load_finder));
        let connector = self.connector.as_deref().map(|path| load(path, config::load_connector));
        // Only now, so that all files have been looked at and all that is wrong has been said.
        let (host, finder, connector) = (host?, required(finder)?, required(connector)?);
        let tron = finder.as_ref().is_some_and(|finder| finder.common.tron)
            || connector.as_ref().is_some_and(|connector| connector.common.tron);
        Some(Settings { host, tron, finder, connector })
    }
}

impl Settings {
    /// The address families of which announcements in the local network are wanted; `None`: none are.
    pub fn announcements(&self) -> Option<IpFamily> {
        self.finder.as_ref().filter(|finder| finder.zeroconf).map(|finder| finder.common.ip_family)
    }

    /// For the state machines.
    pub fn event(&self) -> Event {
        Event::Configured {
            host_nqn: self.host.nqn.clone(),
            finder: self.finder.clone(),
            connector: self.connector.clone(),
        }
    }
}

type Loading<S> = fn(&Path) -> Result<Loaded<S>, Vec<Finding>>;

fn load<S>(path: &Path, loading: Loading<S>) -> Option<Box<S>> {
    report(loading(path)).map(Box::new)
}

/// A role that this process does not have needs no settings; one that it has does.
fn required<S>(settings: Option<Option<S>>) -> Option<Option<S>> {
    match settings {
        Some(None) => None,
        Some(settings) => Some(settings),
        None => Some(None),
    }
}

fn report<S>(outcome: Result<Loaded<S>, Vec<Finding>>) -> Option<S> {
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
    }
    settings
}
