//! Whole files, as the daemons read them.

use std::path::Path;
use std::time::Duration;

use super::scratch::Scratch;
use super::settings::*;
use super::*;
use crate::core::tid::{DISCOVERY_NQN, Transport};

const SECRET: &str = "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";

fn finder(text: &str) -> Result<Loaded<FinderSettings>, Vec<Finding>> {
    parse_finder(text, Path::new("stafd.conf"))
}

fn connector(text: &str) -> Result<Loaded<ConnectorSettings>, Vec<Finding>> {
    parse_connector(text, Path::new("stacd.conf"))
}

fn clean<S>(result: Result<Loaded<S>, Vec<Finding>>) -> S {
    let loaded = result.map_err(|findings| panic!("{findings:#?}")).unwrap_or_else(|()| unreachable!());
    assert_eq!(loaded.findings, []);
    loaded.settings
}

fn told(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(Finding::to_string).collect()
}

// ---- nvme-stas files ----

/// Every key that nvme-stas 2.4 has.
const INI_STAFD: &str = "
[Global]
tron=true
hdr-digest=true
data-digest=false
kato=40
queue-size=256
reconnect-delay=5
ctrl-loss-tmo=-1
disable-sqflow=true
ignore-iface=true
ip-family=ipv6
pleo=disabled
[Service Discovery]
zeroconf=disabled
[Discovery controller connection management]
persistent-connections=false
zeroconf-connections-persistence=3 days 5 hours
[Controllers]
controller = transport=tcp;traddr=localhost;trsvcid=8009
controller = transport=tcp;traddr=2001:db8::370:7334;host-iface=enp0s8;kato=7;dhchap-secret=SECRET
controller = transport=rdma;traddr=192.0.2.1;nqn=nqn.2020-01.example:dc;host-traddr=192.0.2.2
exclude = transport=tcp;traddr=FE80::2C6E:dee7:857:26bb # this address
exclude = host-iface=enp0s8
";

#[test]
fn a_finder_file_of_nvme_stas_is_understood() {
    let loaded = finder(&INI_STAFD.replace("SECRET", SECRET)).unwrap();
    assert_eq!(told(&loaded.findings), ["stafd.conf:23: exclude: what follows # is taken as a comment"]);
    let settings = loaded.settings;
    assert!(!settings.pleo && !settings.zeroconf && !settings.persistent_connections);
    assert_eq!(settings.zeroconf_persistence, Persistence::For(Duration::from_secs(77 * 3600)));
    let common = &settings.common;
    assert!(common.tron && common.ignore_iface);
    assert_eq!(common.ip_family, IpFamily::Ipv6);
    let expected = ConnectOptions {
        hdr_digest: Some(true),
        data_digest: Some(false),
        kato: Some(40),
        queue_size: Some(256),
        reconnect_delay: Some(5),
        ctrl_loss_tmo: Some(-1),
        disable_sqflow: Some(true),
        ..ConnectOptions::default()
    };
    assert_eq!(common.options, expected);
    let [by_name, by_address, rdma] = common.controllers.as_slice() else { panic!("{common:?}") };
    assert_eq!((by_name.traddr.as_str(), by_name.subsysnqn.as_str()), ("localhost", DISCOVERY_NQN));
    assert_eq!((by_address.trsvcid.as_str(), by_address.options.kato), ("8009", Some(7)));
    assert_eq!(by_address.options.dhchap_secret.as_ref().unwrap().reveal(), SECRET);
    assert_eq!((rdma.trsvcid.as_str(), rdma.subsysnqn.as_str()), ("4420", "nqn.2020-01.example:dc"));
    assert_eq!(common.exclusions[0].traddr, "fe80::2c6e:dee7:857:26bb");
    assert_eq!(common.exclusions[1], Exclusion { host_iface: "enp0s8".into(), ..Exclusion::default() });
}

