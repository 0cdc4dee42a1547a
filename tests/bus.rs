//! The daemons' D-Bus side against a real dbus-daemon, with the policy files that are installed, and against clients that
//! are not ours (dbus-send). Without a dbus-daemon these tests fail, they do not skip.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use nix::unistd::geteuid;
use stas::bus::address::Address;
use stas::bus::dispatch::Served;
use stas::bus::objects::{Description, Objects};
use stas::bus::{
    BusEvent, BusTokens, ControllerId, EntryText, PageState, PrivateServer, Role, Signal, SystemBus, introspect,
    message, pages, sasl,
};
use stas::ctl::client::{Client, Failure, Places, TIMEOUT};

/// Nothing here takes long; only a broken program reaches this.
const PATIENCE: Duration = Duration::from_secs(10);

const WAKE: Token = Token(0);
const BUS: BusTokens = BusTokens { bus: Token(1), watch: Token(2) };
const PRIVATE: Token = Token(10);

/// A directory of this test run's own.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn bus_address(&self) -> Address {
        Address::Path(self.0.join("run/bus"))
    }

    fn places(&self) -> Places {
        Places { bus: Ok(self.bus_address()), sockets: vec![self.0.join("control")], patience: TIMEOUT }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A system bus at `run/bus` in a directory, with the rules of a usual one and our policy files.
struct Bus(Child);

impl Bus {
    fn start(directory: &Directory) -> Bus {
        let root = &directory.0;
        std::fs::create_dir_all(root.join("run")).unwrap();
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/dbus-1/system.d");
        let config = format!(
            r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
                "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
            <busconfig><listen>unix:path={}</listen><auth>EXTERNAL</auth>
            <policy context="default"><allow user="*"/><deny own="*"/><deny send_type="method_call"/>
            <allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
            <allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
            <allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
            <allow send_destination="org.freedesktop.DBus"/></policy>
            <includedir>{}</includedir>
            <policy user="{}"><allow own_prefix="org.nvmexpress"/></policy></busconfig>"#,
            root.join("run/bus").display(),
            policies.display(),
            // Who runs these tests may be the daemon, as root may on a real bus.
            geteuid(),
        );
        std::fs::write(root.join("bus.conf"), config).unwrap();
        let mut child = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", root.join("bus.conf").display()))
            .args(["--nofork", "--nopidfile", "--nosyslog", "--print-address=1"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need dbus-daemon (package dbus-daemon or dbus)");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("unix:path="), "dbus-daemon did not start: {line}");
        Bus(child)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the daemon of these tests knows.
struct Fake {
    tron: bool,
    /// Returned by get_all_log_pages.
    pages: Rc<str>,
}

fn id() -> ControllerId {
    ControllerId {
        transport: "tcp".into(),
        traddr: "192.0.2.1".into(),
        trsvcid: "8009".into(),
        subsysnqn: "nqn.2014-08.org.nvmexpress.discovery".into(),
        host_nqn: "nqn.host".into(),
        ..ControllerId::default()
    }
}

fn description(detailed: bool) -> Description {
    let names = ["transport", "traddr", "trsvcid", "subsysnqn", "host-traddr", "host-iface", "host-nqn"];
    let mut pairs: Description = names.into_iter().zip(id().strings().map(str::to_owned)).collect();
    pairs.push(("device", "nvme0".into()));
    if detailed {
        pairs.push(("connected", "True".into()));
        pairs.push((PageState::KEY, PageState::Fresh.as_str().into()));
    }
    pairs
}

fn entry() -> EntryText {
    EntryText {
        trtype: "tcp".into(),
        traddr: "192.0.2.7".into(),
        trsvcid: "4420".into(),
        subnqn: "nqn.subsystem".into(),
        subtype: "nvme".into(),
        ..EntryText::default()
    }
}

impl Objects for Fake {
    fn list_controllers(&self, _role: Role, detailed: bool) -> Vec<Description> {
        vec![description(detailed)]
    }

    fn log_pages(&self, wanted: &ControllerId) -> Vec<EntryText> {
        if *wanted == id() { vec![entry()] } else { vec![] }
    }

    fn all_log_pages(&self, detailed: bool) -> Rc<str> {
        assert!(detailed);
        Rc::clone(&self.pages)
    }

    fn process_info(&self, _role: Role) -> String {
        format!(r#"{{"tron":{}}}"#, self.tron)
    }

    fn controller_info(&self, _role: Role, _id: &ControllerId) -> String {
        "{}".into()
    }

    fn tron(&self, _role: Role) -> bool {
        self.tron
    }

    fn set_tron(&mut self, _role: Role, on: bool) {
        self.tron = on;
    }

    fn log_level(&self, _role: Role) -> String {
        "INFO".into()
    }
}

enum Order {
    Emit(Signal),
    Stop,
}

/// A poll loop with a system bus and a private socket, in a thread.
struct Daemon {
    events: Receiver<BusEvent>,
    orders: Sender<Order>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    fn start(directory: &Directory, role: Role, follow_finder: bool) -> Daemon {
        let json = pages::to_json([(&description(true), &[entry()][..])]);
        Daemon::start_with(directory, role, follow_finder, json)
    }

    fn start_with(directory: &Directory, role: Role, follow_finder: bool, json: String) -> Daemon {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKE).unwrap());
        let (told, events) = mpsc::channel();
        let (orders, ordered) = mpsc::channel();
        let served = Served::new(&[role]);
        let (address, home) = (directory.bus_address(), directory.0.clone());
        let thread = std::thread::spawn(move || {
            let mut objects = Fake { tron: false, pages: Rc::from(json) };
            let mut bus = SystemBus::new(address, served.clone(), follow_finder, poll.registry(), BUS).unwrap();
            let serves_privately = role == Role::Finder;
            let mut private =
                serves_privately.then(|| PrivateServer::new(&home, served, poll.registry(), PRIVATE).unwrap());
            let mut ready = Events::with_capacity(16);
            bus.start(Instant::now());
            loop {
                while let Some(event) = bus.poll_event().or_else(|| private.as_mut()?.poll_event()) {
                    if let BusEvent::TronSet(role, on) = event {
                        bus.emit(&Signal::TronChanged(role, on), Instant::now());
                        private.iter_mut().for_each(|server| server.emit(&Signal::TronChanged(role, on)));
                    }
                    if told.send(event).is_err() {
                        return;
                    }
                }
                let timeout = bus.deadline().map(|at| at.saturating_duration_since(Instant::now()));
                poll.poll(&mut ready, timeout).unwrap();
                let now = Instant::now();
                for event in &ready {
                    match (event.token(), &mut private) {
                        (WAKE, _) => {}
                        (token, Some(server)) if server.has_token(token) => server.ready(token, &mut objects),
                        (token, _) => bus.ready(token, now, &mut objects),
                    }
                }
                if bus.deadline().is_some_and(|at| at <= now) {
                    bus.handle_deadline(now);
                }
                for order in ordered.try_iter() {
                    match order {
                        Order::Emit(signal) => {
                            bus.emit(&signal, now);
                            private.iter_mut().for_each(|server| server.emit(&signal));
                        }
                        Order::Stop => return,
                    }
                }
            }
        });
        Daemon { events, orders, waker, thread: Some(thread) }
    }

    fn event(&self) -> BusEvent {
        self.events.recv_timeout(PATIENCE).expect("an event of the daemon")
    }

    fn expect(&self, expected: BusEvent) {
        assert_eq!(self.event(), expected);
    }

    fn expect_disconnected(&self) {
        let event = self.event();
        assert!(matches!(event, BusEvent::Disconnected(_)), "{event:?}");
    }

    fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
        self.waker.wake().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        let _ = self.waker.wake();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

/// Runs dbus-send against `--bus=` or `--peer=` an address; its exit status, output and errors.
fn dbus_send(route: &str, socket: &Path, arguments: &[&str]) -> (bool, String, String) {
    let mut command = Command::new("dbus-send");
    command.arg(format!("--{route}=unix:path={}", socket.display())).arg("--print-reply=literal");
    if route == "bus" {
        command.arg("--dest=org.nvmexpress.staf");
    }
    let output = command.args(arguments).output().expect("these tests need dbus-send (package dbus-bin or dbus)");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn clients_on_the_bus_are_served() {
    let directory = Directory::new("served");
    let _bus = Bus::start(&directory);
    let daemon = Daemon::start(&directory, Role::Finder, false);
    daemon.expect(BusEvent::NameOwned(Role::Finder));

    let socket = directory.0.join("run/bus");
    let path = Role::Finder.path();
    let send = |arguments: &[&str]| dbus_send("bus", &socket, arguments);
    let (done, xml, _) = send(&[path, "org.freedesktop.DBus.Introspectable.Introspect"]);
    assert!(done);
    assert_eq!(xml.trim(), introspect::xml(Role::Finder).trim());
    let (done, controllers, _) = send(&[path, "org.nvmexpress.staf.list_controllers", "boolean:false"]);
    assert!(done && controllers.contains("192.0.2.1") && !controllers.contains("connected"), "{controllers}");
    assert!(send(&["/", "org.freedesktop.DBus.Peer.Ping"]).0);
    let (_, value, _) =
        send(&[path, "org.freedesktop.DBus.Properties.Get", "string:org.nvmexpress.staf.debug", "string:tron"]);
    assert_eq!(value.split_ascii_whitespace().collect::<Vec<_>>(), ["variant", "boolean", "false"]);

    for (arguments, name) in [
        (vec!["/nowhere", "org.nvmexpress.staf.list_controllers"], "UnknownObject"),
        (vec![path, "org.nvmexpress.other.list_controllers"], "UnknownInterface"),
        (vec![path, "org.nvmexpress.staf.ListControllers"], "UnknownMethod"),
        (vec![path, "org.nvmexpress.staf.list_controllers", "string:yes"], "InvalidArgs"),
    ] {
        let (done, _, errors) = send(&arguments);
        assert!(!done && errors.contains(&format!("org.freedesktop.DBus.Error.{name}: ")), "{arguments:?}: {errors}");
    }
}

#[test]
fn our_own_tools_find_the_daemon_on_either_route() {
    let directory = Directory::new("tools");
    let bus = Bus::start(&directory);
    let daemon = Daemon::start(&directory, Role::Finder, false);
    daemon.expect(BusEvent::NameOwned(Role::Finder));
    let ask = || {
        let mut client = Client::open(Role::Finder, &directory.places()).unwrap();
        let controllers = client.list_controllers(true).unwrap();
        let keys: Vec<&str> = controllers[0].iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, description(true).iter().map(|(key, _)| *key).collect::<Vec<_>>());
        let entries = client.log_pages(&id()).unwrap();
        assert_eq!(entries[0][4], ("subnqn".to_owned(), "nqn.subsystem".to_owned()));
        assert!(client.log_pages(&ControllerId::default()).unwrap().is_empty());
        let all = pages::from_json(&client.all_log_pages(true).unwrap()).unwrap();
        assert_eq!((all[0].state, all[0].entries.len()), (Some(PageState::Fresh), 1));
        client
    };
    assert_eq!(ask().process_info().unwrap(), r#"{"tron":false}"#);
    // The connector is not on the bus; who asks for it ends up on the private socket, where only the finder is served.
    assert!(matches!(
        Client::open(Role::Connector, &directory.places()).unwrap().process_info(),
        Err(Failure::Refused(_))
    ));

    drop(bus);
    daemon.expect_disconnected();
    ask();
    drop(daemon);
    let error = Client::open(Role::Finder, &directory.places()).unwrap_err();
    assert!(matches!(error, Failure::Unreachable(_)) && error.to_string().contains("stafd"), "{error}");
}

/// Root may set properties and others may not, on either route. The others are whoever runs this test, or `nobody`.
#[test]
fn only_root_may_set_properties() {
    let directory = Directory::new("set");
    let _bus = Bus::start(&directory);
    let daemon = Daemon::start(&directory, Role::Finder, false);
    daemon.expect(BusEvent::NameOwned(Role::Finder));
    for (route, socket) in [("bus", "run/bus"), ("peer", "control")] {
        let mut command = Command::new("dbus-send");
        command.arg(format!("--{route}=unix:path={}", directory.0.join(socket).display()));
        command.args(["--print-reply", "--dest=org.nvmexpress.staf", Role::Finder.path()]);
        command.args(["org.freedesktop.DBus.Properties.Set", "string:org.nvmexpress.staf.debug", "string:tron"]);
        command.arg("variant:boolean:true");
        if geteuid().is_root() {
            assert!(command.output().unwrap().status.success(), "{route}");
            daemon.expect(BusEvent::TronSet(Role::Finder, true));
            let mut client = Client::open(Role::Finder, &directory.places()).unwrap();
            assert_eq!(client.process_info().unwrap(), r#"{"tron":true}"#);
            client.set_tron(false).unwrap();
            daemon.expect(BusEvent::TronSet(Role::Finder, false));
            command.uid(65534).gid(65534);
        }
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains("AccessDenied"), "{route}: {errors}");
        assert!(daemon.events.try_recv().is_err());
    }
}

#[test]
fn the_name_is_ours_again_when_the_bus_restarts() {
    let directory = Directory::new("restart");
    let bus = Bus::start(&directory);
    let daemon = Daemon::start(&directory, Role::Finder, false);
    daemon.expect(BusEvent::NameOwned(Role::Finder));
    drop(bus);
    daemon.expect_disconnected();
    let _bus = Bus::start(&directory);
    let started = Instant::now();
    daemon.expect(BusEvent::NameOwned(Role::Finder));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    // The socket's directory may go as well.
    drop(_bus);
    daemon.expect_disconnected();
    std::fs::remove_dir_all(directory.0.join("run")).unwrap();
    let _bus = Bus::start(&directory);
    daemon.expect(BusEvent::NameOwned(Role::Finder));
    assert!(Client::open(Role::Finder, &directory.places()).is_ok());
}

/// In virtual time: after a few attempts nothing is due any more; the socket's appearance alone brings the bus back.
#[test]
fn a_missing_bus_is_waited_for_without_waking_up() {
    let directory = Directory::new("absent");
    let mut poll = Poll::new().unwrap();
    let served = Served::new(&[Role::Finder]);
    let mut bus = SystemBus::new(directory.bus_address(), served, false, poll.registry(), BUS).unwrap();
    bus.start(Instant::now());
    assert!(matches!(bus.poll_event(), Some(BusEvent::Disconnected(_))));
    let mut attempts = 0;
    while let Some(at) = bus.deadline() {
        bus.handle_deadline(at);
        attempts += 1;
        assert!(attempts < 20, "the loop keeps waking up");
    }
    assert!(attempts > 0);

    let _bus = Bus::start(&directory);
    let mut objects = Fake { tron: false, pages: Rc::from("[]") };
    let mut ready = Events::with_capacity(16);
    let started = Instant::now();
    let event = loop {
        let timeout = bus.deadline().map_or(PATIENCE, |at| at.saturating_duration_since(Instant::now()));
        poll.poll(&mut ready, Some(timeout)).unwrap();
        ready.iter().for_each(|event| bus.ready(event.token(), Instant::now(), &mut objects));
        if bus.deadline().is_some_and(|at| at <= Instant::now()) {
            bus.handle_deadline(Instant::now());
        }
        if let Some(event) = bus.poll_event() {
            break event;
        }
        assert!(started.elapsed() < PATIENCE, "the bus is there and was not noticed");
    };
    assert_eq!(event, BusEvent::NameOwned(Role::Finder));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn a_name_that_another_process_has_comes_to_us_when_it_goes() {
    let directory = Directory::new("queue");
    let _bus = Bus::start(&directory);
    let first = Daemon::start(&directory, Role::Connector, false);
    first.expect(BusEvent::NameOwned(Role::Connector));
    let second = Daemon::start(&directory, Role::Connector, false);
    assert!(matches!(second.event(), BusEvent::NameRefused(Role::Connector, _)));
    drop(first);
    second.expect(BusEvent::NameOwned(Role::Connector));
}

#[test]
fn a_connector_follows_a_finder() {
    let directory = Directory::new("follow");
    let bus = Bus::start(&directory);
    let connector = Daemon::start(&directory, Role::Connector, true);
    connector.expect(BusEvent::NameOwned(Role::Connector));
    let pages = |event: BusEvent| match event {
        BusEvent::FinderPages(pages) => pages,
        other => panic!("{other:?}"),
    };
    for _ in 0..2 {
        let finder = Daemon::start(&directory, Role::Finder, false);
        finder.expect(BusEvent::NameOwned(Role::Finder));
        connector.expect(BusEvent::FinderAppeared);
        let first = pages(connector.event());
        assert_eq!((&first[0].id, first[0].connected, first[0].state), (&id(), Some(true), Some(PageState::Fresh)));
        assert_eq!(first[0].entries, [entry()]);
        finder.order(Order::Emit(Signal::LogPagesChanged { id: id(), device: "nvme0".into() }));
        pages(connector.event());
        finder.order(Order::Emit(Signal::DcRemoved));
        pages(connector.event());
        drop(finder);
        connector.expect(BusEvent::FinderGone);
    }
    drop(bus);
    connector.expect_disconnected();
}

#[test]
fn other_clients_are_served_on_the_private_socket() {
    let directory = Directory::new("private");
    let daemon = Daemon::start(&directory, Role::Finder, false);
    daemon.expect_disconnected();
    let socket = directory.0.join("control");
    let (done, controllers, errors) =
        dbus_send("peer", &socket, &[Role::Finder.path(), "org.nvmexpress.staf.list_controllers", "boolean:true"]);
    assert!(done && controllers.contains("nvme0"), "{errors}");
    let (done, _, errors) = dbus_send("peer", &socket, &["/nowhere", "org.nvmexpress.staf.list_controllers"]);
    assert!(!done && errors.contains("UnknownObject"), "{errors}");
}

/// A connection to the private socket on which messages may be sent.
fn let_in(socket: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n").unwrap();
    let mut answers = [0; 6 + 37 + 7];
    stream.read_exact(&mut answers).unwrap();
    assert!(answers.starts_with(b"DATA\r\nOK ") && answers.ends_with(b"ERROR\r\n"));
    stream
}

#[test]
fn clients_that_misbehave_harm_only_themselves() {
    let directory = Directory::new("misbehave");
    // Some megabytes, so that replies do not fit the socket's buffer.
    let many = vec![entry(); 20_000];
    let json = pages::to_json([(&description(true), &many[..])]);
    let daemon = Daemon::start_with(&directory, Role::Finder, false, json);
    daemon.expect_disconnected();
    let socket = directory.0.join("control");
    let assert_served = || {
        let mut client = Client::open(Role::Finder, &directory.places()).unwrap();
        assert_eq!(pages::from_json(&client.all_log_pages(true).unwrap()).unwrap()[0].entries.len(), 20_000);
    };

    // Nonsense, before and after authentication: dropped.
    let mut browser = UnixStream::connect(&socket).unwrap();
    browser.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(browser.read(&mut [0; 64]).unwrap(), 0);
    let mut babbler = let_in(&socket);
    babbler.write_all(&[b'x'; 64]).unwrap();
    assert!(matches!(babbler.read(&mut [0; 64]), Ok(0) | Err(_)));
    assert_served();

    // One that calls and calls and does not read: kept waiting; its later calls stay in the kernel.
    let mut deaf = let_in(&socket);
    deaf.set_nonblocking(true).unwrap();
    let mut call = message::call("a.b", Role::Finder.path(), "org.nvmexpress.staf", "get_all_log_pages");
    call.body.push_param(true).unwrap();
    let call = message::encode(&call, 1).unwrap();
    let mut sent = 0;
    while deaf.write_all(&call).is_ok() {
        sent += 1;
        assert!(sent < 100_000, "the daemon reads on although its replies are not read");
    }
    assert_served();
    for _ in 0..100 {
        daemon.order(Order::Emit(Signal::DcRemoved));
    }
    assert_served();

    // Too many: turned away at once, and served again when there is room.
    let crowd: Vec<UnixStream> = (0..70).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let error = Client::open(Role::Finder, &directory.places()).unwrap_err();
    assert!(matches!(error, Failure::Unreachable(_)));
    drop(crowd);
    drop(deaf);
    let deadline = Instant::now() + PATIENCE;
    while Client::open(Role::Finder, &directory.places()).is_err() {
        assert!(Instant::now() < deadline, "no room again");
    }
    assert_served();
}

/// The bus keeps about 127 MB of our replies for clients that do not read; then it does not read from us any more. We
/// notice and come back on a new connection, so that the others are served again.
#[test]
fn a_client_on_the_bus_that_does_not_read_does_not_silence_us() {
    let directory = Directory::new("deaf");
    let _bus = Bus::start(&directory);
    let many = vec![entry(); 10_000];
    let json = pages::to_json([(&description(true), &many[..])]);
    let replies = u32::try_from((160 << 20) / json.len()).unwrap();
    assert!(replies < 128, "the bus allows a client so many calls at a time");
    let daemon = Daemon::start_with(&directory, Role::Finder, false, json);
    daemon.expect(BusEvent::NameOwned(Role::Finder));

    let mut deaf = UnixStream::connect(directory.0.join("run/bus")).unwrap();
    deaf.write_all(&sasl::client_greeting(geteuid().as_raw())).unwrap();
    deaf.write_all(sasl::CLIENT_BEGIN).unwrap();
    deaf.write_all(&message::encode(&message::bus_call("Hello"), 1).unwrap()).unwrap();
    let mut call = message::call(Role::Finder.name(), Role::Finder.path(), "org.nvmexpress.staf", "get_all_log_pages");
    call.body.push_param(true).unwrap();
    for serial in 2..2 + replies {
        deaf.write_all(&message::encode(&call, serial).unwrap()).unwrap();
    }
    daemon.expect_disconnected();
    daemon.expect(BusEvent::NameOwned(Role::Finder));
    let mut client = Client::open(Role::Finder, &directory.places()).unwrap();
    assert_eq!(client.list_controllers(false).unwrap().len(), 1);
}

#[test]
fn a_second_daemon_does_not_take_the_private_socket() {
    let directory = Directory::new("second");
    let first = Daemon::start(&directory, Role::Finder, false);
    first.expect_disconnected();
    let poll = Poll::new().unwrap();
    let second = PrivateServer::new(&directory.0, Served::new(&[Role::Finder]), poll.registry(), PRIVATE);
    assert_eq!(second.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    drop(first);
    // A leftover of a killed daemon is replaced.
    drop(std::os::unix::net::UnixListener::bind(directory.0.join("control")).unwrap());
    PrivateServer::new(&directory.0, Served::new(&[Role::Finder]), poll.registry(), PRIVATE).unwrap();
}
