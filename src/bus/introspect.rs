//! The published interface as introspection XML: the one text behind `Introspect` and `--idl`.
//!
//! Methods, properties, signals and argument names are those of nvme-stas; dasbus and sd-bus clients read them.
//! Ours are the signals `controller_up` and `controller_down`.

use super::Role;

macro_rules! controller_id {
    ($direction:literal) => {
        concat!(
            "      <arg direction=\"",
            $direction,
            "\" type=\"s\" name=\"transport\"/>\n",
            "      <arg direction=\"",
            $direction,
            "\" type=\"s\" name=\"traddr\"/>\n",
            "      <arg direction=\"",
            $direction,
            "\" type=\"s\" name=\"trsvcid\"/>\n",
            "      <arg direction=\"",
            $direction,
            "\" type=\"s\" name=\"subsysnqn\"/>\n",
            "      <arg direction=\"",
            $direction,
            "\" type=\"s\" name=\"host_traddr\"/>\n",
            "      <arg direction=\"",
            $direction,
            "\" type=\"s\" name=\"host_iface\"/>\n",
            "      <arg direction=\"",
            $direction,
            "\" type=\"s\" name=\"host_nqn\"/>\n",
        )
    };
}

macro_rules! document {
    ($name:literal, $finder_only:expr) => {
        concat!(
            r#"<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
  <interface name=""#,
            $name,
            r#".debug">
    <property name="tron" type="b" access="readwrite"/>
    <property name="log_level" type="s" access="read"/>
    <method name="process_info">
      <arg direction="out" type="s" name="info_json"/>
    </method>
    <method name="controller_info">
"#,
            controller_id!("in"),
            r#"      <arg direction="out" type="s" name="info_json"/>
    </method>
  </interface>
  <interface name=""#,
            $name,
            r#"">
    <method name="list_controllers">
      <arg direction="in" type="b" name="detailed"/>
      <arg direction="out" type="aa{ss}" name="controller_list"/>
    </method>
"#,
            $finder_only,
            r#"    <signal name="controller_up">
"#,
            controller_id!("out"),
            r#"      <arg direction="out" type="s" name="device"/>
    </signal>
    <signal name="controller_down">
"#,
            controller_id!("out"),
            r#"      <arg direction="out" type="s" name="device"/>
    </signal>
  </interface>
  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect">
      <arg direction="out" type="s" name="xml_data"/>
    </method>
  </interface>
  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
    <method name="GetMachineId">
      <arg direction="out" type="s" name="machine_uuid"/>
    </method>
  </interface>
  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get">
      <arg direction="in" type="s" name="interface_name"/>
      <arg direction="in" type="s" name="property_name"/>
      <arg direction="out" type="v" name="value"/>
    </method>
    <method name="GetAll">
      <arg direction="in" type="s" name="interface_name"/>
      <arg direction="out" type="a{sv}" name="properties"/>
    </method>
    <method name="Set">
      <arg direction="in" type="s" name="interface_name"/>
      <arg direction="in" type="s" name="property_name"/>
      <arg direction="in" type="v" name="value"/>
    </method>
    <signal name="PropertiesChanged">
      <arg type="s" name="interface_name"/>
      <arg type="a{sv}" name="changed_properties"/>
      <arg type="as" name="invalidated_properties"/>
    </signal>
  </interface>
</node>
"#
        )
    };
}

macro_rules! finder_only {
    () => {
        concat!(
            r#"    <method name="get_log_pages">
"#,
            controller_id!("in"),
            r#"      <arg direction="out" type="aa{ss}" name="log_pages"/>
    </method>
    <method name="get_all_log_pages">
      <arg direction="in" type="b" name="detailed"/>
      <arg direction="out" type="s" name="log_pages_json"/>
    </method>
    <signal name="log_pages_changed">
"#,
            controller_id!("out"),
            r#"      <arg direction="out" type="s" name="device"/>
    </signal>
    <signal name="dc_removed"/>
"#
        )
    };
}

const FINDER: &str = document!("org.nvmexpress.staf", finder_only!());
const CONNECTOR: &str = document!("org.nvmexpress.stac", "");

/// The introspection XML of a role's object.
pub fn xml(role: Role) -> &'static str {
    match role {
        Role::Finder => FINDER,
        Role::Connector => CONNECTOR,
    }
}

/// The introspection XML of a node that is only there because objects lie below it.
pub fn parent_xml<'a>(children: impl IntoIterator<Item = &'a str>) -> String {
    let nodes: String = children.into_iter().map(|child| format!("  <node name=\"{child}\"/>\n")).collect();
    format!("<node>\n{nodes}</node>\n")
}
