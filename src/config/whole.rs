//! All that a daemon is configured with, read at once. The helper does it for the daemon, which may not read these files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::settings::{ConnectorSettings, FinderSettings, HostIdentity};
use crate::config::{EXCLUSIONS, Finding, Loaded, load_connector, load_exclusions, load_finder, load_identity};
use crate::core::exclusion::HostExclusion;

/// Where it stands; no path for a role that the process does not have.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    pub finder: Option<PathBuf>,
    pub connector: Option<PathBuf>,
    pub sys: PathBuf,
}

/// What the files say. Without settings that were to be had, it cannot be used, and the findings say why.
#[derive(Debug, Serialize, Deserialize)]
pub struct Configuration {
    /// Or why it is not known.
    pub host: Result<HostIdentity, Vec<Finding>>,
    pub finder: Option<Box<FinderSettings>>,
    pub connector: Option<Box<ConnectorSettings>>,
    pub findings: Vec<Finding>,
    /// The files that there are.
    pub files: BTreeSet<PathBuf>,
    pub exclusions: Exclusions,
}

/// What no program of this host is to connect of its own accord, and what is wrong with the lists of that.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Exclusions {
    pub list: Vec<HostExclusion>,
    pub findings: Vec<Finding>,
}

impl Paths {
    /// Reads all files.
    pub fn read(&self) -> Configuration {
        let mut findings = Vec::new();
        let host = load_identity(&self.sys).map(|loaded| {
            findings.extend(loaded.findings);
            loaded.settings
        });
        let finder = self.finder.as_deref().and_then(|path| sort(load_finder(path), &mut findings));
        let connector = self.connector.as_deref().and_then(|path| sort(load_connector(path), &mut findings));
        let paths = [Some(&self.sys), self.finder.as_ref(), self.connector.as_ref()];
        let files = paths.into_iter().flatten().filter(|path| path.exists()).cloned().collect();
        let (finder, connector) = (finder.map(Box::new), connector.map(Box::new));
        Configuration { host, finder, connector, findings, files, exclusions: Exclusions::read() }
    }
}

impl Exclusions {
    pub fn read() -> Exclusions {
        let (list, findings) = load_exclusions(Path::new(EXCLUSIONS));
        Exclusions { list, findings }
    }
}

fn sort<S>(outcome: Result<Loaded<S>, Vec<Finding>>, findings: &mut Vec<Finding>) -> Option<S> {
    let (settings, found) = match outcome {
        Ok(Loaded { settings, findings }) => (Some(settings), findings),
        Err(findings) => (None, findings),
    };
    findings.extend(found);
    settings
}
