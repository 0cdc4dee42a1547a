//! The controllers of this host as `/sys/class/nvme` shows them, and their removal.
//!
//! Attributes: the kernel's drivers/nvme/host/sysfs.c and, for `address`, `nvmf_get_address` and `nvme_tcp_get_address`.
//! Reading them does not wait for connects. Controllers come and go while this reads: one that vanishes half-way is not
//! there, which is no error. Anything else that keeps it from being read (too many open files, no memory) is one: then
//! nobody knows whether it is there.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};

use crate::core::device::{ControllerKind, Device, US, parse_sysfs_address};
use crate::core::tid::{DISCOVERY_NQN, Transport, canonical_address, parse_ip};
use crate::helper::message::{ControllerIdentity, Failure};
use crate::kernel::in_use::Host;
use crate::kernel::registry::{self, Registry};

/// Where the kernel shows its controllers.
pub const CLASS: &str = "/sys/class/nvme";

/// Writing `add` here has the kernel tell of every port of Fibre Channel targets, by a uevent each.
pub const FC_DISCOVERY: &str = "/sys/class/fc/fc_udev_device/nvme_discovery";

/// No attribute is longer than a page.
const ATTRIBUTE_MAX: usize = 4096;

/// A view of `/sys/class/nvme`, or of a directory that looks like it.
#[derive(Debug, Clone)]
pub struct Sysfs {
    root: PathBuf,
    registry: Registry,
    interfaces: Interfaces,
}

impl Sysfs {
    /// `root` is [`CLASS`], except in tests.
    pub fn new(root: impl Into<PathBuf>) -> Sysfs {
        let (registry, interfaces) = (Registry::new(registry::DIRECTORY), Interfaces::default());
        Sysfs { root: root.into(), registry, interfaces }
    }

    /// Every controller of a fabric, in the order of their numbers, or an error: never some of them. That the directory does
    /// not exist means that the nvme-core module is not loaded and there is no controller.
    pub fn controllers(&self) -> io::Result<Vec<Device>> {
        let directory = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            directory => directory?,
        };
        let mut names = Vec::new();
        for entry in directory {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(|name| Some((number_of(name)?, name.to_owned()))));
        }
        names.sort_unstable();
        names.iter().filter_map(|(_, name)| self.read_device(name).transpose()).collect()
    }

    /// The controller `nvmeN`; `None` when it does not exist (any more) or is not one of a fabric.
    pub fn controller(&self, name: &str) -> io::Result<Option<Device>> {
        match number_of(name) {
            Some(_) => self.read_device(name),
            None => Ok(None),
        }
    }

    /// What `nvmeN` shows at this moment under this name, empty where there is nothing. The kernel tells of no lost connection, and
    /// what only people want to know is not in [`Device`].
    pub fn attribute(&self, name: &str, attribute: &str) -> String {
        let read = || Attributes::open(&self.root, name).ok()??.read(attribute).ok()?;
        number_of(name).and_then(|_| read()).unwrap_or_default()
    }

    /// What is shown of `nvmeN` if it is the controller described at this moment.
    pub fn describe(&self, identity: &ControllerIdentity) -> Result<Device, Failure> {
        let (attributes, device) = self.find(identity)?;
        device.complete(&attributes, &self.interfaces).map_err(unknown)?.ok_or(Failure::Gone)
    }

    /// Whether `nvmeN` is the controller described at this moment.
    pub fn check(&self, identity: &ControllerIdentity) -> Result<(), Failure> {
        self.find(identity).map(drop)
    }

    /// Takes a controller down if it is the one described. Blocks until the kernel has done it, half a minute and more.
    ///
    /// The directory stays open from before the comparison until after the write, and it belongs to that controller for
    /// ever: when the name changes hands meanwhile, the write fails instead of reaching the new owner. `host` is asked right
    /// before the write whether it can do without.
    pub fn disconnect(&self, identity: &ControllerIdentity, host: Option<&Host>) -> Result<(), Failure> {
        let (attributes, _) = self.find(identity)?;
        let has_claimed = |owner: &String| owner != US && Some(owner) != identity.owner.as_ref();
        if let Some(owner) = self.registry.owner(&identity.device).filter(has_claimed) {
            return Err(Failure::InUse(format!("{owner} has claimed it")));
        }
        let _lock = host.map(|host| host.may_lose(&identity.device)).transpose()?;
        let gone = |errno| match errno {
            Errno::ENOENT | Errno::ENODEV => Failure::Gone,
            errno => Failure::from(errno),
        };
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = openat(&attributes.directory, "delete_controller", flags, Mode::empty()).map_err(gone)?;
        nix::unistd::write(file, b"1").map_err(gone)?;
        Ok(())
    }

    fn read_device(&self, name: &str) -> io::Result<Option<Device>> {
        let Some(attributes) = Attributes::open(&self.root, name)? else {
            return Ok(None);
        };
        let Some(identified) = Identified::read(name, &attributes)? else {
            return Ok(None);
        };
        let device = identified.complete(&attributes, &self.interfaces)?;
        Ok(device.map(|device| Device { owner: self.registry.owner(name), ..device }))
    }

    fn find(&self, identity: &ControllerIdentity) -> Result<(Attributes, Identified), Failure> {
        number_of(&identity.device).ok_or_else(|| Failure::BadField("device is not of the form nvmeN".to_owned()))?;
        let attributes = Attributes::open(&self.root, &identity.device).map_err(unknown)?.ok_or(Failure::Gone)?;
        let identified = Identified::read(&identity.device, &attributes).map_err(unknown)?.ok_or(Failure::Gone)?;
        if is(&identified.0, identity) { Ok((attributes, identified)) } else { Err(Failure::NotThatController) }
    }
}

