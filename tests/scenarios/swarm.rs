//! Others on the machine come and go, come in hundreds, or mean harm, while storage does its work.

use crate::guest::{Guest, Port, Subsystem};
use crate::stas::{Form, KERNEL_WAITS, SOON, STACD_CONF, STAFD_CONF, Stas, controller, nqn};
use crate::vm::{Scenario, scenario};
use nix::errno::Errno;
use stas::bus::Role;
use stas::bus::address::Address;
use stas::ctl::client::{Client, Failure, Places};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

const SOCKETS: [&str; 2] = ["/run/stafd/control", "/run/stacd/control"];

/// A port with subsystems `0` to `9`, and its discovery controller in the configuration.
fn offer(guest: &Guest) -> (Port, Vec<Subsystem>) {
    let port = guest.target().tcp_port("127.0.0.1", 8009);
    let subsystems = (0..10).map(|number| guest.target().subsystem(&nqn(&number.to_string()))).collect();
    guest.write(STAFD_CONF, &controller("127.0.0.1", 8009));
    guest.write(STACD_CONF, KERNEL_WAITS);
    (port, subsystems)
}

/// The first of them is connected, by two daemons.
fn attach_first(guest: &Guest) -> (Port, Vec<Subsystem>, Stas<'_>) {
    let (port, subsystems) = offer(guest);
    port.link(&subsystems[0]);
    let stas = Stas::start(guest, Form::TwoDaemons);
    stas.wait_for_storage(&nqns(&subsystems[..1]), SOON);
    (port, subsystems, stas)
}

fn nqns(subsystems: &[Subsystem]) -> Vec<&str> {
    subsystems.iter().map(|subsystem| subsystem.nqn.as_str()).collect()
}

/// Bus and Avahi are killed again and again while controllers come and go.
#[test]
fn the_bus_and_avahi_come_and_go() {
    Scenario::new().limit(Duration::from_secs(240)).run(|guest| {
        const ROUNDS: usize = 4;
        let (port, subsystems) = offer(guest);
        let (coming, going) = subsystems.split_at(ROUNDS);
        going[..=ROUNDS].iter().for_each(|subsystem| port.link(subsystem));
        let far = guest.namespace("far", "10.97.0.1/24", "10.97.0.2/24");
        guest.write("/proc/sys/net/ipv6/conf/far/disable_ipv6", "1");
        let announced = guest.target().subsystem(&nqn("far"));
        guest.target().tcp_port("10.97.0.2", 8009).link_in(&far, &announced);
        let announcer = guest.start_announcer(&far);
        announcer.announce("dc", "_nvme-disc._tcp", 8009, &["p=tcp"]);
        let mut stas = Stas::start(guest, Form::TwoDaemons);
        let mut avahi = guest.start_avahi();
        let mut wanted: Vec<&str> = nqns(&going[..=ROUNDS]);
        wanted.push(&announced.nqn);
        guest.wait_for_storage(&wanted, 2 * SOON);
        let staying = [announced.nqn.as_str(), &going[ROUNDS].nqn];
        let kept: Vec<_> =
            guest.controllers().into_iter().filter(|found| staying.contains(&&*found.subsysnqn)).collect();
        assert_eq!(kept.len(), 2);

        for round in 0..ROUNDS {
            if round % 2 == 0 && avahi.is_running() {
                avahi.kill();
                avahi = guest.start_avahi();
            }
            stas.kill_bus();
            port.link(&coming[round]);
            port.unlink(&going[round]);
            stas.start_bus();
            // It does not live without its bus.
            guest.wait_until("Avahi has noticed", SOON, || !avahi.is_running());
            avahi = guest.start_avahi();
            wanted.retain(|nqn| *nqn != going[round].nqn);
            wanted.push(&coming[round].nqn);
        }
        guest.wait_for_storage(&wanted, 2 * SOON);
        guest.assert_untouched(&kept);
        stas.finder().wait_log("Avahi is there", SOON);
        for daemon in [stas.finder(), stas.connector()] {
            let lost = daemon.count_log("going on without it until it is there");
            assert!((1..=ROUNDS).contains(&lost), "{}", daemon.log());
        }
        assert!(stas.finder().count_log("Avahi is gone") <= 2 * ROUNDS, "{}", stas.finder().log());
        assert!(stas.connector().count_log("the finder is gone") <= ROUNDS, "{}", stas.connector().log());
        stas.assert_running();
    });
}

