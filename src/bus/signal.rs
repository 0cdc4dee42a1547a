//! The signals that the daemon sends, on every route it has.

use rustbus::MessageBuilder;
use rustbus::wire::errors::MarshalError;

use super::message::{Dict, Message, Value};
use super::{ControllerId, PROPERTIES, Role};

/// Something that every listening client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The log page of a discovery controller changed.
    LogPagesChanged { id: ControllerId, device: String },
    /// A discovery controller is not one of the finder's any more.
    DcRemoved,
    /// Tracing was switched, and the log level with it.
    TronChanged(Role, bool),
}

impl Signal {
    /// # Errors
    /// When a string contains NUL.
    pub fn message(&self) -> Result<Message, MarshalError> {
        match self {
            Signal::LogPagesChanged { id, device } => {
                let mut message = finder_signal("log_pages_changed");
                message.body.push_params(&id.strings())?;
                message.body.push_param(device.as_str())?;
                Ok(message)
            }
            Signal::DcRemoved => Ok(finder_signal("dc_removed")),
            Signal::TronChanged(role, on) => {
                let mut message = MessageBuilder::new().signal(PROPERTIES, "PropertiesChanged", role.path()).build();
                message.body.push_param(role.debug_interface())?;
                message.body.push_param(Dict(vec![("tron", Value::Bool(*on))]))?;
                message.body.push_param(vec!["log_level"])?;
                Ok(message)
            }
        }
    }

    /// Whose object it comes from.
    pub fn role(&self) -> Role {
        match self {
            Signal::LogPagesChanged { .. } | Signal::DcRemoved => Role::Finder,
            Signal::TronChanged(role, _) => *role,
        }
    }
}

fn finder_signal(member: &str) -> Message {
    MessageBuilder::new().signal(Role::Finder.interface(), member, Role::Finder.path()).build()
}