/// The N of `nvmeN`; `None` for any other word, so that a name is safe to put in a path.
pub fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("nvme")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn is(device: &Device, identity: &ControllerIdentity) -> bool {
    device.transport.as_str() == identity.transport
        && device.traddr == canonical_address(device.transport, &identity.traddr)
        && device.trsvcid == identity.trsvcid
        && device.subsysnqn == identity.subsysnqn
        && device.host_nqn == identity.hostnqn
        && device.host_traddr == canonical_address(device.transport, &identity.host_traddr)
        && device.host_iface == identity.host_iface
}

/// What a controller is known by; the rest is empty so far.
struct Identified(Device);

impl Identified {
    /// `None` for PCIe, and for a controller that is being removed.
    fn read(name: &str, attributes: &Attributes) -> io::Result<Option<Identified>> {
        let Some(transport) = attributes.read("transport")?.and_then(|word| Transport::parse(&word)) else {
            return Ok(None);
        };
        let mut device = Device::new(name, transport);
        device.inode = fstat(&attributes.directory)?.st_ino;
        device.subsysnqn = attributes.optional("subsysnqn")?;
        device.host_nqn = attributes.optional("hostnqn")?;
        let Some(address) = attributes.read("address")? else {
            return Ok(None);
        };
        parse_sysfs_address(transport, &address, |key, value| match key {
            "traddr" => device.traddr = value,
            "trsvcid" => device.trsvcid = value,
            "host_traddr" => device.host_traddr = value,
            "host_iface" => device.host_iface = value,
            "src_addr" => device.src_addr = value,
            _ => {}
        });
        Ok(Some(Identified(device)))
    }

    /// `None` for a controller that is being removed.
    fn complete(self, attributes: &Attributes, interfaces: &Interfaces) -> io::Result<Option<Device>> {
        let Identified(mut device) = self;
        // Until Identify has been answered, and for ever with controllers older than NVMe 1.4, this is "reserved".
        let cntrltype = Some(attributes.optional("cntrltype")?).filter(|value| value != "reserved");
        device.cntrltype = cntrltype.unwrap_or_default();
        let is_discovery = match device.cntrltype.as_str() {
            "" => device.subsysnqn == DISCOVERY_NQN,
            cntrltype => cntrltype == "discovery",
        };
        device.kind = if is_discovery { ControllerKind::Discovery } else { ControllerKind::Io };
        device.host_id = attributes.optional("hostid")?;
        if is_discovery {
            device.dctype = attributes.optional("dctype")?;
            device.kato = attributes.optional("kato")?.parse().ok();
        }
        device.src_iface = interfaces.owner_of(&device.src_addr);
        // Last: as long as this can be read, what was read before is of a controller that exists.
        let Some(state) = attributes.read("state")? else {
            return Ok(None);
        };
        device.state = state;
        Ok(Some(device))
    }
}

