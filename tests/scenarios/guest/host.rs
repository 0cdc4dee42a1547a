//! The guest as NVMe host: what sysfs shows, and connections made by somebody other than the program under test.

use super::{Guest, HOSTID, HOSTNQN, must, read};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A fabrics controller as /sys/class/nvme shows it. An attribute that the kernel lacks, or has not yet, is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// `nvme3`
    pub name: String,
    /// Of its directory in sysfs: another controller that gets the same name has another one.
    pub inode: u64,
    pub transport: String,
    /// `traddr=…,trsvcid=…[,host_traddr=…][,host_iface=…][,src_addr=…]`
    pub address: String,
    pub subsysnqn: String,
    pub state: String,
    pub cntrltype: String,
    pub cntlid: String,
    pub hostnqn: String,
}

impl Controller {
    pub fn is_live(&self) -> bool {
        self.state == "live"
    }

    pub fn is_discovery(&self) -> bool {
        self.cntrltype == "discovery"
    }

    pub fn is_io(&self) -> bool {
        self.cntrltype == "io"
    }

    /// A field of the address, as `traddr`.
    pub fn address_field(&self, key: &str) -> Option<&str> {
        self.address.split(',').find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
    }
}

/// A disk made of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// `nvme0n1`
    pub name: String,
    pub subsysnqn: String,
    pub bytes: u64,
}

impl Guest {
    /// All fabrics controllers, by name.
    pub fn controllers(&self) -> Vec<Controller> {
        entries("/sys/class/nvme")
            .map(|path| Controller {
                name: file_name(&path),
                inode: fs::metadata(&path).map_or(0, |directory| directory.ino()),
                transport: read(path.join("transport")),
                address: read(path.join("address")),
                subsysnqn: read(path.join("subsysnqn")),
                state: read(path.join("state")),
                cntrltype: read(path.join("cntrltype")),
                cntlid: read(path.join("cntlid")),
                hostnqn: read(path.join("hostnqn")),
            })
            // One that went while we looked.
            .filter(|controller| !controller.state.is_empty())
            .collect()
    }

    /// The live I/O controllers, by name.
    pub fn live_io_controllers(&self) -> Vec<Controller> {
        self.controllers().into_iter().filter(|controller| controller.is_io() && controller.is_live()).collect()
    }

    /// Returns as soon as these subsystems, and no others, are attached: a live I/O controller and a disk for each of them, and
    /// no further I/O controller in whatever state. Gives the controllers, in the order of their subsystems here.
    #[track_caller]
    pub fn wait_for_storage(&self, nqns: &[&str], patience: Duration) -> Vec<Controller> {
        let mut wanted = nqns.to_vec();
        wanted.sort_unstable();
        let is_wanted = |mut found: Vec<String>| {
            found.sort_unstable();
            found == wanted
        };
        let attached = || {
            let controllers = self.controllers().into_iter().filter(|controller| !controller.is_discovery());
            let disks = self.block_devices();
            is_wanted(controllers.map(|controller| controller.subsysnqn).collect())
                && is_wanted(disks.into_iter().map(|disk| disk.subsysnqn).collect())
                && self.live_io_controllers().len() == wanted.len()
        };
        self.wait_until(&format!("exactly these are attached: {wanted:?}"), patience, attached);
        let mut controllers = self.live_io_controllers();
        controllers.sort_by_key(|controller| nqns.iter().position(|nqn| controller.subsysnqn == *nqn));
        controllers
    }

    /// Fails the scenario unless these controllers are as they were, and never lost their connection.
    #[track_caller]
    pub fn assert_untouched(&self, before: &[Controller]) {
        let (now, log) = (self.controllers(), self.kernel_log());
        for controller in before {
            assert!(now.contains(controller), "{controller:?} has changed\n{}", self.state());
            // What was said of an earlier controller of that name does not count.
            let about = log.lines().filter(|line| line.contains(&format!("nvme {}: ", controller.name)));
            let mut since_connected = about.rev().take_while(|line| !line.contains("new ctrl"));
            let lost = since_connected.find(|line| line.contains("error recovery") || line.contains("econnect"));
            assert_eq!(lost, None, "{} lost its connection", controller.name);
        }
    }

    /// The usable NVMe disks, by name, without the hidden devices of single paths.
    pub fn block_devices(&self) -> Vec<BlockDevice> {
        entries("/sys/block")
            .filter(|path| file_name(path).starts_with("nvme") && read(path.join("hidden")) != "1")
            .map(|path| BlockDevice {
                name: file_name(&path),
                subsysnqn: read(path.join("device/subsysnqn")),
                // Sectors of 512 bytes, whatever the block size.
                bytes: read(path.join("size")).parse::<u64>().unwrap_or(0) * 512,
            })
            .filter(|device| device.bytes > 0 && Path::new("/dev").join(&device.name).exists())
            .collect()
    }

    /// Connects as somebody else would: writes to /dev/nvme-fabrics, with the usual host identity unless given.
    /// Returns the name of the controller once it is live, or the kernel's error.
    pub fn connect(&self, options: &str) -> io::Result<String> {
        let identity =
            if options.contains("hostnqn=") { String::new() } else { format!(",hostnqn={HOSTNQN},hostid={HOSTID}") };
        let mut fabrics = OpenOptions::new().read(true).write(true).open("/dev/nvme-fabrics")?;
        fabrics.write_all(format!("{options}{identity}").as_bytes())?;
        let mut reply = String::new();
        fabrics.read_to_string(&mut reply)?;
        let instance = reply.split(',').find_map(|field| field.trim().strip_prefix("instance="));
        instance
            .map(|instance| format!("nvme{instance}"))
            .ok_or_else(|| io::Error::other(format!("odd reply `{reply}`")))
    }

    /// Disconnects as somebody else would; returns when the controller is gone.
    #[track_caller]
    pub fn disconnect(&self, controller: &str) {
        must(
            fs::write(format!("/sys/class/nvme/{controller}/delete_controller"), "1"),
            format!("disconnect {controller}"),
        );
    }
}

/// The entries of a directory in the order of their numbers (`nvme2` before `nvme10`); none when there is no such directory.
fn entries(directory: &str) -> impl Iterator<Item = PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    paths.into_iter()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
