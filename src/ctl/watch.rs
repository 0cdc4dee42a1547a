//! `watch`: a line for each signal of a daemon, as it comes.
//!
//! Over the bus it outlives the daemon: when that comes back, so do its lines. Over the private socket it ends with it.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};

use rustbus::wire::unmarshal::traits::Variant;
use serde_json::{Map, Value};

use super::client::{Client, Failure, Places};
use super::table::printable;
use crate::bus::message::Message;
use crate::bus::signal::{CONTROLLER_DOWN, CONTROLLER_UP, DC_REMOVED, LOG_PAGES_CHANGED};
use crate::bus::{BUS_NAME, ControllerId, Role};

/// What a signal tells.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    /// `up`, `down`, `log page`, `removed`, `tron`, `daemon`.
    what: &'static str,
    about: About,
}

#[derive(Debug, PartialEq, Eq)]
enum About {
    Nothing,
    Controller {
        device: String,
        id: ControllerId,
    },
    /// `on`, `off`; `here`, `gone`.
    State(&'static str),
}

/// Prints until the connection is lost, or nobody reads any more.
///
/// # Errors
/// When the daemon cannot be reached, or the connection is lost.
pub fn run(role: Role, places: &Places, json: bool) -> Result<(), Failure> {
    let mut client = Client::open(role, places)?;
    client.subscribe()?;
    loop {
        let Some(change) = change(role, &client.next_signal()?) else {
            continue;
        };
        let line = if json { change.json() } else { change.text() };
        let mut out = io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Failure::Refused(format!("cannot write: {error}"))),
        }
    }
}

/// What a signal says of this role; `None` for anything else. The private socket of `stas run` has both roles' signals.
fn change(role: Role, signal: &Message) -> Option<Change> {
    let header = &signal.dynheader;
    let member = header.member.as_deref()?;
    if header.interface.as_deref() == Some(BUS_NAME) && member == "NameOwnerChanged" {
        let (name, _, owner) = signal.body.parser().get3::<&str, &str, &str>().ok()?;
        let state = if owner.is_empty() { "gone" } else { "here" };
        return (name == role.name()).then_some(Change { what: "daemon", about: About::State(state) });
    }
    if header.object.as_deref() != Some(role.path()) {
        return None;
    }
    let what = match member {
        CONTROLLER_UP => "up",
        CONTROLLER_DOWN => "down",
        LOG_PAGES_CHANGED => "log page",
        DC_REMOVED => return Some(Change { what: "removed", about: About::Nothing }),
        "PropertiesChanged" => return tron(signal),
        _ => return None,
    };
    let mut arguments = signal.body.parser();
    let id = ControllerId::from_strings(|| arguments.get::<String>()).ok()?;
    let device = arguments.get::<String>().ok()?;
    Some(Change { what, about: About::Controller { id, device } })
}

fn tron(signal: &Message) -> Option<Change> {
    let (_, changed) = signal.body.parser().get2::<&str, HashMap<&str, Variant>>().ok()?;
    let state = if changed.get("tron")?.get::<bool>().ok()? { "on" } else { "off" };
    Some(Change { what: "tron", about: About::State(state) })
}

impl Change {
    fn text(&self) -> String {
        let about = match &self.about {
            About::Nothing => "a discovery controller".to_owned(),
            About::State(state) => (*state).to_owned(),
            About::Controller { device, id } => match id.transport_id() {
                Some(tid) => format!("{device} {tid}"),
                None => device.clone(),
            },
        };
        printable(&format!("{:8}  {about}", self.what))
    }

    /// The keys of a controller are those that `ls` has.
    fn json(&self) -> String {
        let mut object = Map::new();
        match &self.about {
            About::Nothing => {}
            About::State(state) => drop(object.insert("state".to_owned(), Value::from(*state))),
            About::Controller { device, id } => {
                if let Ok(Value::Object(members)) = serde_json::to_value(id) {
                    object.extend(members);
                }
                object.insert("device".to_owned(), Value::from(device.as_str()));
            }
        }
        object.insert("change".to_owned(), Value::from(self.what));
        Value::Object(object).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Signal;

    fn id() -> ControllerId {
        ControllerId {
            transport: "tcp".into(),
            traddr: "192.0.2.1".into(),
            trsvcid: "4420".into(),
            subsysnqn: "nqn.a".into(),
            ..ControllerId::default()
        }
    }

    fn of(role: Role, signal: &Signal) -> Option<Change> {
        change(role, &signal.message().unwrap())
    }

    #[test]
    fn signals_become_lines() {
        let text = |signal: &Signal| of(signal.role(), signal).unwrap().text();
        let (role, device) = (Role::Connector, "nvme1".to_owned());
        let up = Signal::ControllerUp { role, id: id(), device: device.clone() };
        assert_eq!(text(&up), "up        nvme1 tcp 192.0.2.1:4420 nqn.a");
        assert_eq!(text(&Signal::ControllerDown { role, id: id(), device: device.clone() })[..6], *"down  ");
        assert_eq!(text(&Signal::LogPagesChanged { id: id(), device })[..10], *"log page  ");
        assert_eq!(text(&Signal::DcRemoved), "removed   a discovery controller");
        assert_eq!(text(&Signal::TronChanged(Role::Finder, true)), "tron      on");
    }

    #[test]
    fn json_has_the_keys_of_ls() {
        let up = Signal::ControllerUp { role: Role::Finder, id: id(), device: "nvme1".into() };
        let json: Value = serde_json::from_str(&of(Role::Finder, &up).unwrap().json()).unwrap();
        assert_eq!((&json["change"], &json["device"]), (&Value::from("up"), &Value::from("nvme1")));
        assert_eq!(json["host-iface"], "");
    }

    #[test]
    fn the_other_role_is_not_shown() {
        assert_eq!(of(Role::Connector, &Signal::DcRemoved), None);
        assert_eq!(of(Role::Connector, &Signal::TronChanged(Role::Finder, true)), None);
    }
}
