//! How every program of ours ends. The manual pages list the same numbers, and a test holds the two together.

use std::process::ExitCode;

/// An exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or stopped as asked; of `stas boot`: what is waited for is there.
    Done = 0,
    /// Could not run, could not reach a daemon, was refused; or found something wrong.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// There is no boot table; of `stas boot`: nothing to connect either.
    Nothing = 3,
    /// Of `stas boot`: the deadline has passed.
    TooLate = 4,
}

impl Exit {
    /// All there are.
    pub const ALL: [Exit; 5] = [Exit::Done, Exit::Failed, Exit::Usage, Exit::Nothing, Exit::TooLate];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
