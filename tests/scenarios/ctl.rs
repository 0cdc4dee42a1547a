//! The command line tools.
