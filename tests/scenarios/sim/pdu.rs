//! NVMe/TCP PDUs, seen from the controller: those a host sends are read, those a controller sends are built.
//!
//! Header and data digests are never negotiated, so a PDU is its header, padding up to PDO, and data. This module knows
//! framing only; what a command means is in [`super::commands`] and [`super::controller`].
//!
//! Facts: NVMe/TCP Transport Specification 1.0, section 3.6 (PDU definitions); Linux `include/linux/nvme-tcp.h`.

use std::io::{self, Read};

use super::commands::{Sqe, Status};

const ICREQ: u8 = 0x00;
const ICRESP: u8 = 0x01;
const H2C_TERM_REQ: u8 = 0x02;
const CAPSULE_CMD: u8 = 0x04;
const CAPSULE_RESP: u8 = 0x05;
const H2C_DATA: u8 = 0x06;
const C2H_DATA: u8 = 0x07;
const R2T: u8 = 0x09;

/// Flag of a data PDU: the last one of this transfer.
const LAST_PDU: u8 = 1 << 2;
/// Flag of C2HData: the command succeeded, no response capsule follows.
const SUCCESS: u8 = 1 << 3;

/// Length of the common header: type, flags, HLEN, PDO, PLEN.
const COMMON_HEADER: usize = 8;
/// Length of the headers of R2T, H2CData and C2HData, and of a whole response capsule.
const SHORT_HEADER: usize = 24;
/// Length of ICReq and ICResp.
const INIT_LENGTH: usize = 128;

/// The longest PDU accepted from a host; far above what a Linux host sends.
const MAX_PLEN: usize = 2 << 20;
/// What a host may put into one H2CData PDU. The least the specification allows, so that a long DIM payload comes in
/// several PDUs.
const MAXH2CDATA: u32 = 4096;
/// Data to the host is cut into PDUs of this length, so that a long log page goes in several.
const C2H_CHUNK: usize = 128 << 10;

/// A PDU a host sent.
pub enum Pdu {
    /// ICReq, the first one of a connection.
    InitializeConnection,
    /// A command capsule and its in-capsule data.
    Command { sqe: Sqe, data: Vec<u8> },
    /// H2CData, the answer to an R2T.
    HostData { ttag: u16, offset: usize, data: Vec<u8> },
    /// H2CTermReq: the host found us at fault and is about to disconnect.
    Terminate,
}

/// Waits for the next PDU.
///
/// # Errors
/// `UnexpectedEof` when the host has gone, `InvalidData` for what is no PDU.
pub fn read(stream: &mut impl Read) -> io::Result<Pdu> {
    let mut common = [0; COMMON_HEADER];
    stream.read_exact(&mut common)?;
    let [pdu_type, _flags, hlen, pdo, plen @ ..] = common;
    let plen = u32::from_le_bytes(plen) as usize;
    let (hlen, pdo) = (usize::from(hlen), usize::from(pdo));
    if !(COMMON_HEADER.max(hlen)..=MAX_PLEN).contains(&plen) {
        return Err(invalid("PLEN out of range"));
    }
    let mut pdu = common.to_vec();
    pdu.resize(plen, 0);
    stream.read_exact(&mut pdu[COMMON_HEADER..])?;

    let data_at = if pdo == 0 { hlen } else { pdo };
    let data = || pdu.get(data_at..).unwrap_or_default().to_vec();
    match pdu_type {
        ICREQ => Ok(Pdu::InitializeConnection),
        CAPSULE_CMD => match pdu.get(COMMON_HEADER..).and_then(Sqe::parse) {
            Some(sqe) => Ok(Pdu::Command { sqe, data: data() }),
            None => Err(invalid("command capsule too short")),
        },
        H2C_DATA if plen >= SHORT_HEADER => Ok(Pdu::HostData {
            ttag: u16::from_le_bytes([pdu[10], pdu[11]]),
            offset: u32::from_le_bytes([pdu[12], pdu[13], pdu[14], pdu[15]]) as usize,
            data: data(),
        }),
        H2C_TERM_REQ => Ok(Pdu::Terminate),
        _ => Err(invalid("unexpected PDU type")),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn header(pdu_type: u8, flags: u8, hlen: usize, data: usize) -> Vec<u8> {
    let pdo = if data == 0 { 0 } else { hlen };
    let mut pdu = vec![pdu_type, flags, hlen as u8, pdo as u8];
    pdu.extend(((hlen + data) as u32).to_le_bytes());
    pdu
}

/// ICResp: PFV 0, no alignment wanted (CPDA 0), digests off.
pub fn initialize_connection_response() -> Vec<u8> {
    let mut pdu = header(ICRESP, 0, INIT_LENGTH, 0);
    pdu.extend([0; 4]);
    pdu.extend(MAXH2CDATA.to_le_bytes());
    pdu.resize(INIT_LENGTH, 0);
    pdu
}

/// A response capsule: the completion of command `cid`, with its command specific `result`.
pub fn response(cid: u16, status: Status, result: u64) -> Vec<u8> {
    let mut pdu = header(CAPSULE_RESP, 0, SHORT_HEADER, 0);
    pdu.extend(result.to_le_bytes());
    pdu.extend([0; 4]); // SQHD and SQID: a Linux host looks at neither
    pdu.extend(cid.to_le_bytes());
    pdu.extend(status.wire().to_le_bytes());
    pdu
}

/// R2T: asks for `length` bytes of the data of command `cid`, from its first byte on.
pub fn ready_to_transfer(cid: u16, ttag: u16, length: u32) -> Vec<u8> {
    let mut pdu = header(R2T, 0, SHORT_HEADER, 0);
    pdu.extend(cid.to_le_bytes());
    pdu.extend(ttag.to_le_bytes());
    pdu.extend(0_u32.to_le_bytes());
    pdu.extend(length.to_le_bytes());
    pdu.resize(SHORT_HEADER, 0);
    pdu
}

/// C2HData PDUs carrying `data` for command `cid`. With `success` the last one completes the command by its SUCCESS
/// flag; otherwise a [`response`] has to follow.
pub fn data_to_host(cid: u16, data: &[u8], success: bool) -> Vec<u8> {
    let mut pdus = Vec::with_capacity(data.len() + SHORT_HEADER);
    for (index, chunk) in data.chunks(C2H_CHUNK).enumerate() {
        let offset = index * C2H_CHUNK;
        let flags = match (offset + chunk.len() == data.len(), success) {
            (true, true) => LAST_PDU | SUCCESS,
            (true, false) => LAST_PDU,
            (false, _) => 0,
        };
        let mut pdu = header(C2H_DATA, flags, SHORT_HEADER, chunk.len());
        pdu.extend(cid.to_le_bytes());
        pdu.extend([0; 2]);
        pdu.extend((offset as u32).to_le_bytes());
        pdu.extend((chunk.len() as u32).to_le_bytes());
        pdu.resize(SHORT_HEADER, 0);
        pdus.extend(pdu);
        pdus.extend(chunk);
    }
    pdus
}
