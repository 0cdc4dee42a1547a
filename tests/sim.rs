//! Tests of the discovery controller simulator by a small host of their own, over loopback. That a real kernel gets along
//! with it is for the scenarios to show; these say quickly which side is wrong when they do not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

#[path = "scenarios/sim/mod.rs"]
mod sim;

use sim::log::{RECORD, SUBTYPE_REFERRAL};
use sim::*;

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);
const HOSTNQN: &str = "nqn.2014-08.org.nvmexpress:uuid:2f3ab02c-0000-4000-8000-000000000001";
const HOSTID: [u8; 16] = [7; 16];

const IN_CAPSULE: u8 = 0x01;
const BY_TRANSPORT: u8 = 0x5a;
const FABRICS: u8 = 0x7f;

fn sqe(opcode: u8, cid: u16) -> [u8; 64] {
    let mut sqe = [0; 64];
    sqe[0] = opcode;
    sqe[2..4].copy_from_slice(&cid.to_le_bytes());
    sqe
}

fn set_cdw(sqe: &mut [u8; 64], index: usize, value: u32) {
    sqe[index * 4..][..4].copy_from_slice(&value.to_le_bytes());
}

fn set_sgl(sqe: &mut [u8; 64], length: usize, descriptor: u8) {
    set_cdw(sqe, 8, length as u32);
    sqe[39] = descriptor;
}

#[derive(Debug)]
struct Done {
    cid: u16,
    status: u16,
    result: u64,
    data: Vec<u8>,
}

/// A host's side of an admin queue.
struct Host {
    stream: TcpStream,
    /// Data received for a command not yet completed.
    data: Vec<u8>,
}

impl Host {
    /// A TCP connection and nothing more.
    fn dial(to: &Handle) -> Self {
        let stream = TcpStream::connect(to.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, data: Vec::new() }
    }

    /// ICReq and ICResp.
    fn initialized(to: &Handle) -> Self {
        let mut host = Self::dial(to);
        host.initialize();
        let response = host.pdu().expect("no ICResp");
        assert_eq!(response[..8], [1, 0, 128, 0, 128, 0, 0, 0]);
        assert_eq!(response[8..12], [0; 4], "PFV, CPDA, digests");
        assert!(u32::from_le_bytes(response[12..16].try_into().unwrap()) >= 4096);
        host
    }

    /// Connected and enabled.
    fn connected(to: &Handle) -> Self {
        let mut host = Self::initialized(to);
        let done = host.connect(DISCOVERY_NQN, 0);
        assert_eq!(done.status, 0);
        assert_ne!(done.result, 0, "CNTLID");
        host.set_cc(0x0046_0001);
        assert_eq!(host.property(0x1c) & 1, 1, "CSTS.RDY");
        host
    }

    /// Connected, events enabled, and one Asynchronous Event Request, of cid 31, waiting.
    fn listening(to: &Handle) -> Self {
        let mut host = Self::connected(to);
        let mut features = sqe(0x09, 1);
        set_cdw(&mut features, 10, 0x0b);
        set_cdw(&mut features, 11, 1 << 31);
        assert_eq!(host.run(features, &[]).status, 0);
        host.await_event();
        host
    }

    fn initialize(&mut self) {
        let mut request = vec![0, 0, 128, 0, 128, 0, 0, 0];
        request.resize(128, 0);
        self.stream.write_all(&request).unwrap();
    }

    fn send(&mut self, sqe: [u8; 64], data: &[u8]) {
        let pdo = if data.is_empty() { 0 } else { 72 };
        let mut pdu = vec![4, 0, 72, pdo];
        pdu.extend((72 + data.len() as u32).to_le_bytes());
        pdu.extend(sqe);
        pdu.extend(data);
        self.stream.write_all(&pdu).unwrap();
    }

