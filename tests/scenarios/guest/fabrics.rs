//! Fabrics other than TCP, in software: Fibre Channel by nvme-fcloop, RDMA by rxe.

use super::{Guest, Port, must};
use std::fs;

const FCLOOP: &str = "/sys/class/fcloop/ctl";

/// Node and port names: of the target's port, and of ours.
const TARGET: [&str; 2] = ["0x10001100ab000001", "0x20001100ab000001"];
const HOST: [&str; 2] = ["0x10001100aa000001", "0x20001100aa000001"];

/// A fabric with two ports, one of them ours and one the target's.
#[derive(Debug)]
pub struct FibreChannel {
    /// Addresses as `nn-0x…:pn-0x…`.
    pub target: String,
    pub host: String,
    /// What the target offers there.
    pub port: Port,
}

impl Guest {
    /// Both ends of a Fibre Channel fabric, still apart: see [`FibreChannel::plug_in`].
    #[track_caller]
    pub fn fibre_channel_unplugged(&self) -> FibreChannel {
        self.run("modprobe", &["-a", "nvme-fc", "nvmet-fc", "nvme-fcloop"]).ok();
        let address = |[node, port]: [&str; 2]| format!("nn-{node}:pn-{port}");
        ctl("add_target_port", &names("", TARGET));
        let port = self.target().port("fc");
        port.set("addr_adrfam", "fc");
        port.set("addr_traddr", &address(TARGET));
        FibreChannel { target: address(TARGET), host: address(HOST), port }
    }

    #[track_caller]
    pub fn fibre_channel(&self) -> FibreChannel {
        let fabric = self.fibre_channel_unplugged();
        fabric.plug_in();
        fabric
    }

    /// An RDMA device on a network of its own, where `own` is our address with its prefix length.
    #[track_caller]
    pub fn soft_rdma(&self, name: &str, own: &str) {
        // rxe asks for its checksum by a name that the module does not have as an alias.
        self.run("modprobe", &["-a", "crc32_generic", "rdma_rxe", "nvme-rdma", "nvmet-rdma"]).ok();
        let device = format!("net-{name}");
        self.run("ip", &["link", "add", &device, "type", "dummy"]).ok();
        self.run("ip", &["address", "add", own, "dev", &device]).ok();
        self.run("ip", &["link", "set", &device, "up"]).ok();
        self.run("rdma", &["link", "add", name, "type", "rxe", "netdev", &device]).ok();
    }
}

impl FibreChannel {
    /// Our port finds the target's: the kernel tells user space.
    #[track_caller]
    pub fn plug_in(&self) {
        ctl("add_local_port", &names("", HOST));
        ctl("add_remote_port", &format!("{},{},roles=0x60", names("", TARGET), names("lp", HOST)));
    }

    /// The target's port goes from the fabric, until [`FibreChannel::bring_back`].
    #[track_caller]
    pub fn take_away(&self) {
        ctl("del_target_port", &names("", TARGET));
    }

    #[track_caller]
    pub fn bring_back(&self) {
        ctl("add_target_port", &names("", TARGET));
    }
}

fn names(prefix: &str, [node, port]: [&str; 2]) -> String {
    format!("{prefix}wwnn={node},{prefix}wwpn={port}")
}

#[track_caller]
fn ctl(attribute: &str, value: &str) {
    must(fs::write(format!("{FCLOOP}/{attribute}"), value), format!("write `{value}` to fcloop's {attribute}"));
}
