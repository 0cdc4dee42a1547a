//! The guest as NVMe target: the kernel's own, nvmet, by its configfs attributes.

use super::{Guest, Namespace, must};
use std::fs;
use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const NVMET: &str = "/sys/kernel/config/nvmet";

/// Where the namespaces' contents are: in memory.
const STORE: &str = "/tmp/namespaces";

impl Guest {
    pub fn target(&self) -> Target {
        Target { _only_here: () }
    }
}

/// Everything the target has is in the kernel: any number of these speak of the same one.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    _only_here: (),
}

impl Target {
    /// A subsystem that allows any host, with one namespace of 4 MiB. On no port yet.
    #[track_caller]
    pub fn subsystem(&self, nqn: &str) -> Subsystem {
        let subsystem = self.empty_subsystem(nqn);
        subsystem.add_namespace(1, 4 << 20);
        subsystem
    }

    /// A subsystem that allows any host, without namespaces. On no port yet.
    #[track_caller]
    pub fn empty_subsystem(&self, nqn: &str) -> Subsystem {
        let subsystem = Subsystem { nqn: nqn.to_owned(), path: Path::new(NVMET).join("subsystems").join(nqn) };
        make_directory(&subsystem.path);
        subsystem.set("attr_allow_any_host", "1");
        subsystem
    }

    /// A host that the target knows by name, to be allowed by subsystems one by one.
    #[track_caller]
    pub fn host(&self, nqn: &str) -> Host {
        let path = Path::new(NVMET).join("hosts").join(nqn);
        make_directory(&path);
        Host { nqn: nqn.to_owned(), path }
    }

    /// A TCP port. It listens, and serves the discovery subsystem, while a subsystem is linked to it.
    #[track_caller]
    pub fn tcp_port(&self, traddr: &str, trsvcid: u16) -> Port {
        self.ip_port("tcp", traddr, trsvcid)
    }

    /// The same of any transport over IP.
    #[track_caller]
    pub fn ip_port(&self, trtype: &str, traddr: &str, trsvcid: u16) -> Port {
        let port = self.port(trtype);
        port.set("addr_adrfam", if traddr.contains(':') { "ipv6" } else { "ipv4" });
        port.set("addr_traddr", traddr);
        port.set("addr_trsvcid", &trsvcid.to_string());
        port
    }

    /// The in-kernel transport without any network. The kernel has one such port.
    #[track_caller]
    pub fn loop_port(&self) -> Port {
        self.port("loop")
    }

    /// A port of any transport, to be completed with [`Port::set`].
    #[track_caller]
    pub fn port(&self, trtype: &str) -> Port {
        let paths = (1u16..).map(|id| Path::new(NVMET).join("ports").join(id.to_string()));
        let path = paths.into_iter().find(|path| !path.exists()).expect("a free port id");
        make_directory(&path);
        let port = Port { path };
        port.set("addr_trtype", trtype);
        port
    }
}

#[derive(Debug)]
pub struct Host {
    nqn: String,
    path: PathBuf,
}

impl Host {
    /// Writes an attribute, as `dhchap_key`.
    #[track_caller]
    pub fn set(&self, attribute: &str, value: &str) {
        write_attribute(&self.path.join(attribute), value);
    }
}

#[derive(Debug)]
pub struct Subsystem {
    pub nqn: String,
    path: PathBuf,
}

impl Subsystem {
    /// Writes an attribute, as `attr_serial`.
    #[track_caller]
    pub fn set(&self, attribute: &str, value: &str) {
        write_attribute(&self.path.join(attribute), value);
    }

    /// From now on only hosts that it was told of may connect, this one among them.
    #[track_caller]
    pub fn allow(&self, host: &Host) {
        self.set("attr_allow_any_host", "0");
        let link = self.path.join("allowed_hosts").join(&host.nqn);
        must(symlink(&host.path, &link), format!("link {}", link.display()));
    }

    #[track_caller]
    pub fn add_namespace(&self, id: u32, bytes: u64) {
        let contents = Path::new(STORE).join(format!("{}.{id}", self.nqn));
        must(fs::create_dir_all(STORE), format!("make the directory {STORE}"));
        must(File::create(&contents).and_then(|file| file.set_len(bytes)), format!("make {}", contents.display()));
        self.enable_namespace(id, &[("device_path", &contents.to_string_lossy()), ("buffered_io", "1")]);
    }

    /// A namespace that is a block device.
    #[track_caller]
    pub fn add_device(&self, id: u32, device: &str, uuid: &str) {
        self.enable_namespace(id, &[("device_path", device), ("device_uuid", uuid)]);
    }

    #[track_caller]
    fn enable_namespace(&self, id: u32, attributes: &[(&str, &str)]) {
        let namespace = self.path.join("namespaces").join(id.to_string());
        make_directory(&namespace);
        for (attribute, value) in attributes.iter().chain(&[("enable", "1")]) {
            write_attribute(&namespace.join(attribute), value);
        }
    }
}

#[derive(Debug)]
pub struct Port {
    path: PathBuf,
}

impl Port {
    /// Writes an attribute, as `addr_tsas`; only while nothing is linked.
    #[track_caller]
    pub fn set(&self, attribute: &str, value: &str) {
        write_attribute(&self.path.join(attribute), value);
    }

    /// Offers a subsystem here. Connected discovery controllers of the port announce the change.
    #[track_caller]
    pub fn link(&self, subsystem: &Subsystem) {
        let link = self.link_path(subsystem);
        must(symlink(&subsystem.path, &link), format!("link {}", link.display()));
    }

    /// The same in another network namespace: the socket listens where the first link is made.
    #[track_caller]
    pub fn link_in(&self, namespace: &Namespace, subsystem: &Subsystem) {
        let link = self.link_path(subsystem);
        namespace.run("ln", &["-s", &subsystem.path.to_string_lossy(), &link.to_string_lossy()]).ok();
    }

    /// Takes a subsystem away from here, which ends its connections.
    #[track_caller]
    pub fn unlink(&self, subsystem: &Subsystem) {
        let link = self.link_path(subsystem);
        must(fs::remove_file(&link), format!("unlink {}", link.display()));
    }

    /// Takes everything away from here, and the port itself.
    #[track_caller]
    pub fn remove(self) {
        let links = self.path.join("subsystems");
        for link in must(fs::read_dir(&links), format!("read {}", links.display())).flatten() {
            must(fs::remove_file(link.path()), format!("unlink {}", link.path().display()));
        }
        must(fs::remove_dir(&self.path), format!("remove {}", self.path.display()));
    }

    fn link_path(&self, subsystem: &Subsystem) -> PathBuf {
        self.path.join("subsystems").join(&subsystem.nqn)
    }
}

#[track_caller]
fn make_directory(path: &Path) {
    must(fs::create_dir(path), format!("make {}", path.display()));
}

#[track_caller]
fn write_attribute(path: &Path, value: &str) {
    must(fs::write(path, value), format!("write `{value}` to {}", path.display()));
}
