//! The discovery controller simulator against a real kernel: what the other scenarios make of it really is so. Nothing here
//! runs the program under test.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::guest::{Guest, HOSTID, HOSTNQN};
use crate::sim::{
    Accept, Beyond, Command, DISCOVERY_NQN, DcType, Entry, Handle, Kind, PLEOS, Simulator, Status, Times, log::RECORD,
};
use crate::vm::{Kernel, Scenario, scenario};

const SOON: Duration = Duration::from_secs(10);
const CDC_NQN: &str = "nqn.2026-01.example:cdc";

const GET_LOG_PAGE: u8 = 0x02;
const DIM: u8 = 0x21;

#[test]
fn plays_a_central_discovery_controller() {
    scenario(central_discovery_controller);
}

#[test]
fn plays_a_central_discovery_controller_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(central_discovery_controller);
}

fn central_discovery_controller(guest: &Guest) {
    let cdc = Simulator::start("127.0.0.1:8009").unwrap();
    cdc.behave(|b| {
        b.identity.dctype = DcType::Cdc;
        b.identity.unique_nqn = Some(CDC_NQN.into());
        b.discovery_log_bits = PLEOS;
    });
    let [far, near] =
        ["far", "near"].map(|name| Entry::io(&format!("nqn.2026-01.example:{name}"), "192.0.2.1", "4420"));
    cdc.set_entries([far, near.port_local()]);

    let device = guest.connect(&(options(&cdc, DISCOVERY_NQN) + ",keep_alive_tmo=2")).unwrap();
    let controller = &guest.controllers()[0];
    assert!(controller.is_live() && controller.is_discovery());
    assert_eq!(controller.subsysnqn, CDC_NQN);
    assert_eq!(attribute(&device, "dctype"), "cdc");
    let host = connect_of(&cdc);
    assert_eq!((host.subsysnqn, host.hostnqn), (DISCOVERY_NQN.into(), HOSTNQN.into()));
    let hostid: String = host.hostid.map(|byte| format!("{byte:02x}")).concat();
    assert_eq!(hostid, HOSTID.replace('-', ""));

    let admin = AdminQueue::open(&device);
    let page = admin.log_page(0x70, 0, 0, 4 * RECORD).unwrap();
    assert_eq!((page[0], page[8]), (1, 2), "GENCTR, NUMREC");
    assert!(page[2 * RECORD + 256..].starts_with(b"nqn.2026-01.example:near\0"));
    assert!(page[3 * RECORD..].iter().all(|byte| *byte == 0));
    assert_eq!(admin.log_page(0x70, 0b10, 0, RECORD).unwrap()[8], 1, "PLEO");
    let supported = admin.log_page(0, 0, 0x70 * 4, 4).unwrap();
    assert_eq!(supported, [1, 0, PLEOS as u8, 0]);
    assert_eq!(admin.log_page(2, 0, 0, 512), Err(0x4002));
    let read = cdc.recording().log_reads().next_back().unwrap();
    assert_eq!((read.lsp, read.rae, read.length), (0b10, false, 1024));

    cdc.behave(|b| {
        b.page_length = Some(RECORD);
        b.beyond = Beyond::Nothing;
    });
    let short = admin.log_page(0x70, 0, 0, 2 * RECORD).unwrap();
    assert_eq!(short[8], 2, "less data than asked for is no error");

    register_with_dim(&cdc, &admin);
    let keeps_alive = cdc.wait(SOON, |seen| seen.count(Kind::KeepAlive) > 0);
    assert!(keeps_alive, "no keep alive");

    guest.disconnect(&device);
    let last = cdc.recording().of(Kind::PropertySet).last().cloned();
    assert_eq!(last.unwrap().sqe.cdw(12) >> 14 & 0b11, 1, "CC.SHN: normal shutdown");
    assert!(cdc.wait(SOON, |seen| seen.open == 0));
}

/// Payloads short enough for the capsule, and so long that the kernel waits for R2T.
fn register_with_dim(cdc: &Handle, admin: &AdminQueue) {
    let payloads = [2304, 100 * RECORD].map(|length| (0..length).map(|at| (at / 7) as u8).collect::<Vec<u8>>());
    for payload in &payloads {
        admin.run(DIM, [0; 4], &mut payload.clone()).unwrap();
    }
    let seen = cdc.recording();
    let dims = seen.of(Kind::DiscoveryInformationManagement);
    let arrived: Vec<_> = dims.map(|command| command.data.as_slice()).collect();
    assert_eq!(arrived, payloads.each_ref().map(Vec::as_slice));
}

#[test]
fn tells_of_a_changed_log() {
    scenario(|guest| {
        let dc = Simulator::start("[::1]:8009").unwrap();
        dc.behave(|b| b.identity.unique_nqn = Some(CDC_NQN.into()));
        let device = guest.connect(&(options(&dc, CDC_NQN) + ",discovery")).unwrap();
        assert_eq!(guest.controllers()[0].address_field("traddr"), Some("::1"));
        assert_eq!(attribute(&device, "dctype"), "none");
        waits_for_event(&dc, 1);

        let events = guest.uevents();
        let admin = AdminQueue::open(&device);
        for round in 1..=3 {
            dc.set_entries([Entry::referral("192.0.2.1", "8009")]);
            let event = events.wait_for("NVME_AEN=");
            assert!(event.contains("NVME_AEN=0x70f002"), "{event}");
            assert!(event.contains(&format!("DEVNAME={device}")), "{event}");
            waits_for_event(&dc, round + 1);
            let page = admin.log_page(0x70, 0, 0, RECORD).unwrap();
            assert_eq!(usize::from(page[0]), round, "GENCTR");
        }
    });
}

