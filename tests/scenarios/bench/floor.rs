//! What the program is compared to: programs that do what has to be done, and nothing else. They check nothing, remember nothing
//! and would not survive a surprise.

use crate::guest::{DISCOVERY_NQN, Guest, HOSTID, HOSTNQN};
use nix::libc;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

/// What is written to connect a controller, with the options that the program is configured to use.
pub fn connect_string(nqn: &str, traddr: &str, trsvcid: u16) -> String {
    let options = if nqn == DISCOVERY_NQN { "keep_alive_tmo=30" } else { "nr_io_queues=1,queue_size=16" };
    let identity = format!("hostnqn={HOSTNQN},hostid={HOSTID}");
    format!("nqn={nqn},transport=tcp,traddr={traddr},trsvcid={trsvcid},{identity},{options}")
}

/// One after the other.
pub fn connect_all(strings: &[String]) {
    strings.iter().for_each(|string| drop(connect(string)));
}

/// Connects a controller, and gives its name.
pub fn connect(string: &str) -> String {
    let mut fabrics = OpenOptions::new().read(true).write(true).open("/dev/nvme-fabrics").unwrap();
    fabrics.write_all(string.as_bytes()).unwrap();
    let mut reply = String::new();
    fabrics.read_to_string(&mut reply).unwrap();
    let instance = reply.split(',').find_map(|field| field.trim().strip_prefix("instance=")).unwrap();
    format!("nvme{instance}")
}

/// Waits for word of the discovery controller `device`, reads what it lists, and connects the entry that is new. `ready` is called
/// when it listens.
pub fn follow(guest: &Guest, device: &str, known: &[String], ready: impl FnOnce()) {
    let uevents = guest.uevents();
    let node = File::open(format!("/dev/{device}")).unwrap();
    ready();
    uevents.wait_for("NVME_AEN=0x70f002");
    let mut header = [0; 1024];
    get_log_page(&node, 0, &mut header);
    let records = u64::from_le_bytes(header[8..16].try_into().unwrap());
    let mut entries = vec![0; 1024 * usize::try_from(records).unwrap()];
    get_log_page(&node, 1024, &mut entries);
    for entry in entries.chunks(1024).filter(|entry| entry[2] == 2) {
        let nqn = text(&entry[256..512]);
        if !known.contains(&nqn) {
            connect(&connect_string(&nqn, &text(&entry[512..768]), text(&entry[32..64]).parse().unwrap()));
        }
    }
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).trim_end_matches(['\0', ' ']).to_owned()
}

/// `struct nvme_passthru_cmd`.
#[repr(C)]
#[derive(Default)]
struct Command {
    opcode: u8,
    rest_of_first: [u8; 3],
    nsid: u32,
    unused: [u32; 4],
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    others: [u32; 5],
}

/// The discovery log page from `offset` on; that clears the event.
fn get_log_page(node: &File, offset: u32, buffer: &mut [u8]) {
    let numd = u32::try_from(buffer.len() / 4 - 1).unwrap();
    let mut command = Command {
        opcode: 0x02,
        addr: buffer.as_mut_ptr() as u64,
        data_len: u32::try_from(buffer.len()).unwrap(),
        cdw10: numd << 16 | 0x70,
        cdw11: numd >> 16,
        cdw12: offset,
        ..Command::default()
    };
    // SAFETY: the command, of the size in the request's number, and the buffer that it names outlive the call.
    let status = unsafe { libc::ioctl(node.as_raw_fd(), 0xc048_4e41, &raw mut command) };
    assert_eq!(status, 0, "get log page");
}