#[test]
fn a_connector_file_of_nvme_stas_is_understood() {
    let settings = clean(connector(
        "[Global]\nnr-io-queues=8\nnr-write-queues=6\nnr-poll-queues=4\n[I/O controller connection management]\n\
         disconnect-scope=all-connections-matching-disconnect-trtypes\ndisconnect-trtypes=tcp+rdma+fc\n\
         connect-attempts-on-ncc=1\n[Controllers]\ncontroller=transport=loop;nqn=klingons\n\
         controller=transport=fc;traddr=nn-0x204600A098CBCAC6:pn-0x204700a098cbcac6;nqn=nqn.x;host-traddr=\
         nn-0x20000090fa942779:pn-0x10000090fa942779;nr-io-queues=2;hdr-digest=True\n",
    ));
    assert_eq!(settings.connect_attempts_on_ncc, Some(2));
    assert_eq!(settings.disconnect_trtypes, [Transport::Tcp, Transport::Rdma, Transport::Fc]);
    assert_eq!(settings.disconnect_scope, DisconnectScope::AllConnectionsMatchingDisconnectTrtypes);
    assert_eq!(settings.common.options.nr_poll_queues, Some(4));
    assert_eq!(settings.common.controllers.len(), 2);
    assert_eq!(settings.common.controllers[1].options.nr_io_queues, Some(2));
}

