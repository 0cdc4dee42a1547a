use super::*;

use crate::core::tid::DISCOVERY_NQN;
use crate::wire::nbft::made::{self, Extended, Hfi, Ssns, ip};

pub fn nbft(tables: &[made::Table]) -> Nbft {
    let mut nbft = Nbft::default();
    for (number, table) in tables.iter().enumerate() {
        let bytes = table.bytes();
        nbft.add(&format!("NBFT{}", number + 1), &wire::Table::new(&bytes).unwrap());
    }
    nbft
}

pub fn only(table: made::Table) -> Table {
    nbft(&[table]).tables.remove(0)
}

fn with_ssns(ssns: Vec<Ssns>) -> made::Table {
    made::Table { ssns, ..made::Table::default() }
}

fn second_hfi() -> Hfi {
    Hfi { index: 2, mac: [0x52, 0x54, 0, 0, 0, 2], address: ip("198.51.100.10"), ..Hfi::default() }
}

/// Address, and the last byte of the MAC, of each path.
fn ends(nbft: &Nbft) -> Vec<(String, u8)> {
    nbft.paths().iter().map(|path| (path.subsystem.traddr.to_string(), path.interface.mac.0[5])).collect()
}

fn reasons(table: &Table) -> Vec<(String, Reason)> {
    table.rejected.iter().map(|rejected| (rejected.what.clone(), rejected.why.clone())).collect()
}

#[test]
fn one_path() {
    let nbft = nbft(&[made::Table::default()]);
    let [path] = &nbft.paths()[..] else { panic!() };
    assert!(path.primary && !path.unavailable && !path.header_digest && !path.data_digest && path.security.is_none());
    assert_eq!(path.namespaces[0].wwid.as_deref(), Some("uuid.abababab-abab-abab-abab-abababababab"));
    assert_eq!(nbft.tables[0].rejected, []);
    assert!(nbft.tables[0].remarks.is_empty());
}

#[test]
fn three_ways_to_write_two_paths_are_one() {
    let other = Ssns { index: 2, traddr: ip("198.51.100.1"), hfi: 2, ..Ssns::default() };
    let two_hfis = vec![Hfi::default(), second_hfi()];
    let several_ssns =
        made::Table { hfis: two_hfis.clone(), ssns: vec![Ssns::default(), other.clone()], ..made::Table::default() };
    let several_tables = [
        made::Table::default(),
        made::Table {
            hfis: vec![Hfi { index: 1, ..second_hfi() }],
            ssns: vec![Ssns { index: 1, hfi: 1, ..other }],
            ..made::Table::default()
        },
    ];
    let expected = [("192.0.2.1".to_owned(), 1), ("198.51.100.1".to_owned(), 2)];
    assert_eq!(ends(&nbft(&[several_ssns])), expected);
    assert_eq!(ends(&nbft(&several_tables)), expected);

    // Here both lead to the same address. The primary interface is repeated, and 0 is no interface.
    let ssns = Ssns { secondary_hfis: vec![1, 2, 0, 2], ..Ssns::default() };
    let nbft = nbft(&[made::Table { hfis: two_hfis, ssns: vec![ssns], ..made::Table::default() }]);
    assert_eq!(ends(&nbft), [("192.0.2.1".to_owned(), 1), ("192.0.2.1".to_owned(), 2)]);
    assert_eq!(nbft.paths().iter().map(|path| path.primary).collect::<Vec<_>>(), [true, false]);
    assert!(nbft.tables[0].remarks.is_empty());
}

#[test]
fn primary_paths_come_first() {
    let ssns = |index, hfi, other, traddr| Ssns {
        index,
        hfi,
        secondary_hfis: vec![other],
        traddr: ip(traddr),
        ..Ssns::default()
    };
    let table = made::Table {
        hfis: vec![Hfi::default(), second_hfi()],
        ssns: vec![ssns(1, 1, 2, "192.0.2.1"), ssns(2, 2, 1, "192.0.2.2")],
        ..made::Table::default()
    };
    let nbft = nbft(&[table]);
    let primary: Vec<bool> = nbft.paths().iter().map(|path| path.primary).collect();
    assert_eq!(primary, [true, true, false, false]);
}

