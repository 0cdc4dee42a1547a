//! Which files can be opened: landlock(7).
//!
//! Rules are about what is there when they are made: a directory that is removed and made anew is another one. Landlock says
//! nothing of attributes (`chmod`), of looking whether a file exists, of inotify, nor of sockets in the file system.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope,
};

use super::Places;

/// The newest version whose rights we know: those that a kernel lacks are left out.
const NEWEST: ABI = ABI::V6;

/// `Err` says why the kernel does not do it.
pub fn restrict_to(places: &Places) -> Result<(), String> {
    match restrict(places) {
        Ok(RulesetStatus::NotEnforced) => Err("this kernel does not have it, or it is switched off (lsm=)".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn restrict(places: &Places) -> Result<RulesetStatus, RulesetError> {
    let rules = Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?;
    // Signals go to nobody outside.
    let mut rules = rules.scope(Scope::Signal)?.create()?;
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let writing = reading
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir;
    for place in places.read.iter().filter_map(|path| open(path)) {
        rules = rules.add_rule(PathBeneath::new(place, reading))?;
    }
    for place in places.write.iter().filter_map(|path| open_nearest(path)) {
        rules = rules.add_rule(PathBeneath::new(place, writing))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

fn open(path: &Path) -> Option<PathFd> {
    PathFd::new(path).ok()
}

/// The directory itself, or what it would be made in.
fn open_nearest(path: &Path) -> Option<PathFd> {
    path.ancestors().find_map(open)
}
