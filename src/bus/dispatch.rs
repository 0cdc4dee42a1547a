//! From a method call to its answer: a pure function over what the daemon knows.
//!
//! Served are, for each role: its main interface, its `.debug` interface, and the standard Introspectable, Peer and
//! Properties; for the nodes above: Introspectable and Peer. Errors carry the names that the D-Bus Specification and the
//! reference implementation use, because clients compare them.

use rustbus::message_builder::MarshalledMessageBody;
use rustbus::wire::unmarshal::traits::Variant;

use super::message::{self, Dict, Message, Value};
use super::{ControllerId, INTROSPECTABLE, Objects, PEER, PROPERTIES, Role, introspect};

const UNKNOWN_OBJECT: &str = "org.freedesktop.DBus.Error.UnknownObject";
const UNKNOWN_INTERFACE: &str = "org.freedesktop.DBus.Error.UnknownInterface";
const UNKNOWN_METHOD: &str = "org.freedesktop.DBus.Error.UnknownMethod";
const UNKNOWN_PROPERTY: &str = "org.freedesktop.DBus.Error.UnknownProperty";
const PROPERTY_READ_ONLY: &str = "org.freedesktop.DBus.Error.PropertyReadOnly";
const INVALID_ARGS: &str = "org.freedesktop.DBus.Error.InvalidArgs";
const ACCESS_DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";
const LIMITS_EXCEEDED: &str = "org.freedesktop.DBus.Error.LimitsExceeded";
const FAILED: &str = "org.freedesktop.DBus.Error.Failed";

/// What is served on a route.
#[derive(Debug, Clone)]
pub struct Served {
    pub roles: Vec<Role>,
    /// For Peer.GetMachineId; `None` where the machine has no id.
    pub machine_id: Option<String>,
}

impl Served {
    /// Serves these roles. Reads the machine id, so to be called at start.
    pub fn new(roles: &[Role]) -> Served {
        let machine_id = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
            .into_iter()
            .find_map(|path| std::fs::read_to_string(path).ok())
            .map(|id| id.trim().to_owned())
            .filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        Served { roles: roles.to_vec(), machine_id }
    }
}

/// What a call led to.
#[derive(Debug)]
pub struct Outcome {
    /// `None` when the caller does not want one.
    pub reply: Option<Message>,
    /// Tracing was switched by this call.
    pub tron_set: Option<(Role, bool)>,
}

/// An error reply: the D-Bus name of the error, and words for people.
struct Refusal(&'static str, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interface {
    Main,
    Debug,
    Introspectable,
    Peer,
    Properties,
}

#[derive(Debug, Clone, Copy)]
enum Method {
    ListControllers,
    GetLogPages,
    GetAllLogPages,
    ProcessInfo,
    ControllerInfo,
    Introspect,
    Ping,
    GetMachineId,
    Get,
    GetAll,
    Set,
}

/// Every method: interface, name, signature of its arguments.
const METHODS: [(Interface, &str, &str, Method); 11] = [
    (Interface::Main, "list_controllers", "b", Method::ListControllers),
    (Interface::Main, "get_log_pages", "sssssss", Method::GetLogPages),
    (Interface::Main, "get_all_log_pages", "b", Method::GetAllLogPages),
    (Interface::Debug, "process_info", "", Method::ProcessInfo),
    (Interface::Debug, "controller_info", "sssssss", Method::ControllerInfo),
    (Interface::Introspectable, "Introspect", "", Method::Introspect),
    (Interface::Peer, "Ping", "", Method::Ping),
    (Interface::Peer, "GetMachineId", "", Method::GetMachineId),
    (Interface::Properties, "Get", "ss", Method::Get),
    (Interface::Properties, "GetAll", "s", Method::GetAll),
    (Interface::Properties, "Set", "ssv", Method::Set),
];

/// What an object path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Object(Role),
    /// Objects lie below; these are the next path elements.
    Parent(Vec<&'static str>),
    Nothing,
}

impl Node {
    fn at(path: &str, roles: &[Role]) -> Node {
        if let Some(role) = roles.iter().find(|role| role.path() == path) {
            return Node::Object(*role);
        }
        let prefix = path.strip_suffix('/').unwrap_or(path);
        let mut children: Vec<&'static str> = roles
            .iter()
            .filter_map(|role| role.path().strip_prefix(prefix)?.strip_prefix('/')?.split('/').next())
            .collect();
        children.sort_unstable();
        children.dedup();
        if children.is_empty() { Node::Nothing } else { Node::Parent(children) }
    }

