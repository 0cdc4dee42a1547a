//! What the administrator and other programs of the host wrote.

use std::path::Path;

use stas::bus::address::Address;
use stas::config::settings::{Common, ControllerEntry};
use stas::config::{
    Finding, Loaded, check_id, check_symname, convert, edit, parse_connector, parse_dhchap, parse_exclusions,
    parse_finder, parse_identity, parse_source,
};
use stas::core::device::{ControllerKind, parse_sysfs_address};
use stas::core::exclusion::HostExclusion;
use stas::core::tid::{Spelling, Transport, TransportId, canonical_address, parse_ip};
use stas::helper::resolve::{ResolvConf, addresses_in};
use stas::kernel::{fabrics, in_use, registry};

use super::adds_no_option;

/// A configuration file in either syntax, as that of each daemon and as `sys.conf`; converted, and changed.
pub fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let path = Path::new("x");
    if let Some(loaded) = read(parse_finder(&text, path)) {
        controllers(&loaded.settings.common);
    }
    if let Some(loaded) = read(parse_connector(&text, path)) {
        controllers(&loaded.settings.common);
        assert!(loaded.settings.connect_attempts_on_ncc.is_none_or(|attempts| attempts >= 2));
    }
    read(parse_identity(&text, path));
    if let Ok((_, findings)) = convert(&text, path) {
        findings.iter().for_each(speaks_plainly);
    }
    for value in [None, Some("a \"name\" #1")] {
        let _ = edit(&text, path, "symname", value);
    }
}

/// What came out of a file, after a look at what is said about it.
fn read<S>(outcome: Result<Loaded<S>, Vec<Finding>>) -> Option<Loaded<S>> {
    match outcome {
        Ok(loaded) => {
            loaded.findings.iter().for_each(speaks_plainly);
            Some(loaded)
        }
        Err(findings) => {
            assert!(!findings.is_empty());
            findings.iter().for_each(speaks_plainly);
            None
        }
    }
}

fn speaks_plainly(finding: &Finding) {
    let line = finding.to_string();
    assert!(line.len() < 2000 && !line.contains(char::is_control), "{line:?}");
}

/// Whatever a file says, a controller is one that the kernel can be asked for and nothing else.
fn controllers(common: &Common) {
    for one in &common.controllers {
        assert!(!one.traddr.is_empty() && !one.subsysnqn.is_empty() && one.transport.is_ip() != one.trsvcid.is_empty());
        is_modest(one);
    }
    for exclusion in &common.exclusions {
        assert_ne!(*exclusion, Default::default());
        let transport = exclusion.transport.unwrap_or(Transport::Tcp);
        assert_eq!(canonical_address(transport, &exclusion.traddr), exclusion.traddr);
    }
}

fn is_modest(one: &ControllerEntry) {
    adds_no_option(&one.trsvcid, &one.subsysnqn, &one.traddr);
    let words = [&one.host_traddr, &one.host_iface, &one.host_nqn, &one.host_id];
    assert!(words.iter().all(|word| !word.contains([',', '\n', ' '])), "{one:?}");
    assert!(one.host_id.is_empty() || !one.host_nqn.is_empty());
}

/// The host's list of exclusions: none that gives no key, no finding that would spoil a log.
pub fn exclusions(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (exclusions, findings) = parse_exclusions(&text, Path::new("x"));
    assert!(exclusions.len() <= text.lines().count());
    for exclusion in exclusions {
        assert!(exclusion.place.starts_with("x:"));
        let keys = HostExclusion { place: String::new(), ..exclusion.clone() };
        assert_ne!(keys, HostExclusion::default());
        let tid = TransportId::new(Transport::Tcp, Spelling { traddr: &exclusion.keys.traddr, ..Spelling::default() });
        std::hint::black_box(exclusion.matches(&tid, ""));
    }
    findings.iter().for_each(speaks_plainly);
}

/// What is said about such a file.
pub fn findings_of_sources(data: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(data);
    let kinds = [ControllerKind::Discovery, ControllerKind::Io];
    let findings = kinds.into_iter().flat_map(|kind| parse_source(kind, &text, Path::new("x")).1);
    findings.map(|finding| finding.to_string()).collect()
}

/// The files of nvme-cli that name controllers: whatever they say, a controller can only be what our own files could name.
pub fn sources(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for kind in [ControllerKind::Discovery, ControllerKind::Io] {
        let (controllers, findings) = parse_source(kind, &text, Path::new("x"));
        assert!(controllers.len() <= text.lines().count());
        for one in controllers {
            is_modest(&one);
        }
        findings.iter().for_each(speaks_plainly);
    }
}

/// The small things: hosts(5), resolv.conf(5), an attribute of the registry, mountinfo of proc(5), the kernel's lists, keys, names.
pub fn host(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let is_plain = |text: &str| !text.contains(char::is_control);
    let addresses = addresses_in(&text, "array");
    assert!(addresses.len() <= 32 && addresses.iter().all(|address| parse_ip(address).is_some()));
    let conf = ResolvConf::parse(&text, 53);
    assert!((1..=3).contains(&conf.servers.len()) && conf.search.len() <= 6 && conf.ndots <= 15);
    assert!((1..=5).contains(&conf.attempts) && (1..=30).contains(&conf.timeout.as_secs()));
    assert!(registry::value_of(data).is_none_or(|attribute| !attribute.is_empty() && is_plain(&attribute)));
    assert!(in_use::place_of(&text, "nvme0n1", "259:0").is_none_or(|place| is_plain(&place)));
    assert!(fabrics::parse_options(&text).len() <= text.len());
    std::hint::black_box((fabrics::parse_reply(&text), Address::parse(&text)));
    for transport in [Transport::Tcp, Transport::Fc] {
        parse_sysfs_address(transport, &text, |key, value| {
            let is_address = matches!(key, "traddr" | "host_traddr" | "src_addr");
            assert!(!is_address || canonical_address(transport, &value) == value, "{value:?}");
        });
    }
    match parse_dhchap(&text) {
        Ok(key) => assert_eq!(key.reveal(), text),
        Err(why) => assert!(why.len() < 100 && is_plain(&why)),
    }
    for outcome in [check_symname(&text), check_id(&text).map(drop)] {
        assert!(outcome.is_ok() || outcome.is_err_and(|why| is_plain(&why)));
    }
}