fn unknown(error: io::Error) -> Failure {
    Failure::Errno(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}

/// An open directory `/sys/class/nvme/nvmeN`.
struct Attributes {
    directory: OwnedFd,
}

impl Attributes {
    /// `None` if it does not exist (any more).
    fn open(root: &Path, name: &str) -> io::Result<Option<Attributes>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = unless_gone(open(&root.join(name), flags, Mode::empty()).map_err(io::Error::from))?;
        Ok(directory.map(|directory| Attributes { directory }))
    }

    /// Empty when the kernel lacks it.
    fn optional(&self, attribute: &str) -> io::Result<String> {
        self.read(attribute).map(Option::unwrap_or_default)
    }

    /// Without white space around it, empty when the kernel has nothing to show yet; `None` when there is no such attribute
    /// (any more).
    fn read(&self, attribute: &str) -> io::Result<Option<String>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let mut buffer = [0; ATTRIBUTE_MAX];
        // The kernel shows an attribute whole, in one read.
        let mut read = || -> io::Result<usize> {
            let file = openat(self.directory.as_fd(), attribute, flags, Mode::empty())?;
            Ok(nix::unistd::read(file, &mut buffer)?)
        };
        let Some(length) = unless_gone(read())? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        // "(efault)" is how the kernel prints a string that is not there: subsysnqn and model before Identify.
        Ok(Some(Some(text.trim()).filter(|text| *text != "(efault)").unwrap_or_default().to_owned()))
    }
}