    /// The name of an interface here; `None` when the node does not have it. Peer is everywhere.
    fn interface_name(&self, interface: Interface) -> Option<&'static str> {
        match (interface, self) {
            (Interface::Peer, _) => Some(PEER),
            (Interface::Introspectable, Node::Object(_) | Node::Parent(_)) => Some(INTROSPECTABLE),
            (Interface::Properties, Node::Object(_)) => Some(PROPERTIES),
            (Interface::Main, Node::Object(role)) => Some(role.interface()),
            (Interface::Debug, Node::Object(role)) => Some(role.debug_interface()),
            _ => None,
        }
    }

    fn has(&self, method: Method) -> bool {
        match method {
            Method::GetLogPages | Method::GetAllLogPages => *self == Node::Object(Role::Finder),
            _ => true,
        }
    }
}

/// Answers a method call. `may_set`: whether this caller may change properties.
pub fn dispatch(served: &Served, call: &Message, may_set: bool, objects: &mut dyn Objects) -> Outcome {
    let mut tron_set = None;
    let reply = match answer(served, call, may_set, objects, &mut tron_set) {
        Ok(body) => {
            let mut reply = call.dynheader.make_response();
            reply.body = body;
            reply
        }
        Err(Refusal(name, text)) => message::error(&call.dynheader, name, &text),
    };
    Outcome { reply: message::expects_reply(call).then_some(reply), tron_set }
}

/// The answer to send when the right one is too long for a message.
pub fn too_long(call: &Message, why: &str) -> Message {
    message::error(&call.dynheader, LIMITS_EXCEEDED, why)
}

fn answer(
    served: &Served,
    call: &Message,
    may_set: bool,
    objects: &mut dyn Objects,
    tron_set: &mut Option<(Role, bool)>,
) -> Result<MarshalledMessageBody, Refusal> {
    let path = call.dynheader.object.as_deref().unwrap_or("/");
    let node = Node::at(path, &served.roles);
    let method = find_method(&node, call)?;
    let mut body = MarshalledMessageBody::new();
    let written = match (method, &node) {
        (Method::Ping, _) => Ok(()),
        (Method::GetMachineId, _) => match &served.machine_id {
            Some(id) => body.push_param(id.as_str()),
            None => return Err(Refusal(FAILED, "this machine has no machine id".to_owned())),
        },
        (Method::Introspect, Node::Parent(children)) => {
            body.push_param(introspect::parent_xml(children.iter().copied()))
        }
        (Method::Introspect, Node::Object(role)) => body.push_param(introspect::xml(*role)),
        (Method::ListControllers, Node::Object(role)) => {
            let controllers = objects.list_controllers(*role, detailed(call)?);
            body.push_param(controllers.into_iter().map(Dict).collect::<Vec<_>>())
        }
        (Method::GetLogPages, _) => {
            let entries = objects.log_pages(&controller_id(call)?);
            body.push_param(entries.iter().map(|entry| Dict(entry.pairs().to_vec())).collect::<Vec<_>>())
        }
        (Method::GetAllLogPages, _) => body.push_param(&*objects.all_log_pages(detailed(call)?)),
        (Method::ProcessInfo, Node::Object(role)) => body.push_param(objects.process_info(*role)),
        (Method::ControllerInfo, Node::Object(role)) => {
            body.push_param(objects.controller_info(*role, &controller_id(call)?))
        }
        (Method::Get, Node::Object(role)) => body.push_param(get(*role, call, objects)?),
        (Method::GetAll, Node::Object(role)) => body.push_param(get_all(*role, call, objects)?),
        (Method::Set, Node::Object(role)) => {
            *tron_set = set(*role, call, may_set, objects)?;
            Ok(())
        }
        (_, Node::Parent(_) | Node::Nothing) => return Err(Refusal(UNKNOWN_OBJECT, format!("no object at {path}"))),
    };
    written.map_err(|error| Refusal(FAILED, format!("the answer cannot be sent: {error}")))?;
    Ok(body)
}

