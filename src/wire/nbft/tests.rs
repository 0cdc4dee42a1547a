use super::*;

use super::made::{self, CONTROL, Extended, HFIS, HOST, ip, seal};

/// A table byte by byte, independent of the builder: one interface, one subsystem, as the specification draws them.
#[rustfmt::skip]
fn literal() -> Vec<u8> {
    let table = [
        // Header: length 538, revision 1.0, heap at 320 of 218 bytes, no driver signature.
        &b"NBFT\x1a\x02\0\0\x01\0OEM\0\0\0TABLE\0\0\0"[..],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0x40, 1, 0, 0], &[218, 0, 0, 0], &[0; 6], &[0; 14],
        // Control: host at 128, one HFI at 160, one SSNS at 192.
        &[1, 1, 0, 0, 64, 0, 1, 0], &[128, 0, 0, 0, 32, 0, 1, 0], &[160, 0, 0, 0, 32, 0, 1, 1],
        &[192, 0, 0, 0, 128, 0, 1, 1], &[0; 8], &[0; 8], &[0; 16],
        // Host: valid, id configured; NQN at 320.
        &[2, 0b011], b"0123456789abcdef", &[0x40, 1, 0, 0, 5, 0], &[0; 8],
        // HFI 1: TCP, transport information at 326.
        &[3, 1, 1, 3], &[0; 12], &[0x46, 1, 0, 0, 128, 0], &[0; 10],
        // SSNS 0102h: discovered, unavailable, extended information; both digests; address at 455, port at 472.
        &[4, 0x02, 0x01, 0x51, 0x01, 3, 7, 0, 9, 0], &[0xc7, 1, 0, 0, 16, 0], &[0xd8, 1, 0, 0, 4, 0],
        &[5, 0], &[1, 2, 3, 4], &[2], b"ABCDEFGHIJKLMNOP", &[0, 1, 0],
        // Secondary HFIs at 477, NQN at 480, extended information at 510.
        &[0xdd, 1, 0, 0, 2, 0], &[0xe0, 1, 0, 0, 29, 0], &[0xfe, 1, 0, 0, 23, 0], &[0; 62],
        // The heap.
        b"nqn.h\0",
        // HFI transport information: flags, PCI 0001:02:03.4, MAC, VLAN 10, origin, addresses.
        &[7, 1, 3, 1, 1, 0, 0b111], &[0x1c, 2, 1, 0], &[0x52, 0x54, 0, 0xa, 0xb, 0xc], &[10, 0], &[3],
        &[0; 10], &[0xff, 0xff, 192, 0, 2, 10], &[24], &[0; 10], &[0xff, 0xff, 192, 0, 2, 254], &[0], &[0xf4, 1],
        &[0; 10], &[0xff, 0xff, 192, 0, 2, 53], &[0; 16], &[0; 10], &[0xff, 0xff, 192, 0, 2, 67],
        &[0x15, 2, 0, 0, 4, 0], &[0; 18], &[0],
        &[0; 10], &[0xff, 0xff, 192, 0, 2, 1], &[0], b"4420\0", &[1, 2, 0], b"nqn.2026-01.example:literal-0\0",
        // SSNS extended information: controller 7, queue of 32, and why it was unavailable.
        &[9, 1, 0x02, 0x01, 3, 0, 0, 0, 7, 0, 32, 0], &[0; 6], &[2, 1, 30, 0, 3],
        b"host\0",
    ].concat();
    seal(table)
}

