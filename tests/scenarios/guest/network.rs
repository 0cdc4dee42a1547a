//! Networks inside the guest: one where nothing answers, and one with another machine at its end.

use super::{Finished, Guest};
use std::path::Path;

impl Guest {
    /// A network in which packets vanish: connecting to any address in it but `own` is never answered, not even by an error.
    /// `own` is the guest's address there with its prefix length, as `10.99.0.1/24`. Returns the interface's name.
    #[track_caller]
    pub fn silent_network(&self, own: &str) -> String {
        let names = (0..).map(|number| format!("silent{number}"));
        let name = names.into_iter().find(|name| !is_interface(name)).expect("a free name");
        // A dummy interface resolves no neighbours (NOARP) and drops all it is given to send.
        self.run("ip", &["link", "add", &name, "type", "dummy"]).ok();
        self.run("ip", &["address", "add", own, "dev", &name, "nodad"]).ok();
        self.run("ip", &["link", "set", &name, "up"]).ok();
        name
    }

    /// A network namespace, another machine to all appearances, and a cable to it: an interface here named
    /// like the namespace, one there named `uplink`. `here` and `there` are their addresses with prefix length.
    #[track_caller]
    pub fn namespace(&self, name: &str, here: &str, there: &str) -> Namespace {
        let namespace = Namespace { name: name.to_owned() };
        self.run("ip", &["netns", "add", name]).ok();
        self.run("ip", &["link", "add", name, "type", "veth", "peer", "name", "uplink", "netns", name]).ok();
        up(here, name, |arguments| self.run("ip", arguments));
        up(there, "uplink", |arguments| namespace.run("ip", arguments));
        namespace.run("ip", &["link", "set", "lo", "up"]).ok();
        namespace
    }
}

#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a program there, with the same files: `ip netns exec` would hide configfs.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> Finished {
        let net = format!("--net=/run/netns/{}", self.name);
        let guest = Guest { _only_here: () };
        guest.run("nsenter", &[&[net.as_str(), program], arguments].concat())
    }

    /// Pulls the cable, so that packets vanish in both directions, or plugs it in again. Our own interface keeps its carrier
    /// only as long as the far one is up, so both ends see it.
    #[track_caller]
    pub fn plug(&self, plugged: bool) {
        self.run("ip", &["link", "set", "uplink", if plugged { "up" } else { "down" }]).ok();
    }
}

/// Gives an interface its address and enables it. `ip` runs the program of this name where the interface is.
#[track_caller]
fn up(address: &str, interface: &str, ip: impl Fn(&[&str]) -> Finished) {
    // Usable at once, without waiting to see whether another machine has the same IPv6 address.
    let flag: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
    ip(&[&["address", "add", address, "dev", interface], flag].concat()).ok();
    ip(&["link", "set", interface, "up"]).ok();
}

fn is_interface(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}