#[test]
fn namespaces_behind_one_path_are_one_path() {
    let second = Ssns { index: 2, nsid: 7, trflags: 0b111, flags: 1 | 256, ..Ssns::default() };
    let tables = [with_ssns(vec![Ssns::default(), second]), made::Table::default()];
    let nbft = nbft(&tables);
    let [path] = &nbft.paths()[..] else { panic!() };
    assert_eq!(path.namespaces.iter().map(|namespace| namespace.nsid).collect::<Vec<_>>(), [Some(1), Some(7), Some(1)]);
    assert!(path.header_digest && path.data_digest && !path.unavailable);
}

#[test]
fn indices_are_no_places_in_the_list() {
    let hfis = vec![Hfi { index: 9, ..Hfi::default() }, Hfi { index: 3, ..second_hfi() }];
    let nbft = nbft(&[made::Table { hfis, ssns: vec![Ssns { hfi: 3, ..Ssns::default() }], ..made::Table::default() }]);
    assert_eq!(ends(&nbft), [("192.0.2.1".to_owned(), 2)]);
}

#[test]
fn interfaces_are_told_as_they_are() {
    let table = only(made::Table {
        hfis: vec![
            Hfi {
                vlan: 100,
                flags: 7,
                gateway: ip("192.0.2.254"),
                route_metric: 500,
                dns: [ip("192.0.2.53"), ip("0.0.0.0")],
                dhcp_server: ip("192.0.2.67"),
                host_name: "host".to_owned(),
                client_id: Some((vec![1, 0, 0, 0], vec![4, 0, 0xab])),
                ..Hfi::default()
            },
            Hfi { index: 2, flags: 9, address: ip("2001:db8::2"), prefix: 129, ip_origin: 95, ..Hfi::default() },
            Hfi { index: 3, address: ip("0.0.0.0"), dhcp_server: ip("192.0.2.67"), prefix: 0, ..Hfi::default() },
            Hfi { index: 4, vlan: 4095, ..Hfi::default() },
            Hfi { index: 1, ..Hfi::default() },
        ],
        ..made::Table::default()
    });
    let [dhcp, automatic, none] = &table.interfaces[..] else { panic!() };
    assert_eq!(
        (dhcp.vlan, dhcp.origin, dhcp.address, dhcp.prefix),
        (Some(100), Origin::Dhcp, Some(ip("192.0.2.10")), Some(24))
    );
    assert_eq!(
        (dhcp.gateway, dhcp.route_metric, &dhcp.dns[..]),
        (Some(ip("192.0.2.254")), Some(500), &[ip("192.0.2.53")][..])
    );
    assert_eq!(
        (dhcp.dhcp_server, dhcp.host_name.as_deref(), dhcp.default_route),
        (Some(ip("192.0.2.67")), Some("host"), true)
    );
    assert_eq!(dhcp.dhcp_client, Some(DhcpClient { iaid: "01000000".into(), duid: "0400ab".into() }));
    assert_eq!((dhcp.mac.to_string(), &*dhcp.pci), ("52:54:00:00:00:01".to_owned(), "0000:00:05.0"));
    assert_eq!((automatic.origin, automatic.prefix), (Origin::Automatic, None));
    assert_eq!((none.origin, none.address, none.prefix, none.dhcp_server), (Origin::Static, None, None, None));
    let expected = [("HFI 4".to_owned(), Reason::Vlan(4095)), ("HFI 1".to_owned(), Reason::IndexTwice)];
    assert_eq!(reasons(&table), expected);
}