#[test]
fn a_mistake_in_ini_costs_only_itself() {
    let loaded = connector(
        "[Global]\ntron=maybe\nkato\nqueue-size=5\npleo=enabled\n[Controllers]\ncontroller=\n\
         controller=transport=pcie;traddr=1.2.3.4;nqn=nqn.x\ncontroller=transport=tcp;traddr=1.2.3.4;trsvcid=4420\n\
         controller=transport=tcp;traddr=1.2.3.4;nqn=nqn.ok;trsvcid=4420;kato=x;colour=red\n\
         controller=transport=tcp;traddr=1.2.3.4;nqn=nqn.y;trsvcid=4420;dhchap-ctrl-secret=hunter2\n\
         exclude=\nexclude=host-iface=eth0;colour=red\nexclude=host-traddr=1.2.3.4\n",
    )
    .unwrap();
    let common = loaded.settings.common;
    assert_eq!(common.options, ConnectOptions::default());
    assert_eq!(common.controllers.iter().map(|c| c.subsysnqn.as_str()).collect::<Vec<_>>(), ["nqn.ok"]);
    assert_eq!(common.exclusions, []);
    let told = told(&loaded.findings);
    let lines: Vec<_> = loaded.findings.iter().map(|finding| finding.line.unwrap()).collect();
    // The ones without a value are how nvme-stas shows that there are none.
    assert_eq!(lines, [2, 3, 4, 5, 8, 8, 9, 10, 10, 11, 11, 13, 13, 14, 14], "{told:#?}");
    assert_eq!(told[0], r#"stacd.conf:2: tron: "maybe" is not a boolean; accepted: true, false"#);
    assert_eq!(told[2], "stacd.conf:4: queue-size: 5 is out of range; accepted: 16 to 1024");
    assert_eq!(told[3], r#"stacd.conf:5: unknown key "pleo" in [Global], ignored"#);
    assert!(told.iter().all(|finding| !finding.contains("hunter2")), "{told:#?}");
}

// ---- TOML ----

#[test]
fn toml_means_the_same_as_ini() {
    let toml = format!(
        "tron = true\nhdr-digest = true\ndata-digest = false\nkato = 40\nqueue-size = 256\nreconnect-delay = 5\n\
         ctrl-loss-tmo = -1\ndisable-sqflow = true\nignore-iface = true\nip-family = 'ipv6'\npleo = false\n\
         zeroconf = 'disabled'\npersistent-connections = false\n\
         zeroconf-connections-persistence = '3 days 5 hours'\n\
         [[controller]]\ntransport = 'tcp'\ntraddr = 'localhost'\ntrsvcid = 8009\n\
         [[controller]]\ntransport = 'tcp'\ntraddr = '2001:db8::370:7334'\nhost-iface = 'enp0s8'\nkato = 7\n\
         dhchap-secret = '{SECRET}'\n\
         [[controller]]\ntransport = 'rdma'\ntraddr = '192.0.2.1'\nsubsysnqn = 'nqn.2020-01.example:dc'\n\
         host-traddr = '192.0.2.2'\n\
         [[exclude]]\ntransport = 'tcp'\ntraddr = 'fe80::2c6e:dee7:857:26bb'\n[[exclude]]\nhost-iface = 'enp0s8'\n"
    );
    let ini = finder(&INI_STAFD.replace("SECRET", SECRET)).unwrap().settings;
    assert_eq!(clean(finder(&toml)), ini);
}

#[test]
fn every_mistake_in_toml_is_an_error_and_all_are_told() {
    let findings = finder(
        "colour = 'red'\ntron = 'true'\nkato = 1.5\ncontroller-x = []\nnr-io-queues = 4\n[[controller]]\n\
         transport = 'tcp'\ntraddr = '192.0.2.300'\n[[controller]]\ntransport = 'carrier pigeon'\npleo = true\n\
         [[exclude]]\n",
    )
    .unwrap_err();
    assert!(findings.iter().all(|finding| finding.severity == Severity::Error));
    let told = told(&findings);
    for (line, words) in [
        (1, "unknown key \"colour\"; accepted: tron, "),
        (2, "tron: \"true\" is not a boolean; accepted: true, false"),
        (3, "kato: a number with a fraction is not an integer"),
        (4, "unknown key \"controller-x\""),
        (5, "\"nr-io-queues\" belongs into a table, below [[controller]]"),
        (6, "traddr: \"192.0.2.300\" is not an address of a controller; accepted: an IPv4"),
        (10, "transport: \"carrier pigeon\" is not a transport; accepted: tcp, rdma, fc, loop"),
        (11, "top-level keys stand before the first table"),
        (12, "is empty and excludes nothing"),
    ] {
        let place = format!("stafd.conf:{line}: ");
        assert!(told.iter().any(|finding| finding.starts_with(&place) && finding.contains(words)), "{line} {told:#?}");
    }
}

#[test]
fn a_controller_that_is_no_table_is_an_error() {
    for text in ["exclude = []", "exclude = 'host-iface=eth0'", "exclude = [1, {}]"] {
        let findings = finder(text).unwrap_err();
        assert_eq!(
            told(&findings),
            ["stafd.conf:1: exclude: is not a table; accepted: [[exclude]] with its keys below"]
        );
    }
}

#[test]
fn an_io_controller_on_the_discovery_port_is_questioned() {
    let loaded = connector("[[controller]]\ntransport='tcp'\ntraddr='array1'\nnqn='nqn.x'\n").unwrap();
    assert_eq!(loaded.settings.common.controllers[0].trsvcid, "8009");
    assert_eq!(loaded.findings[0].severity, Severity::Info, "no reload is refused for that");
}

#[test]
fn what_cannot_be_connected_is_refused() {
    for (keys, complaint) in [
        ("transport='tcp'", "traddr is missing"),
        ("traddr='192.0.2.1'", "transport is missing"),
        ("transport='tcp'\ntraddr='0.0.0.0'", "not an address"),
        ("transport='tcp'\ntraddr='[::1]'", "without brackets"),
        ("transport='tcp'\ntraddr='-_-.1'", "not an address"),
        ("transport='tcp'\ntraddr='a..b'", "not an address"),
        ("transport='tcp'\ntraddr='a,host_iface=x'", "comma"),
        ("transport='tcp'\ntraddr='a'\ntrsvcid=0", "out of range"),
        ("transport='tcp'\ntraddr='a'\ntrsvcid='http'", "not a port"),
        ("transport='tcp'\ntraddr='a'\nhost-traddr='b'", "host-traddr"),
        ("transport='tcp'\ntraddr='a'\nhost-iface='an-interface-too-long'", "interface"),
        ("transport='tcp'\ntraddr='a'\ntls-key='NVMeTLSkey-1:01:xyz:'", "serial number"),
        ("transport='fc'\ntraddr='192.0.2.1'", "nn-0x"),
        ("transport='fc'\ntraddr='nn-0x1:pn-0x2'", "host-traddr is missing"),
    ] {
        let findings = finder(&format!("[[controller]]\n{keys}\n")).unwrap_err();
        assert!(told(&findings).iter().any(|finding| finding.contains(complaint)), "{keys}: {findings:#?}");
    }
}

// ---- Hostile files ----

#[test]
fn hostile_text_is_survived() {
    let long = "x".repeat(1 << 20);
    for section in ["", "[Global]\n", "[Controllers]\ncontroller=", "[Controllers]\nexclude=", "[Host]\nnqn="] {
        for body in [
            "\0".repeat(1000),
            long.clone(),
            "[".repeat(100_000),
            "=".repeat(100_000),
            "a=1;".repeat(100_000),
            "\n \n\t=\n".repeat(10_000),
            "x=1\n".repeat(100_000),
            "\u{2028}\u{85}\r\r\n".repeat(1000),
            "traddr=\u{0}\u{7f}é# ; #;transport=".to_owned(),
        ] {
            let text = format!("{section}{body}");
            for findings in [
                finder(&text).map_or_else(|findings| findings, |loaded| loaded.findings),
                connector(&text).map_or_else(|findings| findings, |loaded| loaded.findings),
                parse_identity(&text, Path::new("x")).map_or_else(|findings| findings, |loaded| loaded.findings),
            ] {
                assert!(findings.len() <= 102);
                for line in told(&findings) {
                    assert!(line.len() < 1500 && !line.contains(char::is_control), "{line:?}");
                }
            }
        }
    }
}

#[test]
fn files_that_cannot_be_used_are_told_apart() {
    let scratch = Scratch::new();
    let missing = load_finder(&scratch.join("nothing")).unwrap();
    assert_eq!(missing.settings, FinderSettings::default());
    assert_eq!(missing.findings[0].severity, Severity::Info);

    let large = scratch.file("large", vec![b'#'; 1 << 20 | 1], 0o644);
    assert!(told(&load_finder(&large).unwrap_err())[0].ends_with("cannot be read: larger than 1024 KiB"));
    assert!(load_connector(&scratch).is_err(), "a directory");

    let toml = scratch.file("toml", b"# a\n# \xff\n", 0o644);
    assert_eq!(load_finder(&toml).unwrap_err()[0].line, Some(2));
    let ini = scratch.file("ini", b"[Global]\n# \xff\ntron=true\n", 0o644);
    let loaded = load_finder(&ini).unwrap();
    assert!(loaded.settings.common.tron);
    assert_eq!(loaded.findings[0].line, Some(2));
    let marked = scratch.file("marked", b"\xef\xbb\xbf[Global]\ntron=true\n", 0o644);
    assert!(clean(load_finder(&marked)).common.tron);
}

#[test]
fn a_secret_that_others_can_read_is_refused_in_toml_and_bemoaned_in_ini() {
    let scratch = Scratch::new();
    let toml = format!("[[controller]]\ntransport='tcp'\ntraddr='a'\ndhchap-secret='{SECRET}'\n");
    let ini = format!("[Controllers]\ncontroller=transport=tcp;traddr=a;dhchap-secret={SECRET}\n");
    let findings = load_finder(&scratch.file("toml", &toml, 0o644)).unwrap_err();
    assert!(findings[0].message.contains("chmod 600"), "{findings:?}");
    let loaded = load_finder(&scratch.file("ini", &ini, 0o644)).unwrap();
    assert_eq!(loaded.settings.common.controllers.len(), 1);
    assert!(loaded.findings[0].message.contains("chmod 600"), "{:?}", loaded.findings);
    clean(load_finder(&scratch.file("toml", &toml, 0o600)));
    clean(load_finder(&scratch.file("ini", &ini, 0o600)));
}

// ---- Identity ----

const NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:9aae2691-b275-4b64-8bfe-5da429a2bab9";
const ID: &str = "56529E15-0f3e-4ede-87e2-63932a4adb99";

#[test]
fn identity_comes_from_values_or_files_in_both_syntaxes() {
    let scratch = Scratch::new();
    let nqn = scratch.file("hostnqn", format!("\n {NQN} second\n"), 0o644);
    let key = scratch.file("hostkey", format!("{SECRET}\n"), 0o600);
    let (nqn, key) = (nqn.display(), key.display());
    let ini = format!("[Host]\nnqn=file://{nqn}\nid={ID}\nkey=file://{key}\nsymname=Bart Simpson\n");
    let toml = format!("nqn='file://{nqn}'\nid='{ID}'\nkey='file://{key}'\nsymname='Bart Simpson'\n");
    let expected = HostIdentity {
        nqn: NQN.to_owned(),
        id: ID.to_lowercase(),
        key: Some(Secret::new(format!("file://{key}"))),
        symname: Some("Bart Simpson".to_owned()),
    };
    for text in [ini, toml] {
        assert_eq!(clean(load_identity(&scratch.file("sys.conf", text, 0o644))), expected);
    }
}

#[test]
fn a_missing_or_impossible_identity_is_explained() {
    let scratch = Scratch::new();
    let nothing = scratch.join("nothing").display().to_string();
    let refused = |nqn: &str, id: &str| {
        let text = format!("nqn='{nqn}'\nid='{id}'\nkey='file://{nothing}'\n");
        told(&load_identity(&scratch.file("sys.conf", text, 0o600)).unwrap_err())
    };
    let told = refused(&format!("file://{nothing}"), &format!("file://{nothing}"));
    assert!(told[0].contains(":1: nqn: ") && told[0].contains(&format!("`stasadm hostnqn -f {nothing}`")), "{told:#?}");
    assert!(told[1].contains(":2: id: ") && told[1].contains("`stasadm hostid -f"), "{told:#?}");
    for nqn in ["qnq.x", &format!("nqn.{}", "x".repeat(220)), "nqn.x,tls", "nqn.x y"] {
        assert!(refused(nqn, ID)[0].contains("host NQN"), "{nqn}");
    }
    let broken = scratch.file("broken.conf", "nqn = \n", 0o600);
    assert_eq!(load_identity(&broken).unwrap_err().len(), 1, "only the syntax is at fault");
    let zero = "00000000-0000-0000-0000-000000000000";
    for id in ["x", zero, &zero.replace('0', "F"), &ID.replace('-', "0"), &ID[1..]] {
        assert!(refused(NQN, id)[0].contains("host id"), "{id}");
    }
}

#[test]
fn a_host_key_is_used_only_if_it_is_sound_and_roots_alone() {
    let scratch = Scratch::new();
    let identity = |source: &str| {
        let text = format!("[Host]\nnqn={NQN}\nid={ID}\nkey={source}\n");
        load_identity(&scratch.file("sys.conf", text, 0o600)).unwrap()
    };
    let file = |content: &str, mode| format!("file://{}", scratch.file("hostkey", content, mode).display());
    assert!(identity(&file(SECRET, 0o600)).settings.key.is_some());
    assert!(identity(SECRET).settings.key.is_some());
    for (source, complaint) in [
        (file(SECRET, 0o644), "chmod 600"),
        (format!("file://{}/nothing", scratch.display()), "cannot read"),
        ("DHHC-1:00:hunter2:".to_owned(), "Base64"),
    ] {
        let loaded = identity(&source);
        assert_eq!(loaded.settings.key, None);
        let told = told(&loaded.findings);
        assert!(told[0].contains(complaint) && !told[0].contains("hunter2"), "{told:#?}");
    }
}

#[test]
fn a_controllers_key_may_be_in_a_file() {
    let scratch = Scratch::new();
    let load = |content: &str, mode| {
        let key = scratch.file("key", content, mode);
        let file = format!("file://{}", key.display());
        let conf = format!("[[controller]]\ntransport='tcp'\ntraddr='a'\ndhchap-secret='{file}'\n");
        let loaded = load_finder(&scratch.file("toml", conf, 0o644)).unwrap();
        let options = &loaded.settings.common.controllers[0].options;
        assert_eq!(options.dhchap_secret.as_ref().unwrap().file(), Some(&*key));
        (told(&loaded.findings), read_key(&key))
    };
    let (findings, key) = load(&format!("{SECRET}\n"), 0o600);
    assert!(findings.is_empty(), "{findings:?}");
    assert_eq!(key.unwrap().reveal(), SECRET);
    for (content, mode, complaint) in
        [(SECRET, 0o640, "chmod 600"), ("hunter2", 0o600, "malformed"), ("", 0o600, "the file is empty")]
    {
        let key = scratch.file("key", content, mode);
        nix::unistd::chown(&key, None, Some(nix::unistd::Gid::from_raw(12))).unwrap();
        let (findings, key) = load(content, mode);
        let why = key.unwrap_err();
        assert!(why.contains(complaint) && findings[0].contains(&why) && !why.contains("hunter2"), "{findings:?}");
        assert!(findings[0].contains("toml:4: "), "{findings:?}");
    }
    let relative = "[[controller]]\ntransport='tcp'\ntraddr='a'\ndhchap-secret='file://key'\n";
    let findings = load_finder(&scratch.file("toml", relative, 0o600)).unwrap_err();
    assert!(told(&findings).iter().any(|finding| finding.contains("from the root")), "{findings:?}");
}

#[test]
fn a_fifo_does_not_hang_the_reader() {
    let scratch = Scratch::new();
    let fifo = scratch.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    clean(load_finder(&fifo));
}