#[test]
fn refuses_and_drops() {
    scenario(|guest| {
        let mut dc = Simulator::start("127.0.0.1:8009").unwrap();
        let options = options(&dc, DISCOVERY_NQN) + ",reconnect_delay=1";
        let busy = Status::CONNECT_CONTROLLER_BUSY;
        dc.behave(|b| b.fail(Kind::Connect, Times::ONCE, busy));
        let refused = guest.connect(&options).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(nix::libc::EIO));

        let device = guest.connect(&options).unwrap();
        let is_live = || attribute(&device, "state") == "live";
        dc.clear_recording();
        dc.behave(|b| b.fail(Kind::Connect, Times::ONCE, busy));
        dc.drop_connections();
        let again = |seen: &crate::sim::Recording| seen.count(Kind::Connect) == 2;
        assert!(dc.wait(SOON, again), "no second attempt");
        guest.wait_until("it is live again", SOON, is_live);

        dc.stop_listening();
        guest.wait_until("the loss is noticed", SOON, || !is_live());
        dc.listen().unwrap();
        guest.wait_until("it is live after the pause", SOON, is_live);

        dc.behave(|b| b.fail(Kind::Connect, Times::ONCE, Status::CONNECT_INVALID_HOST.dnr()));
        dc.drop_connections();
        guest.wait_until("the kernel gave it up", SOON, || guest.controllers().is_empty());
    });
}

#[test]
fn leaves_the_kernel_waiting() {
    scenario(|guest| {
        let dc = Simulator::start("127.0.0.1:8009").unwrap();
        let options = options(&dc, DISCOVERY_NQN);
        dc.behave(|b| b.accept = Accept::Close);
        assert!(guest.connect(&options).is_err());
        dc.behave(|b| b.accept = Accept::Silent);
        let started = Instant::now();
        let silent = guest.connect(&options).unwrap_err();
        assert_eq!(silent.raw_os_error(), Some(nix::libc::EAGAIN));
        assert!(started.elapsed() > Duration::from_secs(5));
        assert_eq!(dc.recording().accepted, 2);

        let delay = Duration::from_secs(2);
        dc.behave(|b| {
            b.accept = Accept::Normally;
            b.success_flag = true;
            b.delay(Kind::DiscoveryLogPage, delay);
        });
        let admin = AdminQueue::open(&guest.connect(&options).unwrap());
        let started = Instant::now();
        let page = admin.log_page(0x70, 0, 0, 300 * RECORD).unwrap();
        assert!(started.elapsed() >= delay);
        assert_eq!(page, vec![0; 300 * RECORD]);
    });
}

fn options(dc: &Handle, nqn: &str) -> String {
    let (traddr, trsvcid) = (dc.traddr(), dc.trsvcid());
    format!("nqn={nqn},transport=tcp,traddr={traddr},trsvcid={trsvcid}")
}

fn attribute(device: &str, name: &str) -> String {
    let path = format!("/sys/class/nvme/{device}/{name}");
    let value = fs::read_to_string(path).unwrap_or_default();
    value.trim_end().to_owned()
}

fn connect_of(dc: &Handle) -> crate::sim::ConnectData {
    let seen = dc.recording();
    let host = |command: &Command| command.host.clone();
    seen.of(Kind::Connect).find_map(host).unwrap()
}

fn waits_for_event(dc: &Handle, requests: usize) {
    let waits = dc.wait(SOON, |seen| seen.count(Kind::AsynchronousEventRequest) == requests);
    assert!(waits, "no Asynchronous Event Request number {requests}");
}

/// struct nvme_passthru_cmd of the kernel's `linux/nvme_ioctl.h`.
#[repr(C)]
#[derive(Default)]
struct PassthruCommand {
    opcode: u8,
    flags: u8,
    rsvd1: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    /// Command dwords 10 to 13.
    cdw10: [u32; 4],
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

nix::ioctl_readwrite!(nvme_ioctl_admin_cmd, b'N', 0x41, PassthruCommand);

/// The admin queue of a controller, by way of its character device.
struct AdminQueue(File);

impl AdminQueue {
    fn open(device: &str) -> Self {
        Self(File::open(format!("/dev/{device}")).unwrap())
    }

    /// Runs a command; the error is its NVMe status.
    fn run(&self, opcode: u8, cdw10: [u32; 4], data: &mut [u8]) -> Result<(), i32> {
        let mut command = PassthruCommand {
            opcode,
            addr: data.as_mut_ptr() as u64,
            data_len: data.len() as u32,
            cdw10,
            ..PassthruCommand::default()
        };
        // SAFETY: the kernel reads and writes the command, and the data for as long as the call lasts; both are ours.
        let status = unsafe { nvme_ioctl_admin_cmd(self.0.as_raw_fd(), &mut command) };
        match status.unwrap() {
            0 => Ok(()),
            status => Err(status),
        }
    }

    /// Get Log Page with RAE cleared.
    fn log_page(&self, lid: u8, lsp: u8, offset: u64, length: usize) -> Result<Vec<u8>, i32> {
        let mut page = vec![0xaa; length];
        let numd = length as u32 / 4 - 1;
        let dwords =
            [u32::from(lid) | u32::from(lsp) << 8 | numd << 16, numd >> 16, offset as u32, (offset >> 32) as u32];
        self.run(GET_LOG_PAGE, dwords, &mut page)?;
        Ok(page)
    }
}
