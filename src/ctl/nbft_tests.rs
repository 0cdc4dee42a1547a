use super::*;

use crate::wire::nbft::made::{self, Extended, Hfi, Ssns, ip};

fn parsed(line: &str) -> Result<Request, String> {
    parse(line.split_ascii_whitespace().map(OsString::from).collect())
}

#[test]
fn command_lines() {
    assert_eq!(parsed(""), Ok(Request::Show { json: false, files: vec![] }));
    let files = vec!["a".into(), "b".into()];
    assert_eq!(parsed("-f a -o json --file=b"), Ok(Request::Show { json: true, files }));
    assert_eq!(parsed("--help"), Ok(Request::Help));
    for line in ["a", "-f", "-o xml", "--all"] {
        assert!(parsed(line).is_err(), "{line}");
    }
}

fn everything() -> made::Table {
    made::Table {
        minor_revision: 1,
        hfis: vec![
            Hfi {
                gateway: ip("192.0.2.254"),
                route_metric: 500,
                dns: [ip("192.0.2.53"), ip("192.0.2.54")],
                ..Hfi::default()
            },
            Hfi {
                index: 2,
                vlan: 100,
                flags: 5,
                dhcp_server: ip("192.0.2.67"),
                address: made::NO_ADDRESS,
                ..Hfi::default()
            },
        ],
        ssns: vec![
            Ssns { secondary_hfis: vec![2], discovery: 1, ..Ssns::default() },
            Ssns {
                index: 2,
                flags: 1 | 4 | 256,
                security: 1,
                trflags: 7,
                traddr: ip("2001:db8::1"),
                extended: Some(Extended { diagnostics: Some([5, 0, 30, 0, 0]), ..Extended::default() }),
                ..Ssns::default()
            },
            Ssns { index: 3, hfi: 7, ..Ssns::default() },
        ],
        security: vec![made::Security { keypath: "/redfish/v1".to_owned(), ..made::Security::default() }],
        discovery: vec![made::Discovery::default()],
        ..made::Table::default()
    }
}

#[test]
fn a_table_for_people() {
    let found = found(vec![("NBFT".to_owned(), Ok(everything().bytes()))]);
    let expected = "\
NBFT  revision 1.1  STAS TABLE
  host NQN  nqn.2014-08.org.nvmexpress:uuid:a1b2c3d4-e5f6-4708-890a-0b0c0d0e0f10 (configured)
  host id   a1b2c3d4-e5f6-4708-890a-0b0c0d0e0f10 (configured)
  HFI  MAC                VLAN  ADDRESS        FROM             GATEWAY                 DNS                    PCI
  1    52:54:00:00:00:01        192.0.2.10/24  static           192.0.2.254 metric 500  192.0.2.53,192.0.2.54  0000:00:05.0
  2    52:54:00:00:00:01  100                  DHCP 192.0.2.67                                                 0000:00:05.0
  SSNS  HFI  TRADDR       TRSVCID  SUBSYSNQN                 NAMESPACE
  1     1,2  192.0.2.1    4420     nqn.2026-01.example:root  1 uuid.abababab-abab-abab-abab-abababababab
  2     1    2001:db8::1  4420     nqn.2026-01.example:root  1 uuid.abababab-abab-abab-abab-abababababab
  DISCOVERY  HFI  TRADDR     TRSVCID  SUBSYSNQN
  1          1    192.0.2.1  8009     nqn.2014-08.org.nvmexpress.discovery
  SSNS 2: the firmware could not use it (connection timeout, waited 30 s); security profile 1: TLS and authentication required, \
not connected without a key, which the firmware has from /redfish/v1; header digest; data digest
  discovery 1: its subsystems are above, it is not asked again
  SSNS 3 is not used: no usable HFI has the index 7 that it refers to
";
    assert_eq!(table_text(&found.nbft.tables[0]), expected);
}

#[test]
fn tables_for_programs() {
    let tables = vec![
        ("NBFT1".to_owned(), Ok(everything().bytes())),
        ("NBFT2".to_owned(), Ok(b"NBFT".to_vec())),
        ("NBFT3".to_owned(), Err(ErrorKind::PermissionDenied.into())),
    ];
    let found: serde_json::Value = serde_json::from_str(&serde_json::to_string(&found(tables)).unwrap()).unwrap();
    let table = &found["tables"][0];
    assert_eq!(table["subsystems"][0]["hfis"], serde_json::json!([1, 2]));
    assert_eq!(table["subsystems"][1]["traddr"], "2001:db8::1");
    assert_eq!(table["subsystems"][1]["security"]["tls"], "required");
    assert_eq!(table["interfaces"][1]["mac"], "52:54:00:00:00:01");
    assert_eq!(table["interfaces"][1]["origin"], "dhcp");
    assert_eq!(table["discovery"][0]["referenced"], true);
    assert_eq!(table["rejected"][0]["what"], "SSNS 3");
    assert_eq!(found["damaged"][0]["name"], "NBFT2");
    assert!(found["damaged"][1]["why"].as_str().unwrap().contains("run this as root"));
}

#[test]
fn help_fits_a_terminal() {
    assert!(HELP.lines().all(|line| line.len() <= 80 && line.trim_end() == line));
}
