//! `stas tree`: this host's storage connections in one screen, from both daemons and from what the kernel shows.
//!
//! ```text
//! host nqn.2014-08.org.nvmexpress:uuid:…
//! ├─ nvme0 tcp 192.0.2.1:8009  live, configured, 2 entries
//! │  └─ nqn.2026-01.example:a  nvme1n1
//! │     ├─ nvme1 tcp 192.0.2.1:4420  live
//! │     └─ nvme2 tcp 192.0.2.2:4420  connecting
//! └─ not listed by a discovery controller
//! ```
//!
//! A path is drawn below every discovery controller that lists it. One daemon may be away: the tree then has what the other
//! one knows. States are the kernel's, from sysfs, which anyone may read.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::client::{Client, Failure, Pairs, Places};
use super::json::Json;
use super::show::{controller_id, value};
use super::table::printable;
use crate::bus::pages::{FAILURE_KEY, PARKED_KEY};
use crate::bus::{ControllerId, Role};
use crate::core::tid::{DISCOVERY_NQN, Transport, canonical_address};
use crate::kernel::disks::is_namespace;

/// Where the kernel shows its controllers, and the subsystems that they lead to.
const CONTROLLERS: &str = "/sys/class/nvme";
const SUBSYSTEMS: &str = "/sys/class/nvme-subsystem";

