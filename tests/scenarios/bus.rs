//! The bus comes and goes, and clients misbehave, while storage does its work.

use crate::guest::{DISCOVERY_NQN, Daemon, Guest, Port, Subsystem};
use crate::sim::{Entry, Simulator};
use crate::vm::scenario;
use stas::bus::Role;
use stas::bus::address::Address;
use stas::bus::message::{self, Message};
use stas::ctl::client::{Client, Places};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

/// What an event may take from the target to the disk, in an emulated machine whose one processor others keep busy.
const PROMPTLY: Duration = Duration::from_secs(3);

/// How long the daemons may be away from a bus that is back; and at the worst, when the emulator itself pauses.
const BACK_ON_THE_BUS: Duration = Duration::from_secs(1);
const AT_THE_WORST: Duration = Duration::from_secs(4);

/// The daemon's socket when both roles are in one process.
const SOCKET: &str = "/run/stas/control";

/// The target's port, and disks `a`, linked already, and `b`.
struct Storage {
    port: Port,
    b: Subsystem,
}

fn storage(guest: &Guest) -> Storage {
    let [a, b] = ["a", "b"].map(|name| guest.target().subsystem(&format!("nqn.2026-01.example:{name}")));
    let port = guest.target().tcp_port("127.0.0.1", 8009);
    port.link(&a);
    guest.write("/etc/stas/stafd.conf", "[[controller]]\ntransport = \"tcp\"\ntraddr = \"127.0.0.1\"\n");
    Storage { port, b }
}

fn wait_disks(guest: &Guest, count: usize) -> Duration {
    guest.wait_until(&format!("there are {count} disks"), SOON, || guest.block_devices().len() == count)
}

/// Links the second disk and takes it away again; how long the slower of the two took.
fn storage_event(guest: &Guest, storage: &Storage) -> Duration {
    storage.port.link(&storage.b);
    let appeared = wait_disks(guest, 2);
    storage.port.unlink(&storage.b);
    appeared.max(wait_disks(guest, 1))
}

fn on_bus(role: Role) -> Option<Client> {
    Client::open(role, &Places { bus: Address::system(), sockets: vec![], patience: SOON }).ok()
}

/// How long until both names are on the bus again, and that calls are answered.
fn wait_names(guest: &Guest) -> Duration {
    guest.wait_until("both names are on the bus", SOON, || {
        [Role::Finder, Role::Connector]
            .into_iter()
            .all(|role| on_bus(role).is_some_and(|mut c| c.process_info().is_ok()))
    })
}

#[track_caller]
fn back_in_time(took: &[Duration]) {
    let fastest = took.iter().min().unwrap();
    assert!(*fastest < BACK_ON_THE_BUS && took.iter().all(|took| *took < AT_THE_WORST), "{took:?}");
}

#[test]
fn daemons_without_bus_meet_when_it_comes() {
    scenario(|guest| {
        let storage = storage(guest);
        let stafd = guest.spawn("stafd", &[]);
        let stacd = guest.spawn("stacd", &[]);
        stafd.wait_log("lists 2 entries", SOON);
        assert_eq!(guest.block_devices(), []);
        assert!(guest.run("stafctl", &["ls"]).ok().contains("nvme0"));

        let bus = guest.start_bus();
        let first = wait_names(guest);
        wait_disks(guest, 1);
        bus.kill();
        stacd.wait_log("D-Bus: ", SOON);
        storage.port.link(&storage.b);
        // Nothing goes with the bus, and what happened meanwhile is made good when it is back.
        let _bus = guest.start_bus();
        back_in_time(&[first, wait_names(guest)]);
        wait_disks(guest, 2);
        assert_eq!(guest.controllers().len(), 3);
        let log = stafd.terminate().log + &stacd.terminate().log;
        assert!(!log.contains("disconnect"), "{log}");
    });
}

#[test]
fn one_process_does_not_mind_the_bus() {
    scenario(|guest| {
        let storage = storage(guest);
        let _stas = guest.spawn("stas", &["run"]);
        wait_disks(guest, 1);
        let alone = storage_event(guest, &storage);
        assert!(alone < PROMPTLY, "{alone:?}");
        let mut took = Vec::new();
        for _ in 0..3 {
            let bus = guest.start_bus();
            took.push(wait_names(guest));
            bus.kill();
            let without = storage_event(guest, &storage);
            assert!(without < PROMPTLY, "{without:?}");
        }
        back_in_time(&took);
        // One that takes connections and says nothing.
        std::fs::remove_file("/run/dbus/system_bus_socket").unwrap();
        let _silent = std::os::unix::net::UnixListener::bind("/run/dbus/system_bus_socket").unwrap();
        let with_silent_bus = storage_event(guest, &storage);
        assert!(with_silent_bus < PROMPTLY, "{with_silent_bus:?}");
        assert!(guest.run("stas", &["tree"]).ok().contains("nvme0 tcp 127.0.0.1:8009  live, configured"));
    });
}