/// Which method is meant. A call without interface means whichever interface of the object has the method; except Set,
/// because bus policies deny it by the interface's name, and not every bus applies that to calls that leave the name out.
fn find_method(node: &Node, call: &Message) -> Result<Method, Refusal> {
    let path = call.dynheader.object.as_deref().unwrap_or("/");
    let member = call.dynheader.member.as_deref().unwrap_or("");
    let wanted = call.dynheader.interface.as_deref();
    let found = METHODS.iter().find(|(interface, name, _, method)| {
        let actual = node.interface_name(*interface);
        let meant = match wanted {
            Some(wanted) => actual == Some(wanted),
            None => actual.is_some() && !matches!(method, Method::Set),
        };
        *name == member && node.has(*method) && meant
    });
    if let Some((_, name, signature, method)) = found {
        let given = call.get_sig();
        return if given == *signature {
            Ok(*method)
        } else {
            Err(Refusal(INVALID_ARGS, format!("{name} takes arguments of type '{signature}', not '{given}'")))
        };
    }
    let has_interface = |name: &str| METHODS.iter().any(|method| node.interface_name(method.0) == Some(name));
    match wanted {
        _ if *node == Node::Nothing => Err(Refusal(UNKNOWN_OBJECT, format!("no object at {path}"))),
        Some(interface) if !has_interface(interface) => {
            Err(Refusal(UNKNOWN_INTERFACE, format!("the object at {path} has no interface {interface}")))
        }
        _ => Err(Refusal(UNKNOWN_METHOD, format!("the object at {path} has no method {member}"))),
    }
}

/// Arguments that do not unmarshal although their signature is right.
fn bad_arguments<E: std::fmt::Display>(error: E) -> Refusal {
    Refusal(INVALID_ARGS, format!("malformed arguments: {error}"))
}

fn detailed(call: &Message) -> Result<bool, Refusal> {
    call.body.parser().get::<bool>().map_err(bad_arguments)
}

fn controller_id(call: &Message) -> Result<ControllerId, Refusal> {
    let mut arguments = call.body.parser();
    ControllerId::from_strings(|| arguments.get::<String>().map_err(bad_arguments))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Property {
    Tron,
    LogLevel,
}

impl Property {
    fn value(self, role: Role, objects: &dyn Objects) -> Value {
        match self {
            Property::Tron => Value::Bool(objects.tron(role)),
            Property::LogLevel => Value::Text(objects.log_level(role)),
        }
    }
}

/// Whether an interface has the properties; only the debug interface has any, and an empty name means every interface.
fn has_properties(role: Role, interface: &str) -> Result<bool, Refusal> {
    if interface.is_empty() || interface == role.debug_interface() {
        Ok(true)
    } else if [role.interface(), INTROSPECTABLE, PEER, PROPERTIES].contains(&interface) {
        Ok(false)
    } else {
        Err(Refusal(UNKNOWN_INTERFACE, format!("the object at {} has no interface {interface}", role.path())))
    }
}

fn property(role: Role, interface: &str, name: &str) -> Result<Property, Refusal> {
    match name {
        "tron" if has_properties(role, interface)? => Ok(Property::Tron),
        "log_level" if has_properties(role, interface)? => Ok(Property::LogLevel),
        _ => {
            has_properties(role, interface)?;
            Err(Refusal(UNKNOWN_PROPERTY, format!("the interface {interface} has no property {name}")))
        }
    }
}

fn get(role: Role, call: &Message, objects: &dyn Objects) -> Result<Value, Refusal> {
    let (interface, name) = call.body.parser().get2::<&str, &str>().map_err(bad_arguments)?;
    Ok(property(role, interface, name)?.value(role, objects))
}

fn get_all(role: Role, call: &Message, objects: &dyn Objects) -> Result<Dict<&'static str, Value>, Refusal> {
    let interface = call.body.parser().get::<&str>().map_err(bad_arguments)?;
    if !has_properties(role, interface)? {
        return Ok(Dict(Vec::new()));
    }
    let properties = [("tron", Property::Tron), ("log_level", Property::LogLevel)];
    Ok(Dict(properties.map(|(name, property)| (name, property.value(role, objects))).to_vec()))
}

/// Sets a property; says which role's tracing changed by it.
fn set(role: Role, call: &Message, may_set: bool, objects: &mut dyn Objects) -> Result<Option<(Role, bool)>, Refusal> {
    let (interface, name, value) = call.body.parser().get3::<&str, &str, Variant>().map_err(bad_arguments)?;
    if property(role, interface, name)? == Property::LogLevel {
        return Err(Refusal(PROPERTY_READ_ONLY, "log_level follows tron and cannot be set".to_owned()));
    }
    let on = value.get::<bool>().map_err(|_| Refusal(INVALID_ARGS, "tron is a boolean".to_owned()))?;
    if !may_set {
        return Err(Refusal(ACCESS_DENIED, "only root may set properties".to_owned()));
    }
    if objects.tron(role) == on {
        return Ok(None);
    }
    objects.set_tron(role, on);
    Ok(Some((role, on)))
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