/// Hundreds at once, most of them there to stay: the administrator gets through, storage is not delayed, the log is not
/// filled, and once they are gone everybody is served.
#[test]
fn hundreds_of_clients() {
    scenario(|guest| {
        let (port, subsystems, mut stas) = attach_first(guest);
        let before = guest.controllers();
        let so_far = stas.logs().lines().count();

        let crowd: Vec<UnixStream> = SOCKETS
            .iter()
            .flat_map(|socket| (0..300).map(move |_| guest.as_nobody(|| UnixStream::connect(socket)).unwrap()))
            .collect();
        assert!(private(Role::Connector).unwrap().process_info().is_ok(), "root is locked out");
        guest.as_nobody(|| private(Role::Connector).expect_err("one more was let in"));
        port.link(&subsystems[1]);
        stas.wait_for_storage(&nqns(&subsystems[..2]), SOON);
        drop(crowd);
        let user = || guest.as_nobody(|| private(Role::Finder).is_ok_and(|mut client| client.process_info().is_ok()));
        guest.wait_until("users are served again", SOON, user);

        // On the bus they share one connection to us.
        let answers: usize = std::thread::scope(|scope| {
            let ask = || on_bus(Role::Finder).all_log_pages(true).is_ok();
            let crowd: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
            port.link(&subsystems[2]);
            crowd.into_iter().map(|client| usize::from(client.join().unwrap())).sum()
        });
        assert_eq!(answers, 100);
        stas.wait_for_storage(&nqns(&subsystems[..3]), SOON);
        guest.assert_untouched(&before);
        let told: Vec<_> = stas.logs().lines().skip(so_far).map(str::to_owned).collect();
        assert!(told.iter().filter(|line| line.contains("client")).count() <= 2 && told.len() <= 10, "{told:#?}");
        stas.assert_running();
    });
}

/// A local user says all that can be said, on the bus, on the sockets and by netlink: that costs nobody anything.
#[test]
fn a_hostile_user() {
    scenario(|guest| {
        let (port, subsystems, mut stas) = attach_first(guest);
        let before = guest.controllers();
        let so_far = stas.logs().lines().count();
        let memory = || [stas.finder(), stas.connector()].map(|daemon| resident(daemon.pid()));
        let resident_before = memory();

        let (answered, refused) = guest.as_nobody(|| {
            let mut sum = (0, 0);
            for role in [Role::Finder, Role::Connector] {
                for mut client in [on_bus(role), private(role).unwrap()] {
                    let (answered, refused) = call_everything(&mut client, role);
                    sum = (sum.0 + answered, sum.1 + refused);
                    assert!(client.set_tron(true).is_err(), "a user may trace");
                }
                lie(guest, role);
            }
            SOCKETS.iter().for_each(|socket| babble(socket));
            sum
        });
        guest.tell(&format!("{answered} calls answered, {refused} refused"));
        assert!(answered > 0 && refused > answered);
        for device in before.iter().map(|controller| controller.name.as_str()) {
            let path = format!("/devices/virtual/nvme-fabrics/ctl/{device}");
            let lines = [&format!("remove@{path}"), "ACTION=remove", &format!("DEVPATH={path}"), "SUBSYSTEM=nvme"];
            for daemon in [stas.finder(), stas.connector()] {
                let sent = guest.as_nobody(|| guest.forge_uevent(daemon.pid(), &lines));
                // The kernel lets no user without CAP_NET_ADMIN write to anybody there.
                assert_eq!(sent, [Err(Errno::EPERM); 2]);
            }
        }

        port.link(&subsystems[1]);
        stas.wait_for_storage(&nqns(&subsystems[..2]), SOON);
        guest.assert_untouched(&before);
        for (before, after) in resident_before.into_iter().zip(memory()) {
            assert!(after < before + 4096, "{before} KiB before, {after} KiB after");
        }
        // What the page lists, and that it is connected.
        let told: Vec<_> = stas.logs().lines().skip(so_far).map(str::to_owned).collect();
        assert!(told.len() <= 3, "{told:#?}");
        stas.assert_running();
    });
}