#[test]
fn what_leads_nowhere_is_rejected() {
    let ssns = |index| Ssns { index, ..Ssns::default() };
    let table = only(with_ssns(vec![
        Ssns { hfi: 2, ..ssns(1) },
        Ssns { traddr: ip("0.0.0.0"), ..ssns(2) },
        Ssns { trsvcid: "0".into(), ..ssns(3) },
        Ssns { nqn: "iqn.x".into(), ..ssns(4) },
        Ssns { nqn: "nqn.x,dhchap_secret=y".into(), ..ssns(5) },
        Ssns { secondary_hfis: vec![8], ..ssns(6) },
        Ssns { hfi: 8, secondary_hfis: vec![1], ..ssns(7) },
        Ssns { trsvcid: String::new(), ..ssns(8) },
    ]));
    let why: Vec<Reason> = reasons(&table).into_iter().map(|(_, why)| why).collect();
    let expected = [
        Reason::NoInterface(2),
        Reason::Address(ip("0.0.0.0")),
        Reason::Service("0".into()),
        Reason::Nqn("iqn.x".into()),
        Reason::Nqn("nqn.x,dhchap_secret=y".into()),
    ];
    assert_eq!(why, expected);
    let used: Vec<_> = table.subsystems.iter().map(|ssns| (ssns.ssns, &ssns.hfis[..], ssns.trsvcid)).collect();
    assert_eq!(used, [(6, &[1][..], 4420), (7, &[1], 4420), (8, &[1], 4420)]);
    assert_eq!(table.remarks.len(), 2, "{:?}", table.remarks);
}

#[test]
fn damage_is_told_and_the_rest_used() {
    let good = with_ssns(vec![Ssns::default(), Ssns { index: 2, traddr: ip("192.0.2.2"), ..Ssns::default() }]);
    let mut bytes = good.bytes();
    // The first SSNS's address is somewhere else.
    bytes[made::HFIS + 32 + 10..][..4].copy_from_slice(&[0xff; 4]);
    let bytes = made::seal(bytes);
    let mut nbft = Nbft::default();
    nbft.add("NBFT", &wire::Table::new(&bytes).unwrap());
    assert_eq!(ends(&nbft), [("192.0.2.2".to_owned(), 1)]);
    let [rejected] = &nbft.tables[0].rejected[..] else { panic!() };
    assert_eq!(rejected.what, "SSNS 1");
    assert_eq!(rejected.why.to_string(), "its transport address lies outside of the heap");
}

#[test]
fn security_fails_closed() {
    let secured = |index, flags, security| Ssns {
        index,
        flags,
        security,
        traddr: ip(&format!("192.0.2.{index}")),
        ..Ssns::default()
    };
    let profile = |index, flags| made::Security { index, flags, ..made::Security::default() };
    let table = made::Table {
        ssns: vec![
            secured(1, 5, 1),
            secured(2, 5, 2),
            secured(3, 5, 9),
            secured(4, 5, 0),
            secured(5, 1, 1),
            secured(6, 5, 3),
        ],
        security: vec![profile(1, 0x41), profile(2, 0x23), profile(3, 0x07)],
        ..made::Table::default()
    };
    let nbft = nbft(&[table]);
    let needed: Vec<_> = nbft
        .paths()
        .iter()
        .map(|path| (path.subsystem.ssns, path.security.unwrap().key_needed(), path.security.unwrap().to_string()))
        .collect();
    let expected = [
        (1, true, "TLS required".to_owned()),
        (2, false, "nothing required".to_owned()),
        (5, true, "TLS required".to_owned()),
        (6, true, "authentication required".to_owned()),
    ];
    assert_eq!(needed, expected);
    let rejected = reasons(&nbft.tables[0]);
    assert_eq!(
        rejected,
        [("SSNS 3".into(), Reason::NoSecurityProfile(9)), ("SSNS 4".into(), Reason::NoSecurityProfile(0))]
    );
}