#[test]
fn the_layout_is_the_specifications() {
    let bytes = literal();
    assert_eq!(bytes.len(), 538);
    let table = Table::new(&bytes).unwrap();
    assert_eq!((table.revision(), table.length(), table.oem()), ((1, 0), 538, ("OEM", "TABLE")));
    let host = table.host().unwrap().unwrap();
    assert_eq!((host.nqn(), &host.id(), host.primary()), ("nqn.h", b"0123456789abcdef", 0));
    assert!(host.id_configured() && !host.nqn_configured());

    let [hfi] = table.hfis().collect::<Result<Vec<_>, _>>().unwrap()[..] else { panic!() };
    assert_eq!((hfi.index(), hfi.mac(), hfi.vlan()), (1, [0x52, 0x54, 0, 0xa, 0xb, 0xc], 10));
    assert_eq!((hfi.pci(), hfi.ip_origin(), hfi.prefix(), hfi.route_metric()), ((1, 2, 3, 4), 3, 24, 500));
    let last = |address: [u8; 16]| address[15];
    let addresses = [hfi.address(), hfi.gateway(), hfi.primary_dns(), hfi.secondary_dns(), hfi.dhcp_server()];
    assert_eq!(addresses.map(last), [10, 254, 53, 0, 67]);
    assert!(hfi.dhcp() && hfi.global_route() && !hfi.autoconf() && hfi.client_id().is_none());
    assert_eq!((hfi.host_name(), hfi.flaw()), ("host", None));

    let [ssns] = table.ssns().collect::<Result<Vec<_>, _>>().unwrap()[..] else { panic!() };
    assert_eq!((ssns.index(), ssns.discovery_index(), ssns.trsvcid()), (0x0102, 9, "4420"));
    assert_eq!((last(ssns.traddr()), ssns.port_id(), ssns.nsid()), (1, 5, 0x0403_0201));
    assert_eq!((ssns.nid(), ssns.primary_hfi()), ((NIDT_NGUID, *b"ABCDEFGHIJKLMNOP"), 1));
    assert_eq!((ssns.secondary_hfis(), ssns.nqn()), (&[1, 2][..], "nqn.2026-01.example:literal-0"));
    assert!(ssns.header_digest() && ssns.data_digest() && ssns.discovered() && ssns.unavailable());
    assert!(!ssns.non_bootable() && !ssns.secured());
    assert_eq!((ssns.cntlid(), ssns.admin_asqsz(), ssns.dhcp_root_path(), ssns.flaw()), (7, 32, "", None));
    let why = ssns.diagnostics().unwrap();
    assert_eq!((why.naed(), why.cipeec(), why.cto(), why.nceec()), (2, 1, 30, 3));
    assert!(table.security().next().is_none() && table.discovery().next().is_none());
}

#[test]
fn the_frame_is_checked() {
    let good = made::Table::default().bytes();
    assert!(Table::new(&good).is_ok());
    assert!(Table::new(&[&good[..], b"more"].concat()).is_ok(), "what follows does not count");
    let error = |bytes: &[u8]| Table::new(bytes).map(|table| table.length()).unwrap_err();
    assert_eq!(error(&[]), TableError::Short { bytes: 0 });
    assert_eq!(error(&good[..63]), TableError::Short { bytes: 63 });
    let (claimed, bytes) = (good.len() as u32, good.len() - 1);
    assert_eq!(error(&good[..bytes]), TableError::Length { claimed, bytes });

    let changed = |at: usize, to: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        error(&seal(bytes))
    };
    assert_eq!(changed(0, b"IBFT"), TableError::Signature);
    assert_eq!(changed(4, &[127, 0, 0, 0]), TableError::Length { claimed: 127, bytes: good.len() });
    assert_eq!(changed(8, &[2]), TableError::Revision(2));
    assert_eq!(changed(36, &[0xff; 4]), TableError::Heap);
    assert_eq!(changed(40, &[0xff; 4]), TableError::Heap);
    assert_eq!(changed(CONTROL, &[0]), TableError::Control);
    assert_eq!(changed(CONTROL + 6, &[0]), TableError::Control);
    assert_eq!(changed(CONTROL + 8, &[0xff; 4]), TableError::List(Descriptor::Host));
    assert_eq!(changed(CONTROL + 12, &[31, 0]), TableError::List(Descriptor::Host));
    for (place, kind) in [(16, Descriptor::Hfi), (24, Descriptor::Ssns)] {
        assert_eq!(changed(CONTROL + place, &[0xff; 4]), TableError::List(kind));
        assert_eq!(changed(CONTROL + place + 4, &[31, 0]), TableError::List(kind), "too small a descriptor");
        assert_eq!(changed(CONTROL + place + 7, &[255]), TableError::List(kind));
    }
    for (place, kind) in [(32, Descriptor::Security), (40, Descriptor::Discovery)] {
        assert_eq!(changed(CONTROL + place, &[0xe0, 0xff, 0xff, 0xff, 64, 0, 1, 1]), TableError::List(kind));
    }
    let mut bytes = good.clone();
    bytes[9] = bytes[9].wrapping_add(1);
    assert_eq!(error(&bytes), TableError::Checksum);
}

