use std::rc::Rc;

use rustbus::message_builder::MessageType;
use rustbus::params::{Base, Container, Param};

use super::*;
use crate::bus::EntryText;
use crate::bus::objects::Description;

/// A daemon with one controller in each role.
struct Fake {
    tron: bool,
}

impl Objects for Fake {
    fn list_controllers(&self, role: Role, detailed: bool) -> Vec<Description> {
        let mut one = vec![("transport", "tcp".to_owned()), ("device", role.daemon().to_owned())];
        if detailed {
            one.push(("connected", "True".to_owned()));
        }
        vec![one]
    }

    fn log_pages(&self, id: &ControllerId) -> Vec<EntryText> {
        let entry = EntryText { traddr: id.traddr.clone(), subnqn: id.host_nqn.clone(), ..EntryText::default() };
        if id.transport == "tcp" { vec![entry] } else { Vec::new() }
    }

    fn all_log_pages(&self, detailed: bool) -> Rc<str> {
        Rc::from(format!("[{detailed}]"))
    }

    fn process_info(&self, role: Role) -> String {
        format!("{{\"{}\":1}}", role.daemon())
    }

    fn controller_info(&self, _role: Role, id: &ControllerId) -> String {
        id.subsysnqn.clone()
    }

    fn tron(&self, _role: Role) -> bool {
        self.tron
    }

    fn set_tron(&mut self, _role: Role, on: bool) {
        self.tron = on;
    }

    fn log_level(&self, _role: Role) -> String {
        "INFO".to_owned()
    }
}

fn both() -> Served {
    Served { roles: vec![Role::Finder, Role::Connector], machine_id: Some("0123456789abcdef0123456789abcdef".into()) }
}

fn call(path: &str, interface: &str, member: &str) -> Message {
    let mut call = message::call("org.nvmexpress.staf", path, interface, member);
    call.dynheader.serial = Some(7);
    call.dynheader.sender = Some(":1.5".to_owned());
    if interface.is_empty() {
        call.dynheader.interface = None;
    }
    call
}

fn ask(call: &Message) -> Message {
    dispatch(&both(), call, true, &mut Fake { tron: false }).reply.unwrap()
}

fn staf(member: &str) -> Message {
    call("/org/nvmexpress/staf", "org.nvmexpress.staf", member)
}

/// The name of the error that a call is refused with.
fn refusal(call: &Message) -> String {
    let reply = ask(call);
    assert_eq!(reply.typ, MessageType::Error, "{call:?}");
    assert_eq!(reply.dynheader.response_serial, Some(7));
    reply.dynheader.error_name.unwrap().trim_start_matches("org.freedesktop.DBus.Error.").to_owned()
}

fn text(call: &Message) -> String {
    ask(call).body.parser().get::<String>().unwrap()
}

#[test]
fn answers_the_methods_of_the_main_interface() {
    let mut list = staf("list_controllers");
    list.body.push_param(true).unwrap();
    let reply = ask(&list);
    assert_eq!((reply.typ, reply.dynheader.destination.as_deref()), (MessageType::Reply, Some(":1.5")));
    let controllers: Vec<Dict<String, String>> = reply.body.parser().get().unwrap();
    assert_eq!(controllers[0].0[1], ("device".to_owned(), "stafd".to_owned()));
    assert_eq!(controllers[0].0[2].0, "connected");

    let mut pages = staf("get_log_pages");
    pages.body.push_params(&["tcp", "192.0.2.1", "8009", "nqn.d", "", "", "nqn.h"]).unwrap();
    let entries: Vec<Dict<String, String>> = ask(&pages).body.parser().get().unwrap();
    let keys: Vec<&str> = entries[0].0.iter().map(|(key, _)| key.as_str()).collect();
    let published = ["trtype", "adrfam", "traddr", "trsvcid", "subnqn", "subtype", "treq", "portid", "cntlid"];
    assert_eq!(keys[..9], published);
    assert_eq!((&*entries[0].0[2].1, &*entries[0].0[4].1), ("192.0.2.1", "nqn.h"));

    let mut all = staf("get_all_log_pages");
    all.body.push_param(false).unwrap();
    assert_eq!(text(&all), "[false]");
}