    fn pdu(&mut self) -> std::io::Result<Vec<u8>> {
        let mut pdu = vec![0; 8];
        self.stream.read_exact(&mut pdu)?;
        let plen = u32::from_le_bytes(pdu[4..8].try_into().unwrap());
        pdu.resize(plen as usize, 0);
        self.stream.read_exact(&mut pdu[8..])?;
        Ok(pdu)
    }

    /// The next completion, its data gathered.
    fn done(&mut self) -> std::io::Result<Done> {
        loop {
            let pdu = self.pdu()?;
            let cid = |at| u16::from_le_bytes([pdu[at], pdu[at + 1]]);
            let (completed, status, result) = match pdu[0] {
                5 => (cid(20), cid(22) >> 1, u64::from_le_bytes(pdu[8..16].try_into().unwrap())),
                7 => {
                    let offset = u32::from_le_bytes(pdu[12..16].try_into().unwrap());
                    assert_eq!(offset as usize, self.data.len(), "data in order");
                    self.data.extend(&pdu[24..]);
                    if pdu[1] & 8 == 0 {
                        continue;
                    }
                    assert_ne!(pdu[1] & 4, 0, "SUCCESS without LAST");
                    (cid(8), 0, 0)
                }
                other => panic!("unexpected PDU type {other}"),
            };
            return Ok(Done { cid: completed, status, result, data: std::mem::take(&mut self.data) });
        }
    }

    fn run(&mut self, sqe: [u8; 64], data: &[u8]) -> Done {
        self.send(sqe, data);
        self.done().unwrap()
    }

    fn connect(&mut self, subsysnqn: &str, qid: u16) -> Done {
        let mut connect = sqe(FABRICS, 1);
        connect[4] = 1;
        set_sgl(&mut connect, 1024, IN_CAPSULE);
        connect[42..44].copy_from_slice(&qid.to_le_bytes());
        let mut data = [0; 1024];
        data[..16].copy_from_slice(&HOSTID);
        data[256..][..subsysnqn.len()].copy_from_slice(subsysnqn.as_bytes());
        data[512..][..HOSTNQN.len()].copy_from_slice(HOSTNQN.as_bytes());
        self.run(connect, &data)
    }

    fn property(&mut self, offset: u32) -> u64 {
        let mut get = sqe(FABRICS, 2);
        get[4] = 4;
        set_cdw(&mut get, 11, offset);
        let done = self.run(get, &[]);
        assert_eq!(done.status, 0);
        done.result
    }

    fn set_cc(&mut self, value: u32) {
        let mut set = sqe(FABRICS, 3);
        set_cdw(&mut set, 11, 0x14);
        set_cdw(&mut set, 12, value);
        assert_eq!(self.run(set, &[]).status, 0);
    }

    fn identify(&mut self) -> Done {
        let mut identify = sqe(0x06, 4);
        set_cdw(&mut identify, 10, 1);
        set_sgl(&mut identify, 4096, BY_TRANSPORT);
        self.run(identify, &[])
    }

    fn log_command(lid: u8, lsp: u8, rae: bool, offset: u64, length: usize) -> [u8; 64] {
        let mut get = sqe(0x02, 5);
        let numd = length as u32 / 4 - 1;
        let low = u32::from(lid) | u32::from(lsp) << 8 | u32::from(rae) << 15;
        set_cdw(&mut get, 10, low | numd << 16);
        set_cdw(&mut get, 11, numd >> 16);
        set_cdw(&mut get, 12, offset as u32);
        set_cdw(&mut get, 13, (offset >> 32) as u32);
        set_sgl(&mut get, length, BY_TRANSPORT);
        get
    }

    fn log(&mut self, lsp: u8, rae: bool, offset: u64, length: usize) -> Done {
        self.run(Self::log_command(0x70, lsp, rae, offset, length), &[])
    }

    /// GENCTR and NUMREC.
    fn log_header(&mut self, lsp: u8, rae: bool) -> (u64, u64) {
        let done = self.log(lsp, rae, 0, RECORD);
        assert_eq!(done.status, 0);
        let word = |at: usize| u64::from_le_bytes(done.data[at..at + 8].try_into().unwrap());
        (word(0), word(8))
    }