#[test]
fn any_minor_revision_and_larger_descriptors_are_read() {
    for minor_revision in [0, 1, 3, 200] {
        let bytes = made::Table { minor_revision, ..made::Table::default() }.bytes();
        assert_eq!(Table::new(&bytes).unwrap().revision(), (1, minor_revision));
    }
    // One HFI descriptor of 160 bytes, which are those of the HFI and of the SSNS behind it.
    let mut bytes = made::Table::default().bytes();
    bytes[CONTROL + 20..CONTROL + 22].copy_from_slice(&[160, 0]);
    assert_eq!(Table::new(&seal(bytes)).unwrap().hfis().count(), 1);
}

/// The table after a change at `at`, the bytes of which go to `to`.
fn damaged(table: &made::Table, at: usize, to: &[u8]) -> Vec<u8> {
    let mut bytes = table.bytes();
    bytes[at..at + to.len()].copy_from_slice(to);
    seal(bytes)
}

/// Where the only SSNS of a table with one HFI begins.
const SSNS: usize = HFIS + 32;

#[test]
fn a_damaged_descriptor_is_told_and_costs_nothing_else() {
    let good = made::Table::default();
    let problem = |at, to: &[u8]| {
        let bytes = damaged(&good, at, to);
        let table = Table::new(&bytes).unwrap();
        let ends = [table.hfis().filter_map(Result::err).next(), table.ssns().filter_map(Result::err).next()];
        assert_eq!(table.hfis().count() + table.ssns().count(), 2);
        let ([Some(damage), None] | [None, Some(damage)]) = ends else { panic!("{ends:?}") };
        assert!(!damage.to_string().is_empty());
        (damage.descriptor, damage.field, damage.problem)
    };
    let far = [0xff, 0xff, 0xff, 0xff];
    assert_eq!(problem(HFIS, &[4]), (Descriptor::Hfi, "descriptor", Problem::StructureId(4)));
    assert_eq!(problem(HFIS + 3, &[1]), (Descriptor::Hfi, "descriptor", Problem::Transport(1)));
    assert_eq!(problem(HFIS + 16, &far), (Descriptor::Hfi, "transport information", Problem::OutsideHeap));
    assert_eq!(problem(HFIS + 16, &[0; 4]).2, Problem::OutsideHeap, "the header is not the heap");
    assert_eq!(problem(HFIS + 20, &[127, 0]).2, Problem::Length(127));
    assert_eq!(problem(HFIS + 20, &[0, 0]).2, Problem::Missing);
    assert_eq!(problem(SSNS + 5, &[1]), (Descriptor::Ssns, "descriptor", Problem::Transport(1)));
    assert_eq!(problem(SSNS + 14, &[15, 0]), (Descriptor::Ssns, "transport address", Problem::Length(15)));
    assert_eq!(problem(SSNS + 16, &far), (Descriptor::Ssns, "transport service id", Problem::OutsideHeap));
    assert_eq!(problem(SSNS + 58, &[0, 0]), (Descriptor::Ssns, "subsystem NQN", Problem::Missing));
    let odd = made::Table {
        ssns: vec![made::Ssns { nqn: "nqn.\u{1b}[2J".to_owned(), ..made::Ssns::default() }],
        ..good.clone()
    };
    let bytes = odd.bytes();
    assert_eq!(Table::new(&bytes).unwrap().ssns().next().unwrap().unwrap_err().problem, Problem::NotText);
    let bytes = damaged(&good, HOST + 18, &far);
    assert_eq!(Table::new(&bytes).unwrap().host().unwrap().unwrap_err().problem, Problem::OutsideHeap);
}

