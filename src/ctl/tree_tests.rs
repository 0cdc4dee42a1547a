use super::*;

/// `nvme0` to `nvme8` are live, `nvme9` reconnects; `nvme1` and `nvme2` lead to a subsystem with two disks.
struct Fake;

impl Kernel for Fake {
    fn state(&self, device: &str) -> Option<String> {
        let state = if device == "nvme9" { "connecting" } else { "live" };
        (device != NO_DEVICE).then(|| state.to_owned())
    }

    fn namespaces(&self, device: &str) -> Vec<String> {
        let names: &[&str] = if ["nvme1", "nvme2"].contains(&device) { &["nvme1n1", "nvme1n2"] } else { &[] };
        names.iter().map(|name| (*name).to_owned()).collect()
    }
}

const INFO: &str = r#"{"hostnqn": "nqn.h", "hostid": "i", "symname": null}"#;
const PAGES: &str = r#"[
    {"discovery-controller": {"transport": "tcp", "traddr": "192.0.2.1", "trsvcid": "8009",
        "subsysnqn": "nqn.2014-08.org.nvmexpress.discovery", "host-traddr": "", "host-iface": "eth0", "host-nqn": "",
        "device": "nvme0", "connect attempts": "0", "origin": "configured", "log page": "fresh"},
     "log-pages": [
        {"trtype": "tcp", "traddr": "192.0.2.1", "trsvcid": "8009", "subnqn": "nqn.d", "subtype": "discovery"},
        {"trtype": "tcp", "traddr": "192.0.2.1", "trsvcid": "4420", "subnqn": "nqn.a", "subtype": "nvme"},
        {"trtype": "tcp", "traddr": "::ffff:192.0.2.2", "trsvcid": "4420", "subnqn": "nqn.a", "subtype": "nvme"},
        {"trtype": "tcp", "traddr": "192.0.2.1", "trsvcid": "4420", "subnqn": "nqn.b", "subtype": "nvme"},
        {"trtype": "tcp", "traddr": "192.0.2.1", "trsvcid": "4420", "subnqn": "nqn.b", "subtype": "nvme"}]},
    {"discovery-controller": {"transport": "tcp", "traddr": "fe80::1%eth1", "trsvcid": "8009", "subsysnqn": "nqn.u",
        "device": "nvme?", "connect attempts": "3", "last failure": "nothing listens", "origin": "referral", "log page": "none"}, "log-pages": []}]"#;

fn paths() -> Vec<Pairs> {
    let path = |device: &str, traddr: &str, nqn: &str, iface: &str| {
        let pairs = [
            ("transport", "tcp"),
            ("traddr", traddr),
            ("trsvcid", "4420"),
            ("subsysnqn", nqn),
            ("host-iface", iface),
            ("device", device),
            ("connect attempts", "1"),
        ];
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    vec![
        path("nvme1", "192.0.2.1", "nqn.a", "eth0"),
        path("nvme2", "192.0.2.2", "nqn.a", "eth0"),
        path("nvme9", "192.0.2.9", "nqn.c", ""),
        path("nvme?", "192.0.2.8", "nqn.c", ""),
    ]
}

fn tree(paths: Option<&[Pairs]>) -> Tree {
    build(&Json::parse(INFO).unwrap(), &Json::parse(PAGES).unwrap(), paths, &Fake)
}

#[test]
fn paths_hang_below_who_lists_them() {
    let expected = "\
host nqn.h
├─ nvme0 tcp 192.0.2.1:8009 on eth0  live, configured, 5 entries
│  ├─ nqn.a  nvme1n1 nvme1n2
│  │  ├─ nvme1 tcp 192.0.2.1:4420 on eth0  live
│  │  └─ nvme2 tcp 192.0.2.2:4420 on eth0  live
│  └─ nqn.b
│     └─ nvme? tcp 192.0.2.1:4420 on eth0  not wanted
├─ nvme? tcp [fe80::1%eth1]:8009 nqn.u  not connected, 3 attempts failed, referral, no log page yet: nothing listens
└─ not listed by a discovery controller
   └─ nqn.c
      ├─ nvme9 tcp 192.0.2.9:4420  connecting
      └─ nvme? tcp 192.0.2.8:4420  not connected, 1 attempt failed
";
    assert_eq!(tree(Some(&paths())).text(Lines::Unicode), expected);
    let ascii = tree(Some(&paths())).text(Lines::Ascii);
    assert!(ascii.is_ascii() && ascii.contains("|  `- nqn.b\n|     `- nvme?"), "{ascii}");
}

#[test]
fn one_daemon_may_be_away() {
    let without_connector = tree(None).text(Lines::Ascii);
    assert!(without_connector.contains("nvme? tcp 192.0.2.1:4420 on eth0  unknown\n"), "{without_connector}");
    let without_finder = build(&Json::parse(INFO).unwrap(), &Json::List(vec![]), Some(&paths()), &Fake);
    assert_eq!(without_finder.discovery_controllers, []);
    assert_eq!(without_finder.not_listed.len(), 2);
}

#[test]
fn json_has_the_keys_of_the_bus() {
    let json: serde_json::Value = serde_json::from_str(&tree(Some(&paths())).json()).unwrap();
    let controller = &json["discovery-controllers"][0];
    assert_eq!(controller["host-iface"], "eth0");
    assert_eq!(controller["subsystems"][0]["paths"][1]["device"], "nvme2");
    assert_eq!(controller["subsystems"][0]["namespaces"][1], "nvme1n2");
    assert_eq!(json["host"]["hostnqn"], "nqn.h");
    assert_eq!(json["unreachable"], serde_json::json!([]));
}

#[test]
fn disks_are_told_from_paths() {
    assert!(is_namespace("nvme10n2"));
    for other in ["nvme1", "nvme1c1n1", "nvme1n", "ng1n1", "nvme1n1p1"] {
        assert!(!is_namespace(other), "{other}");
    }
}

#[test]
fn what_is_kept_says_why() {
    let mut paths = paths();
    paths[2].push(("kept".to_owned(), "/dev/nvme9n1 is mounted on /data".to_owned()));
    let tree = tree(Some(&paths));
    assert!(tree.text(Lines::Unicode).contains("192.0.2.9:4420  connecting, kept: /dev/nvme9n1 is mounted on /data\n"));
    assert_eq!(tree.json().matches(r#""kept":"/dev"#).count(), 1);
}

#[test]
fn what_is_not_connected_says_why() {
    let mut paths = paths();
    paths[3].push((FAILURE_KEY.to_owned(), "out of\x1b[1m memory".to_owned()));
    let tree = tree(Some(&paths));
    let expected = "192.0.2.8:4420  not connected, 1 attempt failed: out of?[1m memory\n";
    assert!(tree.text(Lines::Unicode).contains(expected), "{}", tree.text(Lines::Unicode));
    assert_eq!(tree.json().matches("\"last-failure\":").count(), 2);
}

#[test]
fn an_empty_tree_says_why() {
    let nothing = build(&Json::parse(INFO).unwrap(), &Json::List(vec![]), Some(&[]), &Fake).text(Lines::Ascii);
    assert!(
        nothing.ends_with("`- no controllers: none is configured, announced, or asked for by the firmware\n"),
        "{nothing}"
    );
}