    fn await_event(&mut self) {
        self.send(sqe(0x0c, 31), &[]);
    }

    fn event(&mut self) {
        let done = self.done().unwrap();
        assert_eq!((done.cid, done.status), (31, 0));
        assert_eq!(done.result, u64::from(DISCOVERY_LOG_CHANGED));
    }

    /// A keep alive that is answered next: no event came before it.
    fn no_event(&mut self) {
        let done = self.run(sqe(0x18, 9), &[]);
        assert_eq!((done.cid, done.status), (9, 0), "expected no event");
    }

    fn is_cut(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

fn simulator() -> Simulator {
    Simulator::start("127.0.0.1:0").unwrap()
}

fn io(name: &str) -> Entry {
    Entry::io(&format!("nqn.2024-01.example:{name}"), "192.0.2.1", "4420")
}

#[test]
fn properties_and_identity_are_a_discovery_controllers() {
    let sim = simulator();
    sim.behave(|b| {
        b.identity.dctype = DcType::Cdc;
        b.identity.unique_nqn = Some("nqn.2024-01.example:cdc".into());
    });
    let mut host = Host::initialized(&sim);
    let cntlid = host.connect("nqn.2024-01.example:cdc", 0).result as u16;
    assert_eq!(host.property(0x00) & 1 << 37, 1 << 37, "NVM command set");
    assert_eq!(host.property(0x08), 0x0002_0000);
    assert_eq!(host.property(0x1c), 0);
    host.set_cc(0x0046_0001);
    assert_eq!(host.property(0x1c), 1);
    host.set_cc(0x0046_4001);
    assert_eq!(host.property(0x1c) & 0b1100, 0b1000, "shutdown complete");

    let id = host.identify().data;
    assert_eq!(id.len(), 4096);
    assert_eq!(id[78..80], cntlid.to_le_bytes());
    assert_eq!(id[92..96], (1_u32 << 31).to_le_bytes(), "OAES");
    assert_eq!((id[111], id[1806]), (2, 2), "CNTRLTYPE, DCTYPE");
    assert!(id[768..].starts_with(b"nqn.2024-01.example:cdc\0"));
}

#[test]
fn unwanted_connects_are_refused() {
    let sim = simulator();
    let mut host = Host::initialized(&sim);
    let status = host.run(sqe(0x18, 1), &[]).status;
    assert_eq!(status, 0x400c, "a command before Connect");
    assert_eq!(host.connect("nqn.2024-01.example:other", 0).status, 0x4182);
    assert_eq!(host.connect(DISCOVERY_NQN, 1).status, 0x4182, "I/O queue");
    assert_eq!(host.connect(DISCOVERY_NQN, 0).status, 0);
}

#[test]
fn the_log_page_is_read_whole_and_in_pieces() {
    let sim = simulator();
    let many = (0..300).map(|n| io(&format!("n{n}")));
    sim.set_entries(many.chain([Entry::referral("2001:db8::1", "8009")]));
    for success_flag in [false, true] {
        sim.behave(|b| b.success_flag = success_flag);
        let mut host = Host::connected(&sim);
        assert_eq!(host.log_header(0, true), (1, 301));
        let page = host.log(0, false, 0, 302 * RECORD).data;
        assert_eq!(page.len(), 302 * RECORD);
        let piece = host.log(0, false, 301 * RECORD as u64, 2 * RECORD).data;
        assert_eq!(piece[..RECORD], page[301 * RECORD..]);
        assert_eq!(piece[..3], [3, 2, SUBTYPE_REFERRAL], "tcp, ipv6, referral");
        assert!(piece[512..].starts_with(b"2001:db8::1\0"));
        assert_eq!(piece[RECORD..], [0; RECORD], "beyond the end");
    }
}

#[test]
fn port_local_entries_are_returned_where_supported_and_asked_for() {
    let sim = simulator();
    sim.set_entries([io("far"), io("near").port_local()]);
    let mut host = Host::connected(&sim);
    assert_eq!(host.log_header(0b10, false), (1, 2));
    sim.behave(|b| b.discovery_log_bits = PLEOS);
    assert_eq!(host.log_header(0b10, false), (1, 1));
    assert_eq!(host.log_header(0, false), (1, 2));
    let supported = host.run(Host::log_command(0, 0, true, 0, 1024), &[]).data;
    assert_eq!(supported[0x70 * 4..][..4], [1, 0, 2, 0]);
    let other = host.run(Host::log_command(2, 0, true, 0, 512), &[]);
    assert_eq!(other.status, 0x4002);
}

#[test]
fn an_event_is_masked_until_the_log_page_is_read_without_rae() {
    let sim = simulator();
    let mut host = Host::listening(&sim);
    host.no_event();
    sim.set_entries([io("a")]);
    host.event();
    host.await_event();
    sim.set_entries([]);
    host.no_event();
    host.log_header(0, true);
    sim.notify();
    host.no_event();
    assert_eq!(host.log_header(0, false), (2, 0));
    sim.notify();
    host.event();
}

#[test]
fn an_event_nobody_waits_for_is_kept_unless_the_log_page_is_read() {
    let sim = simulator();
    let mut host = Host::listening(&sim);
    sim.notify();
    host.event();
    host.log_header(0, false);
    sim.notify();
    host.await_event();
    host.event();
    host.log_header(0, false);
    sim.notify();
    host.log_header(0, false);
    host.await_event();
    host.no_event();
    assert_eq!(sim.send_event(0x1234), 1, "an event out of turn");
    assert_eq!(host.done().unwrap().result, 0x1234);
}

#[test]
fn events_are_for_hosts_that_enabled_them() {
    let sim = simulator();
    let mut host = Host::connected(&sim);
    host.await_event();
    sim.notify();
    host.no_event();
}

#[test]
fn dim_payloads_come_in_capsules_and_by_r2t() {
    let sim = simulator();
    let mut host = Host::connected(&sim);
    let payload: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
    let mut dim = sqe(0x21, 6);
    set_sgl(&mut dim, 2048, IN_CAPSULE);
    assert_eq!(host.run(dim, &payload[..2048]).status, 0x4001);
    sim.behave(|b| b.identity.dctype = DcType::Ddc);
    assert_eq!(host.run(dim, &payload[..2048]).status, 0);

    set_cdw(&mut dim, 10, 1);
    set_sgl(&mut dim, payload.len(), BY_TRANSPORT);
    host.send(dim, &[]);
    let r2t = host.pdu().unwrap();
    assert_eq!((r2t[0], r2t.len()), (9, 24));
    assert_eq!(r2t[16..20], (payload.len() as u32).to_le_bytes());
    for (index, chunk) in payload.chunks(4096).enumerate() {
        let mut pdu = vec![6, 0, 24, 24];
        pdu.extend((24 + chunk.len() as u32).to_le_bytes());
        pdu.extend(&r2t[8..12]); // CCCID and TTAG
        pdu.extend((index as u32 * 4096).to_le_bytes());
        pdu.extend((chunk.len() as u32).to_le_bytes());
        pdu.extend([0; 4]);
        pdu.extend(chunk);
        host.stream.write_all(&pdu).unwrap();
    }
    let done = host.done().unwrap();
    assert_eq!((done.cid, done.status), (6, 0));

    let seen = sim.recording();
    let dims: Vec<_> = seen.of(Kind::DiscoveryInformationManagement).collect();
    assert_eq!(dims.len(), 3);
    assert_eq!(dims[0].dim_task(), Some(0));
    assert_eq!(dims[0].data, payload[..2048]);
    assert_eq!(dims[2].dim_task(), Some(1));
    assert_eq!(dims[2].data, payload);
    let host = dims[2].host.as_ref().unwrap();
    assert_eq!((host.hostnqn.as_str(), host.hostid), (HOSTNQN, HOSTID));
}

#[test]
fn log_pages_lie_on_demand() {
    let sim = simulator();
    sim.set_entries([io("a").patch(512, b"203.0.113.9\0"), io("b")]);
    let mut host = Host::connected(&sim);
    assert!(host.log(0, true, 1024, 1024).data[512..].starts_with(b"203.0.113.9\0"));

    sim.behave(|b| b.numrec = Some(u64::MAX));
    assert_eq!(host.log_header(0, true), (1, u64::MAX));
    sim.behave(|b| {
        b.numrec = None;
        b.page_length = Some(RECORD + 100);
        b.beyond = Beyond::Garbage;
    });
    let page = host.log(0, true, 0, 3 * RECORD).data;
    assert!(page[RECORD + 100..].iter().all(|byte| *byte != 0));
    sim.behave(|b| b.beyond = Beyond::Nothing);
    assert_eq!(host.log(0, true, 0, 3 * RECORD).data.len(), RECORD + 100);
    assert_eq!(host.log(0, true, 3 * RECORD as u64, RECORD).data, []);
    sim.behave(|b| {
        b.beyond = Beyond::Zeros;
        b.raw_page = Some(b"not a log page".to_vec());
    });
    assert!(host.log(0, true, 0, 64).data.starts_with(b"not a log page\0"));
}

#[test]
fn the_generation_counter_can_be_restless() {
    let sim = simulator();
    let mut host = Host::connected(&sim);
    sim.behave(|b| b.restless_generation = Times::Next(2));
    let seen: Vec<u64> = (0..4).map(|_| host.log_header(0, true).0).collect();
    assert_eq!(seen, [0, 1, 2, 2]);
}

#[test]
fn commands_fail_once_or_always_and_heal() {
    let sim = simulator();
    let mut host = Host::connected(&sim);
    sim.behave(|b| {
        b.fail(Kind::Identify, Times::ONCE, Status::INTERNAL_ERROR);
        b.fail(Kind::Identify, Times::Always, Status::INTERNAL_ERROR.dnr());
    });
    let status: Vec<u16> = (0..3).map(|_| host.identify().status).collect();
    assert_eq!(status, [0x6, 0x4006, 0x4006]);
    sim.behave(|b| b.heal(Kind::Identify));
    assert_eq!(host.identify().status, 0);
    sim.behave(|b| b.identity.mdts = 1);
    assert_eq!(host.log(0, true, 0, 8192).status, 0);
    assert_eq!(host.log(0, true, 0, 8196).status, 0x4002);
}

#[test]
fn a_delayed_command_is_overtaken() {
    let sim = simulator();
    let mut host = Host::connected(&sim);
    let delay = Duration::from_secs(1);
    sim.behave(|b| b.delay(Kind::DiscoveryLogPage, delay));
    let start = Instant::now();
    host.send(Host::log_command(0x70, 0, false, 0, 1024), &[]);
    host.no_event();
    assert_eq!(host.done().unwrap().cid, 5);
    assert!(start.elapsed() >= delay);
}

#[test]
fn an_ignored_command_is_never_answered() {
    let sim = simulator();
    let mut host = Host::connected(&sim);
    sim.behave(|b| b.ignore(Kind::Identify, Times::ONCE));
    let mut identify = sqe(0x06, 8);
    set_cdw(&mut identify, 10, 1);
    set_sgl(&mut identify, 4096, BY_TRANSPORT);
    host.send(identify, &[]);
    assert_eq!(host.identify().cid, 4, "the second one is answered");
}

#[test]
fn connections_are_cut_on_demand() {
    let sim = simulator();
    let mut host = Host::connected(&sim);
    sim.drop_connections();
    assert!(host.is_cut());
    sim.behave(|b| b.disconnect_on(Kind::Identify, Times::ONCE));
    let mut host = Host::connected(&sim);
    host.send(sqe(0x06, 8), &[]);
    assert!(host.is_cut());
    sim.behave(|b| b.accept = Accept::Close);
    assert!(Host::dial(&sim).is_cut());
    assert!(sim.wait(PATIENCE, |seen| seen.open == 0));
    assert_eq!(sim.recording().accepted, 3);
}

#[test]
fn a_connection_can_be_accepted_and_not_served() {
    let sim = simulator();
    sim.behave(|b| b.accept = Accept::Garbage(b"SSH-2.0-Open\r\n".to_vec()));
    let mut host = Host::dial(&sim);
    let mut greeting = [0; 14];
    host.stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"SSH-2.0-Open\r\n");
    sim.behave(|b| b.accept = Accept::Silent);
    let mut host = Host::dial(&sim);
    host.initialize();
    // A response to the ICReq would come before the one to this.
    let done = host.run(sqe(0x18, 1), &[]);
    assert_eq!(done.status, 0x400c);
}

#[test]
fn several_simulators_over_both_address_families() {
    let v4 = simulator();
    let v6 = Simulator::start("[::1]:0").unwrap();
    v6.set_entries([Entry::this_controller(DISCOVERY_NQN, "::1", "8009")]);
    assert_eq!(Host::connected(&v4).log_header(0, true), (0, 0));
    assert_eq!(Host::connected(&v6).log_header(0, true), (1, 1));
    assert_eq!(v6.traddr(), "::1");
}

#[test]
fn stopping_ends_hosts_delays_and_the_port_and_listening_brings_it_back() {
    let mut sim = simulator();
    sim.set_entries([io("a")]);
    let mut host = Host::connected(&sim);
    sim.behave(|b| b.delay(Kind::Identify, Duration::from_secs(3600)));
    host.send(sqe(0x06, 8), &[]);
    assert!(sim.wait(PATIENCE, |seen| seen.count(Kind::Identify) == 1));
    sim.stop_listening();
    assert!(host.is_cut());
    assert!(TcpStream::connect(sim.address()).is_err());
    sim.listen().unwrap();
    assert_eq!(Host::connected(&sim).log_header(0, true), (1, 1));
}

#[test]
fn a_host_that_does_not_read_does_not_hold_up_the_end() {
    let sim = simulator();
    let mut host = Host::connected(&sim);
    for _ in 0..64 {
        host.send(Host::log_command(0x70, 0, false, 0, 1 << 20), &[]);
    }
    assert!(sim.wait(PATIENCE, |seen| seen.count(Kind::DiscoveryLogPage) == 64));
    sim.notify();
    drop(sim);
}

#[test]
fn nonsense_ends_the_connection_and_nothing_else() {
    let sim = simulator();
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[4, 0, 72, 0, 8, 0, 0, 0],
        &[4, 0, 8, 0, 8, 0, 0, 0],
        &[4, 0, 8, 0, 0xff, 0xff, 0xff, 0xff],
        &[6, 0, 8, 0, 8, 0, 0, 0],
        &[0x77, 0, 8, 0, 8, 0, 0, 0],
    ] {
        let mut host = Host::dial(&sim);
        host.stream.write_all(nonsense).unwrap();
        assert!(host.is_cut(), "{nonsense:x?}");
    }
    Host::connected(&sim);
}

#[test]
fn waiting_sees_what_comes_and_gives_up_on_what_does_not() {
    let sim = simulator();
    let handle = sim.handle();
    let host = thread::spawn(move || Host::connected(&handle));
    assert!(sim.wait(PATIENCE, |seen| seen.count(Kind::PropertySet) == 1));
    assert!(!sim.wait(Duration::ZERO, |seen| seen.open > 1));
    host.join().unwrap();
    assert!(sim.wait(PATIENCE, |seen| seen.open == 0));
    sim.clear_recording();
    assert_eq!(sim.recording().commands.len(), 0);
}