/// A controller that is going away takes its directory and attributes with it, even while they are open.
fn unless_gone<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    let gone = [Errno::ENOENT, Errno::ENODEV, Errno::ENXIO].map(|errno| errno as i32);
    match outcome {
        Err(error) if error.raw_os_error().is_some_and(|errno| gone.contains(&errno)) => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// So long an answer is believed: in a burst of connects the next one would be the same.
const BELIEVED: Duration = Duration::from_secs(1);

/// Which interface has which address, and when the kernel was asked.
#[derive(Debug, Clone, Default)]
struct Interfaces {
    asked: Cell<Option<Instant>>,
    owners: RefCell<BTreeMap<IpAddr, Vec<String>>>,
}

impl Interfaces {
    /// Empty when no interface has that address, or when several have it (link-local ones): sysfs shows no zone.
    fn owner_of(&self, address: &str) -> String {
        let (ip, zone) = match parse_ip(address) {
            Some((ip, zone)) => (ip, zone),
            None => return String::new(),
        };
        if let Some(zone) = zone {
            return zone.to_owned();
        }
        let mut owners = self.owners.borrow_mut();
        let is_believed = self.asked.get().is_some_and(|asked| asked.elapsed() < BELIEVED);
        if !is_believed || !owners.contains_key(&ip) {
            *owners = interface_addresses();
            self.asked.set(Some(Instant::now()));
        }
        match owners.get(&ip).map(Vec::as_slice) {
            Some([interface]) => interface.clone(),
            _ => String::new(),
        }
    }
}

/// Empty when the kernel does not tell: a pin is then assumed to match, see [`Device::serves`].
fn interface_addresses() -> BTreeMap<IpAddr, Vec<String>> {
    let mut owners: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for interface in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address else { continue };
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from(std::net::SocketAddrV4::from(*v4)));
        let v6 = address.as_sockaddr_in6().map(|v6| SocketAddr::from(std::net::SocketAddrV6::from(*v6)));
        if let Some(address) = v4.or(v6) {
            owners.entry(address.ip().to_canonical()).or_default().push(interface.interface_name);
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory like /sys/class/nvme that is gone after the test.
    struct Root(PathBuf);

    impl Root {
        fn new() -> Root {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("stas-sysfs-{}-{number}", std::process::id()));
            fs::create_dir_all(path.join("registry/nvme4")).unwrap();
            fs::write(path.join("registry/nvme4/owner"), "nbft\n").unwrap();
            Root(path)
        }

        fn add(&self, name: &str, attributes: &[(&str, &str)]) {
            let directory = self.0.join(name);
            fs::create_dir_all(&directory).unwrap();
            for (attribute, value) in attributes {
                fs::write(directory.join(attribute), format!("{value}\n")).unwrap();
            }
        }

        fn sysfs(&self) -> Sysfs {
            Sysfs { registry: Registry::new(self.0.join("registry")), ..Sysfs::new(&self.0) }
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const LIVE: [(&str, &str); 12] = [
        ("transport", "tcp"),
        ("address", "traddr=::ffff:192.0.2.1,trsvcid=8009,host_iface=lo,src_addr=127.0.0.1"),
        ("state", "live"),
        ("subsysnqn", "nqn.cdc"),
        ("hostnqn", "nqn.h"),
        ("hostid", "some-id"),
        ("cntrltype", "discovery"),
        ("dctype", "cdc"),
        ("model", "Linux           "),
        ("serial", "1234"),
        ("kato", "30"),
        ("delete_controller", ""),
    ];

    fn identity() -> ControllerIdentity {
        ControllerIdentity {
            device: "nvme4".into(),
            transport: "tcp".into(),
            traddr: "192.0.2.1".into(),
            trsvcid: "8009".into(),
            subsysnqn: "nqn.cdc".into(),
            hostnqn: "nqn.h".into(),
            host_traddr: String::new(),
            host_iface: "lo".into(),
            owner: Some("nbft".into()),
        }
    }

    #[test]
    fn a_live_controller_is_read_whole() {
        let root = Root::new();
        root.add("nvme4", &LIVE);
        let device = root.sysfs().controller("nvme4").unwrap().unwrap();
        let expected = Device {
            name: "nvme4".into(),
            transport: Transport::Tcp,
            kind: ControllerKind::Discovery,
            state: "live".into(),
            traddr: "192.0.2.1".into(),
            trsvcid: "8009".into(),
            subsysnqn: "nqn.cdc".into(),
            host_traddr: String::new(),
            host_iface: "lo".into(),
            src_addr: "127.0.0.1".into(),
            src_iface: "lo".into(),
            host_nqn: "nqn.h".into(),
            host_id: "some-id".into(),
            dctype: "cdc".into(),
            cntrltype: "discovery".into(),
            kato: Some(30),
            owner: Some("nbft".into()),
            inode: fs::metadata(root.0.join("nvme4")).unwrap().ino(),
        };
        assert_eq!(device, expected);
    }

    #[test]
    fn a_controller_that_is_still_connecting_shows_placeholders() {
        let root = Root::new();
        root.add("nvme4", &LIVE);
        root.add("nvme4", &[("subsysnqn", "(efault)"), ("model", "(efault)"), ("cntrltype", "reserved")]);
        let device = root.sysfs().controller("nvme4").unwrap().unwrap();
        assert_eq!((device.subsysnqn.as_str(), device.cntrltype.as_str()), ("", ""));
        assert_eq!(device.kind, ControllerKind::Io);
    }

    #[test]
    fn the_well_known_nqn_tells_where_there_is_no_type() {
        let root = Root::new();
        let [transport, address, state, ..] = LIVE;
        root.add("nvme0", &[transport, address, state, ("subsysnqn", DISCOVERY_NQN)]);
        root.add("nvme1", &[transport, address, state, ("subsysnqn", DISCOVERY_NQN), ("cntrltype", "reserved")]);
        root.add("nvme2", &[transport, address, state, ("subsysnqn", "nqn.x")]);
        root.add("nvme3", &[transport, address, state, ("subsysnqn", DISCOVERY_NQN), ("cntrltype", "io")]);
        let kinds: Vec<_> = root.sysfs().controllers().unwrap().iter().map(|device| device.kind).collect();
        use ControllerKind::{Discovery, Io};
        assert_eq!(kinds, [Discovery, Discovery, Io, Io]);
    }

    #[test]
    fn only_controllers_of_fabrics_that_exist_are_listed() {
        let root = Root::new();
        root.add("nvme10", &LIVE);
        root.add("nvme4", &LIVE);
        root.add("nvme0", &[("transport", "pcie"), ("address", "0000:00:04.0"), ("state", "live")]);
        root.add("nvme1", &[("transport", "tcp"), ("address", "traddr=192.0.2.1")]);
        root.add("nvme2", &[]);
        root.add("nvme-subsys0", &LIVE);
        std::os::unix::fs::symlink("nowhere", root.0.join("nvme3")).unwrap();
        let names: Vec<_> = root.sysfs().controllers().unwrap().into_iter().map(|device| device.name).collect();
        assert_eq!(names, ["nvme4", "nvme10"]);
        assert_eq!(root.sysfs().controller("nvme3").unwrap(), None);
        assert_eq!(root.sysfs().controller("../nvme4").unwrap(), None);
        assert!(Sysfs::new("/nonexistent").controllers().unwrap().is_empty());
    }

    /// A directory in place of an attribute reads as EISDIR, which is as good as any error that does not mean "gone".
    #[test]
    fn what_cannot_be_read_is_not_taken_for_gone() {
        for attribute in ["transport", "subsysnqn", "hostid", "state"] {
            let root = Root::new();
            root.add("nvme4", &LIVE);
            root.add("nvme5", &LIVE);
            fs::remove_file(root.0.join("nvme5").join(attribute)).unwrap();
            fs::create_dir(root.0.join("nvme5").join(attribute)).unwrap();
            assert!(root.sysfs().controllers().is_err(), "{attribute}: some of them are not all");
            assert!(root.sysfs().controller("nvme5").is_err());
            assert!(root.sysfs().controller("nvme4").is_ok_and(|found| found.is_some()));
            let identity = ControllerIdentity { device: "nvme5".into(), ..identity() };
            // What it is known by is all that counts for that.
            let is_identity = ["transport", "subsysnqn"].contains(&attribute);
            assert_eq!(root.sysfs().disconnect(&identity, None).is_err(), is_identity, "{attribute}");
        }
    }

    #[test]
    fn what_somebody_has_claimed_since_is_not_taken_down() {
        let root = Root::new();
        root.add("nvme4", &LIVE);
        let before = ControllerIdentity { owner: None, ..identity() };
        assert_eq!(root.sysfs().disconnect(&before, None), Err(Failure::InUse("nbft has claimed it".into())));
        assert_eq!(root.sysfs().disconnect(&identity(), None), Ok(()));
    }

    #[test]
    fn an_attribute_is_what_the_kernel_says_now() {
        let root = Root::new();
        root.add("nvme4", &LIVE);
        let shown = |name| root.sysfs().attribute(name, "state");
        assert_eq!(shown("nvme4"), "live");
        root.add("nvme4", &[("state", "connecting")]);
        assert_eq!([shown("nvme4"), shown("nvme5"), shown("../nvme4")], ["connecting", "", ""]);
    }

    #[test]
    fn the_described_controller_is_taken_down() {
        let root = Root::new();
        root.add("nvme4", &LIVE);
        assert_eq!(root.sysfs().disconnect(&identity(), None), Ok(()));
        assert_eq!(fs::read_to_string(root.0.join("nvme4/delete_controller")).unwrap(), "1");
    }

    #[test]
    fn another_controller_under_that_name_is_left_alone() {
        let changes: [(&str, &str); 6] = [
            ("address", "traddr=192.0.2.2,trsvcid=8009"),
            ("address", "traddr=192.0.2.1,trsvcid=8010"),
            ("transport", "rdma"),
            ("subsysnqn", "nqn.other"),
            ("subsysnqn", "(efault)"),
            ("hostnqn", "nqn.other"),
        ];
        for change in changes {
            let root = Root::new();
            root.add("nvme4", &LIVE);
            root.add("nvme4", &[change]);
            assert_eq!(root.sysfs().disconnect(&identity(), None), Err(Failure::NotThatController), "{change:?}");
            assert_eq!(fs::read_to_string(root.0.join("nvme4/delete_controller")).unwrap(), "\n");
        }
        let root = Root::new();
        root.add("nvme4", &[("transport", "pcie"), ("delete_controller", "")]);
        assert_eq!(root.sysfs().disconnect(&identity(), None), Err(Failure::Gone));
        assert_eq!(Root::new().sysfs().disconnect(&identity(), None), Err(Failure::Gone));
    }
}
