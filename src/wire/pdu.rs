//! The first PDU pair of an NVMe/TCP connection: what tells an NVMe/TCP controller from anything else that listens.
//!
//! Layout: NVMe/TCP Transport Specification, "Initialize Connection Request PDU (ICReq)", "Initialize Connection Response
//! PDU (ICResp)", "Controller to Host Terminate Connection Request PDU (C2HTermReq)". A port that demands TLS expects a
//! TLS handshake first and drops an ICReq: do not send it one.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an ICReq, and of an ICResp.
pub const IC_SIZE: usize = size_of::<InitializeConnection>();

const PDU_ICREQ: u8 = 0x00;
const PDU_ICRESP: u8 = 0x01;
const PDU_C2H_TERM_REQ: u8 = 0x03;
/// PDU format version of NVMe/TCP 1.0.
const PFV_1_0: u16 = 0;
/// C2HTermReq: header alone, and with the most error data it may carry.
const C2H_TERM_REQ_SIZES: std::ops::RangeInclusive<u32> = 24..=152;

/// The common header that begins every PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct CommonHeader {
    pdu_type: u8,
    flags: u8,
    hlen: u8,
    pdo: u8,
    plen: U32,
}

/// ICReq and ICResp have the same shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct InitializeConnection {
    header: CommonHeader,
    pfv: U16,
    /// HPDA in a request, CPDA in a response: alignment of PDU data in dwords, minus one.
    alignment: u8,
    digest: u8,
    /// MAXR2T (minus one) in a request, MAXH2CDATA in a response.
    limit: U32,
    reserved: [u8; 112],
}

/// The ICReq to send: version 1.0, no digests, one R2T at a time.
pub fn ic_req() -> [u8; IC_SIZE] {
    let header =
        CommonHeader { pdu_type: PDU_ICREQ, flags: 0, hlen: IC_SIZE as u8, pdo: 0, plen: U32::new(IC_SIZE as u32) };
    let request = InitializeConnection {
        header,
        pfv: U16::new(PFV_1_0),
        alignment: 0,
        digest: 0,
        limit: U32::ZERO,
        reserved: [0; 112],
    };
    zerocopy::transmute!(request)
}

/// What the bytes received so far say about who answered an ICReq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// More bytes are needed.
    Incomplete,
    /// An NVMe/TCP controller, willing to talk.
    IcResp,
    /// An NVMe/TCP controller that ends the connection, with its Fatal Error Status.
    Terminated(u16),
    /// Not NVMe/TCP.
    Foreign,
}

/// Looks at everything received so far in answer to [`ic_req`]; at most [`IC_SIZE`] bytes are needed.
pub fn answer(received: &[u8]) -> Answer {
    let Ok((header, rest)) = CommonHeader::ref_from_prefix(received) else {
        // Whatever begins otherwise (an SSH banner, an HTTP error) need not be waited for.
        return match received.first() {
            None | Some(&PDU_ICRESP | &PDU_C2H_TERM_REQ) => Answer::Incomplete,
            Some(_) => Answer::Foreign,
        };
    };
    match (header.pdu_type, header.hlen, header.plen.get()) {
        (PDU_ICRESP, 128, 128) => match InitializeConnection::ref_from_prefix(received) {
            Err(_) => Answer::Incomplete,
            Ok((response, _)) if response.pfv.get() == PFV_1_0 => Answer::IcResp,
            Ok(_) => Answer::Foreign,
        },
        (PDU_C2H_TERM_REQ, 24, plen) if C2H_TERM_REQ_SIZES.contains(&plen) => match U16::ref_from_prefix(rest) {
            Err(_) => Answer::Incomplete,
            Ok((fes, _)) => Answer::Terminated(fes.get()),
        },
        _ => Answer::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As nvmet sends it: MAXH2CDATA 0x400000.
    const IC_RESP_START: [u8; 16] = [1, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0];

    fn ic_resp() -> [u8; 128] {
        let mut bytes = [0; 128];
        bytes[..16].copy_from_slice(&IC_RESP_START);
        bytes
    }

    #[test]
    fn the_request_is_the_specifications() {
        let mut expected = [0; 128];
        expected[2] = 128;
        expected[4] = 128;
        assert_eq!(ic_req(), expected);
    }

    #[test]
    fn a_response_counts_once_it_is_whole() {
        for end in 0..128 {
            assert_eq!(answer(&ic_resp()[..end]), Answer::Incomplete, "{end}");
        }
        assert_eq!(answer(&ic_resp()), Answer::IcResp);
    }

    #[test]
    fn a_controller_that_refuses_is_a_controller() {
        let mut bytes = [0; 24];
        bytes[..10].copy_from_slice(&[3, 0, 24, 0, 24, 0, 0, 0, 6, 0]);
        assert_eq!(answer(&bytes), Answer::Terminated(6));
        assert_eq!(answer(&bytes[..9]), Answer::Incomplete);
    }

    #[test]
    fn others_are_recognised_as_such() {
        for bytes in [&b"SSH-2.0-OpenSSH"[..], b"H", b"HTTP/1.1 400 Bad Request", &[0; 128]] {
            assert_eq!(answer(bytes), Answer::Foreign, "{bytes:?}");
        }
        for (at, value) in [(2, 72), (4, 129), (5, 1), (8, 1)] {
            let mut bytes = ic_resp();
            bytes[at] = value;
            assert_eq!(answer(&bytes), Answer::Foreign, "byte {at}");
        }
        // Our own ICReq echoed back.
        assert_eq!(answer(&ic_req()), Answer::Foreign);
    }
}