/// Every method there is, and some that are not, with arguments of every kind. How many calls were answered and refused.
fn call_everything(client: &mut Client, role: Role) -> (usize, usize) {
    const METHODS: [(&str, &[&str]); 5] = [
        ("", &["list_controllers", "get_log_pages", "get_all_log_pages", "", "no_such_method"]),
        (".debug", &["process_info", "controller_info"]),
        ("org.freedesktop.DBus.Introspectable", &["Introspect"]),
        ("org.freedesktop.DBus.Peer", &["Ping", "GetMachineId"]),
        ("org.freedesktop.DBus.Properties", &["Get", "GetAll", "Set"]),
    ];
    let (mut answered, mut refused) = (0, 0);
    for (interface, methods) in METHODS {
        let interface =
            if interface.starts_with("org") { interface.to_owned() } else { format!("{}{interface}", role.name()) };
        for method in methods.iter().filter(|method| !method.is_empty()) {
            for arguments in 0..GARBAGE {
                match client.call(&interface, method, |body| garbage(arguments, body)) {
                    Ok(_) => answered += 1,
                    Err(Failure::Refused(_)) => refused += 1,
                    Err(Failure::Unreachable(why)) => panic!("{interface}.{method}, arguments {arguments}: {why}"),
                }
            }
        }
    }
    (answered, refused)
}

const GARBAGE: usize = 9;

fn garbage(
    which: usize,
    body: &mut rustbus::message_builder::MarshalledMessageBody,
) -> Result<(), rustbus::wire::errors::MarshalError> {
    match which {
        0 => Ok(()),
        1 => body.push_param(true),
        2 => body.push_param(""),
        3 => body.push_param("x".repeat(2000)),
        4 => body.push_params(&["tcp", "999.999.999.999", "-1", ",hostnqn=x\n", "\u{1b}[2J", "%s%n", "../../.."]),
        5 => body.push_params(&[u64::MAX; 7]),
        6 => body.push_param(vec![vec![0_u8; 30]; 30]),
        7 => {
            body.push_param2("org.nvmexpress.stac.debug", "tron")?;
            body.push_variant(vec![1_u32])
        }
        _ => {
            body.push_param2("org.nvmexpress.staf.debug", "tron")?;
            body.push_variant(true)
        }
    }
}

/// Signals as from the bus, the finder and Avahi, sent to a daemon directly.
fn lie(guest: &Guest, role: Role) {
    let claims = [
        ("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged"),
        ("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameLost"),
        ("/org/nvmexpress/staf", "org.nvmexpress.staf", "log_pages_changed"),
        ("/org/nvmexpress/staf", "org.nvmexpress.staf", "dc_removed"),
        ("/Client0/ServiceBrowser0", "org.freedesktop.Avahi.ServiceBrowser", "ItemRemove"),
    ];
    for (path, interface, member) in claims {
        let to = format!("--dest={}", role.name());
        let strings = ["org.nvmexpress.staf", ":1.0", ""].map(|text| format!("string:{text}"));
        let what = ["--system", "--type=signal", &to, path, &format!("{interface}.{member}")];
        // If the bus does not let it pass, all the better.
        guest.run("dbus-send", &[&what[..], &strings.each_ref().map(String::as_str)].concat());
    }
}

/// What is no D-Bus message, at each stage of a conversation.
fn babble(socket: &str) {
    let greetings: [&[u8]; 3] = [b"", b"\0AUTH EXTERNAL 3635353334\r\n", b"\0AUTH EXTERNAL 3635353334\r\nBEGIN\r\n"];
    let words: [&[u8]; 5] =
        [&[0; 5000], &[0xff; 5000], b"\r\n\r\n\r\n", b"l\x01\0\x01\xff\xff\xff\x7f\x01\0\0\0\xff\xff\xff\x7f", b"AUTH"];
    for (greeting, words) in greetings.iter().flat_map(|greeting| words.map(|words| (greeting, words))) {
        let mut stream = UnixStream::connect(socket).unwrap();
        // It may have been closed already.
        let _ = stream.write_all(&[greeting, words].concat());
    }
    // As root only: this one is not.
    let mut impostor = UnixStream::connect(socket).unwrap();
    impostor.write_all(b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n").unwrap();
}

fn on_bus(role: Role) -> Client {
    Client::open(role, &Places { bus: Address::system(), sockets: vec![], patience: 3 * SOON })
        .expect("it is on the bus")
}

fn private(role: Role) -> Result<Client, Failure> {
    let nowhere = Err("not asked".to_owned());
    let socket = format!("/run/{}/control", role.daemon());
    Client::open(role, &Places { bus: nowhere, sockets: vec![socket.into()], patience: SOON })
}

/// Memory in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