#[test]
fn what_can_be_done_without_is_left_out() {
    let good = made::Table {
        hfis: vec![made::Hfi { host_name: "\u{7}".to_owned(), ..made::Hfi::default() }],
        ssns: vec![made::Ssns { extended: Some(Extended::default()), ..made::Ssns::default() }],
        ..made::Table::default()
    };
    let bytes = damaged(&good, SSNS + 48, &[0xff, 0xff, 0, 0, 1, 0]);
    let table = Table::new(&bytes).unwrap();
    let hfi = table.hfis().next().unwrap().unwrap();
    assert_eq!((hfi.host_name(), hfi.flaw().unwrap().field), ("", "host name"));
    let ssns = table.ssns().next().unwrap().unwrap();
    assert_eq!((ssns.secondary_hfis(), ssns.flaw().unwrap().field), (&[][..], "list of secondary HFIs"));

    let bytes = damaged(&good, SSNS + 60, &[0, 0, 0, 0, 17, 0]);
    let ssns = Table::new(&bytes).unwrap().ssns().next().unwrap().unwrap();
    assert_eq!((ssns.cntlid(), ssns.flaw().unwrap().problem), (0, Problem::OutsideHeap));
}

#[test]
fn what_is_marked_as_not_valid_is_not_there() {
    let good = made::Table {
        security: vec![made::Security::default()],
        discovery: vec![made::Discovery::default()],
        ..made::Table::default()
    };
    let mut bytes = good.bytes();
    bytes[HOST + 1] = 0;
    bytes[HFIS + 2] = 0;
    bytes[SSNS + 3] &= 0xfe;
    bytes[SSNS + 128 + 2] &= 0xfe;
    bytes[SSNS + 128 + 64 + 1] = 0;
    let bytes = seal(bytes);
    let table = Table::new(&bytes).unwrap();
    assert!(table.host().is_none());
    let counts = [table.hfis().count(), table.ssns().count(), table.security().count(), table.discovery().count()];
    assert_eq!(counts, [0; 4]);
}

#[test]
fn digests_count_only_with_the_valid_flag() {
    let table = |trflags| {
        let ssns = made::Ssns { trflags, ..made::Ssns::default() };
        made::Table { ssns: vec![ssns], ..made::Table::default() }.bytes()
    };
    for (trflags, header, data) in [(0b110, false, false), (0b011, true, false), (0b101, false, true)] {
        let bytes = table(trflags);
        let ssns = Table::new(&bytes).unwrap().ssns().next().unwrap().unwrap();
        assert_eq!((ssns.header_digest(), ssns.data_digest()), (header, data), "{trflags}");
    }
}

#[test]
fn what_revision_1_1_added() {
    let extended = Extended {
        dhcp_root_path: Some("nvme+tcp://192.0.2.1:4420/nqn.2026-01.example:root/1".to_owned()),
        diagnostics: None,
        ..Extended::default()
    };
    let hfi = made::Hfi { client_id: Some((vec![1, 2, 3, 4], vec![4, 0, 9])), flags: 9, ..made::Hfi::default() };
    let ssns = made::Ssns { extended: Some(extended), traddr: ip("fe80::1"), ..made::Ssns::default() };
    let table = made::Table { minor_revision: 1, hfis: vec![hfi], ssns: vec![ssns], ..made::Table::default() };
    let bytes = table.bytes();
    let view = Table::new(&bytes).unwrap();
    let hfi = view.hfis().next().unwrap().unwrap();
    assert_eq!(hfi.client_id(), Some(ClientId { iaid: &[1, 2, 3, 4], duid: &[4, 0, 9] }));
    assert!(hfi.autoconf() && !hfi.dhcp());
    let ssns = view.ssns().next().unwrap().unwrap();
    assert_eq!(ssns.dhcp_root_path(), "nvme+tcp://192.0.2.1:4420/nqn.2026-01.example:root/1");
    assert!(ssns.diagnostics().is_none(), "an extended information of 1.0 is shorter");
}

#[test]
fn every_single_byte_may_be_wrong() {
    let table = made::Table {
        hfis: vec![made::Hfi { client_id: Some((vec![0; 4], vec![9; 20])), ..made::Hfi::default() }],
        ssns: vec![made::Ssns {
            extended: Some(Extended { diagnostics: Some([1; 5]), ..Extended::default() }),
            ..made::Ssns::default()
        }],
        security: vec![made::Security::default()],
        discovery: vec![made::Discovery::default()],
        ..made::Table::default()
    };
    let good = table.bytes();
    for at in (0..good.len()).filter(|at| *at != 9) {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let bytes = seal(bytes);
            if let Ok(table) = Table::new(&bytes) {
                let seen =
                    [table.hfis().count(), table.ssns().count(), table.security().count(), table.discovery().count()];
                std::hint::black_box((seen, table.host().is_some()));
            }
        }
    }
}