/// How the daemons call a controller that is not connected.
const NO_DEVICE: &str = "nvme?";

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tree {
    host: Host,
    discovery_controllers: Vec<DiscoveryController>,
    /// I/O controllers that stand in the configuration, or are on their way out.
    not_listed: Vec<Subsystem>,
    /// The daemons that could not be asked, and why.
    unreachable: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Host {
    hostnqn: String,
    hostid: String,
    symname: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct DiscoveryController {
    #[serde(flatten)]
    id: ControllerId,
    device: String,
    state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_failure: String,
    origin: String,
    /// `fresh`, `stale` or `none`; empty where the daemon is that of nvme-stas.
    log_page: String,
    entries: usize,
    subsystems: Vec<Subsystem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Subsystem {
    subsysnqn: String,
    /// Its disks on this host.
    namespaces: Vec<String>,
    paths: Vec<PathNode>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct PathNode {
    #[serde(flatten)]
    id: ControllerId,
    device: String,
    state: String,
    /// Why it is not connected.
    #[serde(skip_serializing_if = "String::is_empty")]
    last_failure: String,
    /// Why it is still there although nobody wants it.
    #[serde(skip_serializing_if = "String::is_empty")]
    kept: String,
}

/// What the kernel shows of controllers.
pub trait Kernel {
    /// `live`, `connecting`, …; `None` when there is no such controller.
    fn state(&self, device: &str) -> Option<String>;

    /// The disks of the subsystem that a controller leads to.
    fn namespaces(&self, device: &str) -> Vec<String>;
}

/// The kernel of this machine.
pub struct Sysfs;

impl Kernel for Sysfs {
    fn state(&self, device: &str) -> Option<String> {
        let state = fs::read_to_string(Path::new(CONTROLLERS).join(device).join("state")).ok()?;
        Some(state.trim().to_owned())
    }

    fn namespaces(&self, device: &str) -> Vec<String> {
        let subsystems = entries(SUBSYSTEMS).into_iter().map(|name| Path::new(SUBSYSTEMS).join(name));
        let of_device = subsystems.filter(|path| path.join(device).exists());
        // Without native multipath, namespaces belong to the controller.
        let places = of_device.chain([Path::new(CONTROLLERS).join(device)]);
        let mut disks: Vec<String> = places.flat_map(entries).filter(|name| is_namespace(name)).collect();
        disks.sort_by_key(|name| (name.len(), name.clone()));
        disks.dedup();
        disks
    }
}

fn entries(directory: impl AsRef<Path>) -> Vec<String> {
    let found = fs::read_dir(directory).into_iter().flatten().flatten();
    found.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Asks both daemons.
///
/// # Errors
/// When neither can be reached.
pub fn collect() -> Result<Tree, Failure> {
    let finder = ask(Role::Finder, |client| client.all_log_pages(true));
    let connector = ask(Role::Connector, |client| client.list_controllers(true));
    let mut unreachable = Vec::new();
    let (mut pages, mut paths, mut info) = (Json::List(Vec::new()), None, None);
    match finder {
        Ok((status, answer)) => (pages, info) = (Json::parse(&answer)?, Some(status)),
        Err(failure) => unreachable.push(failure),
    }
    match connector {
        Ok((status, answer)) => (paths, info) = (Some(answer), info.or(Some(status))),
        Err(failure) => unreachable.push(failure),
    }
    let Some(info) = info else {
        return Err(unreachable.swap_remove(0));
    };
    let unreachable = unreachable.iter().map(ToString::to_string).collect();
    Ok(Tree { unreachable, ..build(&Json::parse(&info)?, &pages, paths.as_deref(), &Sysfs) })
}

/// A daemon's status and its answer to one question.
fn ask<T>(role: Role, question: fn(&mut Client) -> Result<T, Failure>) -> Result<(String, T), Failure> {
    let mut client = Client::open(role, &Places::of(role))?;
    Ok((client.process_info()?, question(&mut client)?))
}

/// `paths`: what the connector has, if it answered.
fn build(info: &Json, pages: &Json, paths: Option<&[Pairs]>, kernel: &dyn Kernel) -> Tree {
    let info = info.pairs();
    let paths: Option<Vec<PathNode>> = paths.map(|paths| paths.iter().map(|pairs| path(pairs, kernel)).collect());
    let mut listed = Vec::new();
    let page = |page: &Json| {
        let pairs = page.get("discovery-controller").map(Json::pairs).unwrap_or_default();
        let entries: Vec<Pairs> =
            page.get("log-pages").map(Json::elements).unwrap_or_default().iter().map(Json::pairs).collect();
        let id = controller_id(&pairs);
        let of_entry = |entry: &Pairs| path_of_entry(entry, &id, paths.as_deref());
        let below: Vec<PathNode> =
            entries.iter().filter(|entry| value(entry, "subtype") == "nvme").flat_map(of_entry).collect();
        listed.extend(below.iter().map(|path| path.id.clone()));
        DiscoveryController {
            device: value(&pairs, "device"),
            state: state(&pairs, kernel),
            last_failure: value(&pairs, FAILURE_KEY),
            origin: value(&pairs, "origin"),
            log_page: value(&pairs, "log page"),
            entries: entries.len(),
            subsystems: subsystems(below, kernel),
            id,
        }
    };
    let discovery_controllers = pages.elements().iter().map(page).collect();
    let not_listed = paths.into_iter().flatten().filter(|path| !listed.contains(&path.id)).collect();
    Tree {
        host: Host {
            hostnqn: value(&info, "hostnqn"),
            hostid: value(&info, "hostid"),
            symname: value(&info, "symname"),
        },
        discovery_controllers,
        not_listed: subsystems(not_listed, kernel),
        unreachable: Vec::new(),
    }
}

fn path(pairs: &Pairs, kernel: &dyn Kernel) -> PathNode {
    PathNode {
        id: controller_id(pairs),
        device: value(pairs, "device"),
        state: state(pairs, kernel),
        last_failure: value(pairs, FAILURE_KEY),
        kept: value(pairs, "kept"),
    }
}

/// The kernel's word, or why there is none.
fn state(pairs: &Pairs, kernel: &dyn Kernel) -> String {
    let device = value(pairs, "device");
    if let Some(state) = kernel.state(&device).filter(|_| device != NO_DEVICE) {
        return state;
    }
    let parked = value(pairs, PARKED_KEY);
    if !parked.is_empty() {
        return format!("parked for {parked}");
    }
    let attempts = match value(pairs, "connect attempts").as_str() {
        "" | "0" => String::new(),
        "1" => ", 1 attempt failed".to_owned(),
        attempts => format!(", {attempts} attempts failed"),
    };
    format!("not connected{attempts}")
}

/// The connector's paths that a log page entry leads to; without a connector, the entry itself.
fn path_of_entry(entry: &Pairs, lister: &ControllerId, paths: Option<&[PathNode]>) -> Vec<PathNode> {
    let (trtype, traddr) = (value(entry, "trtype"), value(entry, "traddr"));
    let canonical = |address: &str| match Transport::parse(&trtype) {
        Some(transport) => canonical_address(transport, address),
        None => address.to_owned(),
    };
    let id = ControllerId {
        transport: trtype.clone(),
        trsvcid: value(entry, "trsvcid"),
        subsysnqn: value(entry, "subnqn"),
        traddr: canonical(&traddr),
        ..lister.clone()
    };
    let either = |one: &str, other: &str| one.is_empty() || other.is_empty() || one == other;
    let is_it = |path: &ControllerId| {
        path.transport == id.transport
            && path.trsvcid == id.trsvcid
            && path.subsysnqn == id.subsysnqn
            && canonical(&path.traddr) == id.traddr
            && either(&path.host_iface, &id.host_iface)
            && either(&path.host_traddr, &id.host_traddr)
    };
    let absent = |state: &str| PathNode {
        id: id.clone(),
        device: NO_DEVICE.to_owned(),
        state: state.to_owned(),
        last_failure: String::new(),
        kept: String::new(),
    };
    match paths {
        None => vec![absent("unknown")],
        Some(paths) => {
            let found: Vec<PathNode> = paths.iter().filter(|path| is_it(&path.id)).cloned().collect();
            if found.is_empty() { vec![absent("not wanted")] } else { found }
        }
    }
}

/// Paths by the subsystem that they lead to, in the order in which they came.
fn subsystems(paths: Vec<PathNode>, kernel: &dyn Kernel) -> Vec<Subsystem> {
    let mut subsystems: Vec<Subsystem> = Vec::new();
    for path in paths {
        match subsystems.iter_mut().find(|subsystem| subsystem.subsysnqn == path.id.subsysnqn) {
            Some(subsystem) if subsystem.paths.contains(&path) => {}
            Some(subsystem) => subsystem.paths.push(path),
            None => {
                let subsysnqn = path.id.subsysnqn.clone();
                subsystems.push(Subsystem { subsysnqn, namespaces: Vec::new(), paths: vec![path] });
            }
        }
    }
    for subsystem in &mut subsystems {
        let found = subsystem.paths.iter().map(|path| kernel.namespaces(&path.device));
        subsystem.namespaces = found.into_iter().find(|names| !names.is_empty()).unwrap_or_default();
    }
    subsystems
}

impl Tree {
    /// The daemons that could not be asked, a line each.
    pub fn unreachable(&self) -> &[String] {
        &self.unreachable
    }

    /// As one line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// For people.
    pub fn text(&self, lines: Lines) -> String {
        let mut branches: Vec<Node> = self.discovery_controllers.iter().map(discovery_node).collect();
        if !self.not_listed.is_empty() {
            let below = self.not_listed.iter().map(subsystem_node).collect();
            branches.push(Node { line: "not listed by a discovery controller".to_owned(), below });
        }
        if branches.is_empty() {
            let line = "no controllers: none is configured, announced, or asked for by the firmware".to_owned();
            branches.push(Node { line, below: Vec::new() });
        }
        let symname = if self.host.symname.is_empty() { String::new() } else { format!("  {}", self.host.symname) };
        let mut text = printable(&format!("host {}{symname}", self.host.hostnqn)) + "\n";
        draw(&branches, "", lines, &mut text);
        text
    }
}

struct Node {
    line: String,
    below: Vec<Node>,
}

fn discovery_node(controller: &DiscoveryController) -> Node {
    let id = &controller.id;
    // The name that they all have says nothing.
    let nqn = if id.subsysnqn == DISCOVERY_NQN { String::new() } else { format!(" {}", id.subsysnqn) };
    let entries = match (controller.log_page.as_str(), controller.entries) {
        ("none", _) => "no log page yet".to_owned(),
        (page, 1) => format!("1 entry{}", if page == "stale" { " (stale)" } else { "" }),
        (page, count) => format!("{count} entries{}", if page == "stale" { " (stale)" } else { "" }),
    };
    let facts = [controller.state.as_str(), controller.origin.as_str(), &entries];
    let facts: Vec<&str> = facts.into_iter().filter(|fact| !fact.is_empty()).collect();
    let why = explained(&controller.last_failure);
    let line = format!("{} {}{nqn}  {}{why}", controller.device, address(id), facts.join(", "));
    Node { line, below: controller.subsystems.iter().map(subsystem_node).collect() }
}

fn subsystem_node(subsystem: &Subsystem) -> Node {
    let line = format!("{}  {}", subsystem.subsysnqn, subsystem.namespaces.join(" "));
    let path = |path: &PathNode| {
        let kept = if path.kept.is_empty() { String::new() } else { format!(", kept: {}", path.kept) };
        let why = explained(&path.last_failure);
        Node { line: format!("{} {}  {}{kept}{why}", path.device, address(&path.id), path.state), below: Vec::new() }
    };
    Node { line: line.trim_end().to_owned(), below: subsystem.paths.iter().map(path).collect() }
}

/// At the end of a line: why it says what it says, if there is something to say.
fn explained(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

/// `tcp [::1]:4420 on eth0`
fn address(id: &ControllerId) -> String {
    let traddr =
        if id.traddr.contains(':') && id.transport != "fc" { format!("[{}]", id.traddr) } else { id.traddr.clone() };
    let port = if id.trsvcid.is_empty() || id.trsvcid == "none" { String::new() } else { format!(":{}", id.trsvcid) };
    let from = if id.host_traddr.is_empty() { String::new() } else { format!(" from {}", id.host_traddr) };
    let on = if id.host_iface.is_empty() { String::new() } else { format!(" on {}", id.host_iface) };
    format!("{} {traddr}{port}{from}{on}", id.transport).trim_end().to_owned()
}

/// What branches are drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    Ascii,
    Unicode,
}

impl Lines {
    /// What the user's terminal can show, by the locale.
    pub fn of_locale() -> Lines {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") { Lines::Unicode } else { Lines::Ascii }
    }
}

fn draw(nodes: &[Node], margin: &str, lines: Lines, text: &mut String) {
    for (left, node) in (0..nodes.len()).rev().zip(nodes) {
        let (branch, below) = match (lines, left) {
            (Lines::Unicode, 0) => ("└─ ", "   "),
            (Lines::Unicode, _) => ("├─ ", "│  "),
            (Lines::Ascii, 0) => ("`- ", "   "),
            (Lines::Ascii, _) => ("|- ", "|  "),
        };
        text.push_str(&format!("{margin}{branch}{}\n", printable(&node.line)));
        draw(&node.below, &format!("{margin}{below}"), lines, text);
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