#[test]
fn no_client_delays_storage() {
    scenario(|guest| {
        let storage = storage(guest);
        let _bus = guest.start_bus();
        let mut stas = guest.spawn("stas", &["run"]);
        wait_disks(guest, 1);
        wait_names(guest);
        let before = resident(&stas);

        // They write until they would have to wait, and stay.
        let deaf: Vec<UnixStream> = (0..8).map(|_| deaf_client()).collect();
        let garbage = [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0xff; 4096],
            &oversized(),
            b"\0AUTH EXTERNAL 30\r\nBEGIN\r\nl\x01\x00\x01",
        ];
        for bytes in garbage {
            let mut stream = UnixStream::connect(SOCKET).unwrap();
            let _ = stream.write_all(bytes);
        }
        let (stop, calls) = (AtomicBool::new(false), AtomicU32::new(0));
        let (slowest, elapsed) = std::thread::scope(|scope| {
            scope.spawn(|| flood(&stop, &calls));
            scope.spawn(|| flood(&stop, &calls));
            scope.spawn(|| {
                let mut client = on_bus(Role::Finder).unwrap();
                while !stop.load(Relaxed) {
                    client.all_log_pages(true).unwrap();
                    calls.fetch_add(1, Relaxed);
                }
            });
            let begin = Instant::now();
            let slowest = (0..5).map(|_| storage_event(guest, &storage)).max().unwrap();
            stop.store(true, Relaxed);
            (slowest, begin.elapsed())
        });
        let calls = calls.load(Relaxed);
        guest.tell(&format!("{calls} calls in {elapsed:?}, the slowest storage event {slowest:?}"));
        assert!(slowest < PROMPTLY, "{slowest:?}");
        assert!(f64::from(calls) > 1000.0 * elapsed.as_secs_f64(), "only {calls} calls in {elapsed:?}: no flood");
        let after = resident(&stas);
        assert!(after < before + 16_384, "{before} KiB before, {after} KiB after");
        assert!(stas.is_running());
        drop(deaf);
        assert!(guest.run("stafctl", &["ls"]).ok().contains("nvme0"));
    });
}

/// Calls without waiting for answers, but reads them.
fn flood(stop: &AtomicBool, calls: &AtomicU32) {
    const BATCH: u32 = 32;
    let mut stream = connected_client();
    let batch = call("org.freedesktop.DBus.Peer", "Ping", |_| {}).repeat(BATCH as usize);
    let mut answers = stream.try_clone().unwrap();
    // Ends with the connection.
    let reader = std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
    while !stop.load(Relaxed) {
        stream.write_all(&batch).unwrap();
        calls.fetch_add(BATCH, Relaxed);
    }
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    let _ = reader.join();
}

/// Asks and asks without reading an answer, until there is no room for another question.
fn deaf_client() -> UnixStream {
    let mut stream = connected_client();
    let question = call("org.nvmexpress.staf", "get_all_log_pages", |call| call.body.push_param(true).unwrap());
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let error = loop {
        if let Err(error) = stream.write_all(&question) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    stream
}

fn connected_client() -> UnixStream {
    let mut stream = UnixStream::connect(SOCKET).unwrap();
    stream.write_all(b"\0AUTH EXTERNAL 30\r\n").unwrap();
    let mut answer = [0; 64];
    assert!(stream.read(&mut answer).unwrap() > 0);
    stream.write_all(b"BEGIN\r\n").unwrap();
    stream
}

fn call(interface: &str, member: &str, arguments: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut call = message::call(Role::Finder.name(), Role::Finder.path(), interface, member);
    arguments(&mut call);
    message::encode(&call, 1).unwrap()
}

/// A message that claims to have a body of 128 MiB.
fn oversized() -> Vec<u8> {
    let mut bytes = b"\0AUTH EXTERNAL 30\r\nBEGIN\r\nl\x01\x00\x01".to_vec();
    bytes.extend([0, 0, 0, 8, 1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([0; 1 << 16]);
    bytes
}

/// Memory of a daemon in KiB.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn two_thousand_entries_are_one_reply() {
    scenario(|guest| {
        const COUNT: usize = 2000;
        let storage = storage(guest);
        // The entries lead to where nobody answers.
        guest.silent_network("10.99.0.1/24");
        let large = Simulator::start("127.0.0.1:8010").unwrap();
        large.set_entries((0..COUNT).map(|n| Entry::io(&format!("nqn.2026-01.example:{n:04}"), "10.99.0.7", "4420")));
        guest.write(
            "/etc/stas/stafd.conf",
            "[[controller]]\ntransport = \"tcp\"\ntraddr = \"127.0.0.1\"\n\n\
             [[controller]]\ntransport = \"tcp\"\ntraddr = \"127.0.0.1\"\ntrsvcid = 8010\n",
        );
        let _bus = guest.start_bus();
        let stas = guest.spawn("stas", &["run"]);
        stas.wait_log("lists 2000 entries", SOON);
        wait_disks(guest, 1);
        wait_names(guest);

        let mut client = on_bus(Role::Finder).unwrap();
        let begin = Instant::now();
        let reply = client.all_log_pages(false).unwrap();
        let first = begin.elapsed();
        let pages: serde_json::Value = serde_json::from_str(&reply).unwrap();
        let page = pages.as_array().unwrap().iter().find(|page| page["discovery-controller"]["trsvcid"] == "8010");
        let entries = page.unwrap()["log-pages"].as_array().unwrap();
        assert_eq!(entries.len(), COUNT);
        assert_eq!(entries[COUNT - 1]["subnqn"], format!("nqn.2026-01.example:{:04}", COUNT - 1));
        assert_ne!(page.unwrap()["discovery-controller"]["subsysnqn"], "");
        let begin = Instant::now();
        assert_eq!(client.all_log_pages(false).unwrap(), reply);
        let again = begin.elapsed();

        let stop = AtomicBool::new(false);
        let slowest = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    client.all_log_pages(false).unwrap();
                }
            });
            let slowest = (0..3).map(|_| storage_event(guest, &storage)).max().unwrap();
            stop.store(true, Relaxed);
            slowest
        });
        guest.tell(&format!("first reply after {first:?}, again {again:?}; the slowest storage event {slowest:?}"));
        assert!(slowest < PROMPTLY, "{slowest:?}");
        assert!(
            guest.run("stafctl", &["dlp", "-a", "127.0.0.1", "-s", "8010", "-n", DISCOVERY_NQN]).ok().lines().count()
                > COUNT
        );
    });
}
