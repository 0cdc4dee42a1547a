//! The signals that the daemon sends, on every route it has.

use rustbus::MessageBuilder;
use rustbus::wire::errors::MarshalError;

use super::message::{Dict, Message, Value};
use super::{ControllerId, PROPERTIES, Role};

/// Of nvme-stas: the seven strings of a controller, and its device.
pub const LOG_PAGES_CHANGED: &str = "log_pages_changed";
/// Of nvme-stas: without arguments.
pub const DC_REMOVED: &str = "dc_removed";
/// Ours, with the arguments of `log_pages_changed`; its clients do not mind a signal that they do not know.
pub const CONTROLLER_UP: &str = "controller_up";
/// Ours; one follows each `controller_up`.
pub const CONTROLLER_DOWN: &str = "controller_down";

/// Something that every listening client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The log page of a discovery controller changed.
    LogPagesChanged { id: ControllerId, device: String },
    /// A discovery controller is not one of the finder's any more.
    DcRemoved,
    /// A controller of this role is connected as this device.
    ControllerUp { role: Role, id: ControllerId, device: String },
    /// It is not any more, or is no longer wanted.
    ControllerDown { role: Role, id: ControllerId, device: String },
    /// Tracing was switched, and the log level with it.
    TronChanged(Role, bool),
}

impl Signal {
    /// # Errors
    /// When a string contains NUL.
    pub fn message(&self) -> Result<Message, MarshalError> {
        match self {
            Signal::LogPagesChanged { id, device } => about_controller(Role::Finder, LOG_PAGES_CHANGED, id, device),
            Signal::DcRemoved => Ok(signal(Role::Finder, DC_REMOVED)),
            Signal::ControllerUp { role, id, device } => about_controller(*role, CONTROLLER_UP, id, device),
            Signal::ControllerDown { role, id, device } => about_controller(*role, CONTROLLER_DOWN, id, device),
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
            Signal::ControllerUp { role, .. } | Signal::ControllerDown { role, .. } | Signal::TronChanged(role, _) => {
                *role
            }
        }
    }
}

fn signal(role: Role, member: &str) -> Message {
    MessageBuilder::new().signal(role.interface(), member, role.path()).build()
}

fn about_controller(role: Role, member: &str, id: &ControllerId, device: &str) -> Result<Message, MarshalError> {
    let mut message = signal(role, member);
    message.body.push_params(&id.strings())?;
    message.body.push_param(device)?;
    Ok(message)
}
