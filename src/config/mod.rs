//! Configuration: TOML, the nvme-stas INI dialect, defaults, validation, host identity.

pub mod settings;