#[test]
fn of_one_path_the_stricter_profile_counts() {
    let secured = |index, flags, security| Ssns { index, flags, security, ..Ssns::default() };
    let profile = |index, flags| made::Security { index, flags, ..made::Security::default() };
    for order in [[0, 1, 2], [1, 2, 0], [2, 1, 0], [1, 0, 2]] {
        let all = [secured(1, 1, 0), secured(2, 5, 1), secured(3, 5, 2)];
        let table = made::Table {
            ssns: order.map(|at: usize| all[at].clone()).to_vec(),
            security: vec![profile(1, 0x21), profile(2, 0x41)],
            ..made::Table::default()
        };
        let nbft = nbft(&[table]);
        let [path] = &nbft.paths()[..] else { panic!() };
        assert!(path.security.unwrap().key_needed(), "{order:?}");
    }
}

#[test]
fn a_discovery_controller_is_asked_only_when_nothing_came_of_it() {
    let discovery = |index, uri: &str| made::Discovery {
        index,
        uri: uri.to_owned(),
        nqn: String::new(),
        ..made::Discovery::default()
    };
    let table = |ssns| made::Table {
        ssns,
        discovery: vec![discovery(1, "nvme+tcp://192.0.2.1/"), discovery(2, "nvme+tcp://[2001:db8::1]:4420/")],
        ..made::Table::default()
    };
    let asked = |nbft: &Nbft| -> Vec<(String, u16)> {
        nbft.discovery_controllers().map(|(_, _, discovery)| (discovery.traddr.clone(), discovery.trsvcid)).collect()
    };
    let found = Ssns { discovery: 1, ..Ssns::default() };
    assert_eq!(asked(&nbft(&[table(vec![found.clone()])])), [("2001:db8::1".to_owned(), 4420)]);

    // A boot attempt that found nothing.
    let attempt = Ssns { nqn: DISCOVERY_NQN.to_owned(), discovery: 2, ..Ssns::default() };
    let both = nbft(&[table(vec![attempt])]);
    assert_eq!(asked(&both), [("192.0.2.1".to_owned(), 8009), ("2001:db8::1".to_owned(), 4420)]);
    assert_eq!(reasons(&both.tables[0]), [("SSNS 1".to_owned(), Reason::DiscoveryNqn)]);
    assert!(both.paths().is_empty());
    assert_eq!(both.tables[0].discovery[0].subsysnqn, DISCOVERY_NQN);

    // Discovery is no way around security.
    let unresolved = Ssns { flags: 5, security: 9, ..found.clone() };
    assert_eq!(asked(&nbft(&[table(vec![unresolved])])).len(), 1);
    // It is one around an SSNS that leads nowhere.
    assert_eq!(asked(&nbft(&[table(vec![Ssns { hfi: 8, ..found }])])).len(), 2);
}

#[test]
fn discovery_addresses() {
    for (uri, expected) in [
        ("nvme+tcp://192.0.2.1:4420/", Some(("192.0.2.1", 4420))),
        ("NVME+TCP://192.0.2.1", Some(("192.0.2.1", 8009))),
        ("nvme+tcp://[2001:DB8::1]:8009/nqn.x", Some(("2001:db8::1", 8009))),
        ("nvme+tcp://[2001:db8::1]", Some(("2001:db8::1", 8009))),
        ("nvme+tcp://dc.example:4420?x", Some(("dc.example", 4420))),
        ("nvme+rdma://192.0.2.1", None),
        ("nvme+tcp:192.0.2.1", None),
        ("nvme+tcp://", None),
        ("nvme+tcp://user@192.0.2.1", None),
        ("nvme+tcp://192.0.2.1:", None),
        ("nvme+tcp://192.0.2.1:+1", None),
        ("nvme+tcp://192.0.2.1:65536", None),
        ("nvme+tcp://2001:db8::1", None),
        ("nvme+tcp://[2001:db8::1]4420", None),
        ("nvme+tcp://[dc.example]", None),
        ("nvme+tcp://0.0.0.0", None),
        ("nvme+tcp://1.2.3", None),
        ("nvme+tcp://a,nqn=b", None),
    ] {
        let expected = expected.map(|(host, port)| (host.to_owned(), port));
        assert_eq!(build::parse_uri(uri), expected, "{uri}");
    }
}