#[test]
fn answers_the_debug_interface_of_each_role() {
    let info = |path, interface| text(&call(path, interface, "process_info"));
    assert_eq!(info("/org/nvmexpress/staf", "org.nvmexpress.staf.debug"), r#"{"stafd":1}"#);
    assert_eq!(info("/org/nvmexpress/stac", "org.nvmexpress.stac.debug"), r#"{"stacd":1}"#);
    let mut one = call("/org/nvmexpress/stac", "org.nvmexpress.stac.debug", "controller_info");
    one.body.push_params(&["tcp", "", "", "nqn.x", "", "", ""]).unwrap();
    assert_eq!(text(&one), "nqn.x");
}

#[test]
fn a_call_without_interface_finds_its_method() {
    assert_eq!(text(&call("/org/nvmexpress/staf", "", "process_info")), r#"{"stafd":1}"#);
    assert!(text(&call("/org/nvmexpress", "", "Introspect")).contains("staf"));
}

#[test]
fn standard_interfaces() {
    let ping = ask(&call("/anything", PEER, "Ping"));
    assert_eq!((ping.typ, ping.get_sig()), (MessageType::Reply, ""));
    assert_eq!(text(&call("/", PEER, "GetMachineId")).len(), 32);
    let introspect = |path| text(&call(path, INTROSPECTABLE, "Introspect"));
    assert_eq!(introspect("/org/nvmexpress/stac"), introspect::xml(Role::Connector));
    assert_eq!(introspect("/"), "<node>\n  <node name=\"org\"/>\n</node>\n");
    assert_eq!(introspect("/org/nvmexpress"), "<node>\n  <node name=\"stac\"/>\n  <node name=\"staf\"/>\n</node>\n");
}

#[test]
fn properties_are_read() {
    let mut get = call("/org/nvmexpress/staf", PROPERTIES, "Get");
    get.body.push_param2("org.nvmexpress.staf.debug", "tron").unwrap();
    assert_eq!(ask(&get).body.parser().get::<Variant>().unwrap().get::<bool>(), Ok(false));
    let mut all = call("/org/nvmexpress/staf", PROPERTIES, "GetAll");
    all.body.push_param("org.nvmexpress.staf.debug").unwrap();
    let reply = ask(&all).unmarshall_all().unwrap();
    let Param::Container(Container::Dict(properties)) = &reply.params[0] else { panic!("{reply:?}") };
    assert_eq!(properties.map.len(), 2);
    assert!(properties.map.contains_key(&Base::String("log_level".into())));
}

fn set(name: &str) -> Message {
    let mut set = call("/org/nvmexpress/staf", PROPERTIES, "Set");
    set.body.push_param2("org.nvmexpress.staf.debug", name).unwrap();
    set.body.push_variant(true).unwrap();
    set
}

#[test]
fn tron_is_set_by_root_only_and_told_once() {
    let mut daemon = Fake { tron: false };
    let refused = dispatch(&both(), &set("tron"), false, &mut daemon);
    assert_eq!(refused.reply.unwrap().dynheader.error_name.as_deref(), Some(ACCESS_DENIED));
    assert_eq!((refused.tron_set, daemon.tron), (None, false));
    let done = dispatch(&both(), &set("tron"), true, &mut daemon);
    assert_eq!((done.reply.unwrap().typ, done.tron_set), (MessageType::Reply, Some((Role::Finder, true))));
    assert!(daemon.tron);
    assert_eq!(dispatch(&both(), &set("tron"), true, &mut daemon).tron_set, None);
}

#[test]
fn refusals_have_the_names_that_clients_know() {
    assert_eq!(refusal(&call("/org/nvmexpress/stax", "org.nvmexpress.staf", "process_info")), "UnknownObject");
    assert_eq!(refusal(&call("/org/nvmexpress", "org.nvmexpress.staf", "process_info")), "UnknownInterface");
    assert_eq!(refusal(&call("/org/nvmexpress/staf", "org.example.X", "process_info")), "UnknownInterface");
    assert_eq!(refusal(&staf("ListControllers")), "UnknownMethod");
    assert_eq!(refusal(&call("/org/nvmexpress/stac", "org.nvmexpress.stac", "get_all_log_pages")), "UnknownMethod");
    assert_eq!(refusal(&call("/org/nvmexpress/staf", "", "nothing")), "UnknownMethod");
    assert_eq!(refusal(&staf("list_controllers")), "InvalidArgs");
    let mut bare = set("tron");
    bare.dynheader.interface = None;
    assert_eq!(refusal(&bare), "UnknownMethod");
    let mut wrong = staf("list_controllers");
    wrong.body.push_param("true").unwrap();
    assert_eq!(refusal(&wrong), "InvalidArgs");
    assert_eq!(refusal(&set("log_level")), "PropertyReadOnly");
    assert_eq!(refusal(&set("colour")), "UnknownProperty");
    let mut mistyped = call("/org/nvmexpress/staf", PROPERTIES, "Set");
    mistyped.body.push_param2("org.nvmexpress.staf.debug", "tron").unwrap();
    mistyped.body.push_variant("yes").unwrap();
    assert_eq!(refusal(&mistyped), "InvalidArgs");
    let mut elsewhere = call("/org/nvmexpress/staf", PROPERTIES, "Get");
    elsewhere.body.push_param2("org.example.X", "tron").unwrap();
    assert_eq!(refusal(&elsewhere), "UnknownInterface");
}

#[test]
fn a_role_that_is_not_served_is_not_there() {
    let served = Served { roles: vec![Role::Finder], machine_id: None };
    let reply = dispatch(
        &served,
        &call("/org/nvmexpress/stac", "org.nvmexpress.stac.debug", "process_info"),
        true,
        &mut Fake { tron: false },
    );
    assert_eq!(reply.reply.unwrap().dynheader.error_name.as_deref(), Some(UNKNOWN_OBJECT));
}

#[test]
fn nobody_is_answered_who_does_not_want_it() {
    let mut quiet = message::without_reply(staf("nothing"));
    assert!(dispatch(&both(), &quiet, true, &mut Fake { tron: false }).reply.is_none());
    quiet = message::without_reply(set("tron"));
    let outcome = dispatch(&both(), &quiet, true, &mut Fake { tron: false });
    assert!(outcome.reply.is_none() && outcome.tron_set.is_some());
}

#[test]
fn damaged_calls_are_answered_or_refused_but_do_no_harm() {
    let mut get_pages = staf("get_log_pages");
    get_pages.body.push_params(&["tcp", "192.0.2.1", "8009", "nqn.d", "", "", "nqn.h"]).unwrap();
    let mut list = staf("list_controllers");
    list.body.push_param(true).unwrap();
    for original in [get_pages, set("tron"), list] {
        let frame = message::encode(&original, 1).unwrap();
        for at in 0..frame.len() {
            for value in 0..=255 {
                let mut damaged = frame.clone();
                damaged[at] = value;
                if message::frame_length(&damaged, message::CALL_MAX) == Ok(Some(damaged.len()))
                    && let Ok(Some(call)) = message::parse(&damaged)
                {
                    dispatch(&both(), &call, true, &mut Fake { tron: false });
                }
            }
        }
    }
}
