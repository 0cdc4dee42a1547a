//! Connect options, for a daemon and for one controller, in both syntaxes: what arrives at the kernel and on the wire.

use crate::guest::{Controller, Guest};
use crate::sim::{Kind, Simulator};
use crate::stas::{Form, Part, SOON, STACD_CONF, STAFD_CONF, Stas, nqn};
use crate::vm::scenario;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, recv, socket};
use nix::sys::socket::{MsgFlags, setsockopt, sockopt};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

const PORT: u16 = 4420;

const STAFD_TOML: &str = r#"
kato = 17
queue-size = 64
reconnect-delay = 3
ctrl-loss-tmo = 33
hdr-digest = true

[[controller]]
transport = "tcp"
traddr = "127.0.0.1"
trsvcid = 4420
ctrl-loss-tmo = 45

[[controller]]
transport = "tcp"
traddr = "127.0.0.1"
hdr-digest = false
disable-sqflow = true
kato = 9
"#;

const STAFD_INI: &str = "\
[Global]
kato = 17
queue-size = 64
reconnect-delay = 3
ctrl-loss-tmo = 33
hdr-digest = true

[Controllers]
controller = transport=tcp;traddr=127.0.0.1;trsvcid=4420;ctrl-loss-tmo=45
controller = transport=tcp;traddr=127.0.0.1;hdr-digest=false;disable-sqflow=true;kato=9
";

/// The same in both syntaxes.
const STACD_GLOBAL: &str = "\
hdr-digest = true
data-digest = true
kato = 11
queue-size = 48
nr-io-queues = 2
nr-write-queues = 1
nr-poll-queues = 1
reconnect-delay = 5
ctrl-loss-tmo = 500
fast-io-fail-tmo = 7
disable-sqflow = true
tos = 40
";

const STACD_TOML: &str = r#"
[[controller]]
transport = "tcp"
traddr = "127.0.0.1"
trsvcid = 4420
nqn = "nqn.2026-01.example:b"
data-digest = false
kato = 12
queue-size = 32
nr-poll-queues = 0
reconnect-delay = 6
ctrl-loss-tmo = -1
fast-io-fail-tmo = -1
disable-sqflow = false
tos = 72
"#;

const STACD_INI: &str = "
[Controllers]
controller = transport=tcp;traddr=127.0.0.1;trsvcid=4420;nqn=nqn.2026-01.example:b;data-digest=false;kato=12;\
queue-size=32;nr-poll-queues=0;reconnect-delay=6;ctrl-loss-tmo=-1;fast-io-fail-tmo=-1;disable-sqflow=false;tos=72
";

#[test]
fn every_option_arrives() {
    scenario(|guest| {
        let [a, b] = ["a", "b"].map(nqn);
        let port = guest.target().tcp_port("127.0.0.1", PORT);
        [&a, &b].iter().for_each(|nqn| port.link(&guest.target().subsystem(nqn)));
        let simulator = Simulator::start("127.0.0.1:8009").unwrap();
        let toml = (STAFD_TOML, format!("{STACD_GLOBAL}{STACD_TOML}"));
        let ini = (STAFD_INI, format!("[Global]\n{STACD_GLOBAL}{STACD_INI}"));
        for (round, (stafd, stacd)) in [toml, ini].into_iter().enumerate() {
            guest.write(STAFD_CONF, stafd);
            guest.write(STACD_CONF, &stacd);
            let wire = Wire::tap();
            let mut stas = Stas::start(guest, Form::OneProcess);
            let [a, b] = &stas_storage(&stas, guest, [&a, &b]);
            let controllers = guest.controllers();
            let is_it = |one: &&Controller| one.is_discovery() && one.address_field("trsvcid") == Some("4420");
            let discovery = controllers.iter().find(is_it).unwrap();

            assert!(simulator.wait(SOON, |seen| seen.count(Kind::Connect) > round));
            let names = ["kato", "sqsize", "reconnect_delay", "ctrl_loss_tmo"];
            assert_eq!(attributes(discovery, names), ["17", "63", "3", "45"]);
            assert_eq!(attributes(a, names), ["11", "47", "5", "500"]);
            assert_eq!(attributes(b, names), ["12", "31", "6", "off"]);
            // Those of the admin queue, reads, writes and polling; the guest has one processor.
            let names = ["queue_count", "fast_io_fail_tmo"];
            assert_eq!(attributes(a, names), ["4", "7"]);
            assert_eq!(attributes(b, names), ["3", "off"]);

            // Digests: bit 0 header, 1 data. The program's own probes ask for none.
            let expected = [(0, 0), (0, 1), (40, 3), (72, 1)].map(|(tos, digests)| Traits { tos, digests });
            assert_eq!(wire.seen(), expected.into());
            // CATTR bit 2 of Connect, without the submission queue's flow control; dwords 11 and 12.
            let connect = simulator.recording().of(Kind::Connect).next_back().unwrap().sqe;
            assert_eq!((connect.cdw(11) >> 16 & 4, connect.cdw(12)), (4, 9000));
            stas.end(Part::Both, crate::guest::Daemon::terminate);
            controllers.iter().for_each(|controller| guest.disconnect(&controller.name));
            guest.run("rm", &["-r", "/run/stas"]).ok();
        }
    });
}

fn stas_storage(stas: &Stas<'_>, guest: &Guest, nqns: [&str; 2]) -> [Controller; 2] {
    stas.wait_for_storage(&nqns, SOON);
    guest.wait_for_storage(&nqns, SOON).try_into().unwrap()
}

fn attributes<const N: usize>(controller: &Controller, names: [&str; N]) -> Vec<String> {
    let read = |name| fs::read_to_string(format!("/sys/class/nvme/{}/{name}", controller.name)).unwrap();
    names.map(|name| read(name).trim().to_owned()).into()
}

/// What the host does on a connection of its own that sysfs does not show.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Traits {
    tos: u8,
    digests: u8,
}

/// Sees all TCP packets.
struct Wire {
    socket: OwnedFd,
}

impl Wire {
    fn tap() -> Wire {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Tcp).unwrap();
        setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20)).unwrap();
        Wire { socket }
    }

    /// Of each connection the first PDU, Initialize Connection Request (NVMe/TCP transport specification, "ICReq"). Commands
    /// cannot be looked at here: the kernel sends them from memory that it has used again by now.
    fn seen(&self) -> BTreeSet<Traits> {
        let mut seen = BTreeSet::new();
        let mut packet = [0; 65536];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => return seen,
                Err(errno) => panic!("the wire cannot be read: {errno}"),
            };
            let ip = &packet[..length];
            let tcp = &ip[usize::from(ip[0] & 15) * 4..];
            let data = &tcp[usize::from(tcp[12] >> 4) * 4..];
            let port = u16::from_be_bytes([tcp[2], tcp[3]]);
            if port == PORT && data.len() == 128 && data[..3] == [0, 0, 128] {
                seen.insert(Traits { tos: ip[1], digests: data[11] });
            }
        }
    }
}