#[test]
fn the_table_that_says_so_names_the_host() {
    let table = |flags, nqn: &str| {
        let host = made::Host { flags, nqn: nqn.to_owned(), ..made::Host::default() };
        made::Table { host, ..made::Table::default() }
    };
    let name = |tables: &[made::Table]| nbft(tables).host().map(|host| host.nqn.clone());
    assert_eq!(name(&[table(1, "nqn.a"), table(1, "nqn.b")]).as_deref(), Some("nqn.a"));
    assert_eq!(name(&[table(1, "nqn.a"), table(1 | 16, "nqn.b")]).as_deref(), Some("nqn.b"));
    assert_eq!(name(&[table(1 | 8, "nqn.a"), table(1, "nqn.b")]).as_deref(), Some("nqn.b"));
    assert_eq!(name(&[table(1 | 8, "nqn.a")]).as_deref(), Some("nqn.a"));
    assert_eq!(name(&[table(0, "nqn.a")]), None);
    let odd = nbft(&[table(1, "iqn.a")]);
    assert_eq!((odd.host(), odd.tables[0].rejected.len(), odd.paths().len()), (None, 1, 1));
    // Each path is connected as who its own table says.
    let two = nbft(&[table(1, "nqn.a"), table(1, "nqn.b")]);
    assert_eq!(two.paths().iter().map(|path| &*path.host.unwrap().nqn).collect::<Vec<_>>(), ["nqn.a", "nqn.b"]);

    let host = only(made::Table::default()).host.unwrap();
    assert_eq!(host.id.as_deref(), Some("a1b2c3d4-e5f6-4708-890a-0b0c0d0e0f10"));
    assert!(host.id_configured && host.nqn_configured);
    let nobody = made::Host { id: [0xff; 16], ..made::Host::default() };
    assert_eq!(only(made::Table { host: nobody, ..made::Table::default() }).host.unwrap().id, None);
}

#[test]
fn what_the_firmware_saw_is_told() {
    let ssns = |diagnostics| Ssns {
        flags: 1 | 2 | 64 | 256,
        extended: Some(Extended {
            cntlid: 7,
            asqsz: 64,
            dhcp_root_path: Some("nvme+tcp://192.0.2.1/".to_owned()),
            diagnostics,
        }),
        ..Ssns::default()
    };
    let told = |diagnostics| only(with_ssns(vec![ssns(diagnostics)])).subsystems.remove(0);
    let subsystem = told(Some([2, 0, 30, 0, 3]));
    assert!(subsystem.unavailable && subsystem.non_bootable && subsystem.discovered);
    assert_eq!((subsystem.cntlid, subsystem.asqsz), (Some(7), Some(64)));
    assert_eq!(subsystem.dhcp_root_path.as_deref(), Some("nvme+tcp://192.0.2.1/"));
    assert_eq!(subsystem.diagnostics, ["connection failure", "connection refused", "waited 30 s"]);
    assert_eq!(told(Some([0xee, 9, 0xff, 0xff, 0])).diagnostics, ["availability code 238", "connect code 9"]);
    assert!(told(Some([0, 0, 30, 0, 0])).diagnostics.is_empty() && told(None).diagnostics.is_empty());
}

#[test]
fn namespaces_are_spelled_as_the_kernel_does() {
    let wwid =
        |nidt| only(with_ssns(vec![Ssns { nidt, nsid: 0, ..Ssns::default() }])).subsystems.remove(0).namespace.wwid;
    assert_eq!(wwid(1).as_deref(), Some("eui.abababababababab"));
    assert_eq!(wwid(2).as_deref(), Some("eui.abababababababababababababababab"));
    assert_eq!((wwid(0), wwid(9)), (None, None));
    let nothing = Ssns { nid: [0; 16], nsid: 0, ..Ssns::default() };
    assert_eq!(only(with_ssns(vec![nothing])).subsystems[0].namespace, Namespace { nsid: None, wwid: None });
}
