//! The language of `/dev/nvme-fabrics`: option strings to write, option lists and replies to read.
//!
//! Facts from the kernel's drivers/nvme/host/fabrics.c (`opt_tokens`, `nvmf_parse_options`, `nvmf_dev_write`,
//! `nvmf_dev_show`) and, for what each transport accepts, `allowed_opts` in tcp.c, rdma.c, fc.c and target/loop.c.
//!
//! An option string is one line of comma-separated fields without any quoting. A value with a comma in it would add options
//! of its own, so values are checked here, whoever chose them: NQNs and addresses come from log pages.

use std::fmt::Write;

use crate::core::tid::{DISCOVERY_NQN, NQN_MAX, Transport};
use crate::helper::message::{ConnectRequest, Failure};

/// The device whose write connects a controller. Blocks until the controller is live or has failed, a minute and longer,
/// and waits for all connects before it; so does reading it.
pub const DEVICE: &str = "/dev/nvme-fabrics";

/// The longest option string: the kernel refuses a write of more than a page, terminator included.
const STRING_MAX: usize = 4095;
/// The longest value other than an NQN: more than any address or key needs.
const VALUE_MAX: usize = 255;

/// What Linux 5.4 accepts. Kernels before 5.17 cannot be asked, and refuse an option string with an option they lack.
pub const BASELINE_OPTIONS: [&str; 19] = [
    "transport",
    "traddr",
    "trsvcid",
    "nqn",
    "queue_size",
    "nr_io_queues",
    "reconnect_delay",
    "ctrl_loss_tmo",
    "keep_alive_tmo",
    "hostnqn",
    "host_traddr",
    "hostid",
    "duplicate_connect",
    "disable_sqflow",
    "hdr_digest",
    "data_digest",
    "nr_write_queues",
    "nr_poll_queues",
    "tos",
];

/// Options that decide who this host is, whom it talks to or who can listen. A connection without one of them would not be
/// the connection that was asked for, so they are never left out.
const ESSENTIAL: [&str; 12] = [
    "nqn",
    "transport",
    "traddr",
    "hostnqn",
    "hostid",
    "discovery",
    "dhchap_secret",
    "dhchap_ctrl_secret",
    "tls",
    "tls_key",
    "keyring",
    "concat",
];

/// What a request wants of one option.
enum Value<'a> {
    Text(&'a str),
    Number(i64),
    Flag,
}

/// The options that `request` asks for, in the order in which they are written. `discovery` has to follow `nqn`, which
/// resets it.
fn options(request: &ConnectRequest) -> impl Iterator<Item = (&'static str, Value<'_>)> {
    fn string(value: &str) -> Option<Value<'_>> {
        (!value.is_empty()).then_some(Value::Text(value))
    }
    fn number<'a>(value: Option<impl Into<i64>>) -> Option<Value<'a>> {
        value.map(|value| Value::Number(value.into()))
    }
    fn flag<'a>(value: bool) -> Option<Value<'a>> {
        value.then_some(Value::Flag)
    }
    let r = request;
    [
        ("nqn", string(&r.nqn)),
        ("transport", string(&r.transport)),
        ("traddr", string(&r.traddr)),
        ("trsvcid", string(&r.trsvcid)),
        ("hostnqn", string(&r.hostnqn)),
        ("hostid", string(&r.hostid)),
        ("host_traddr", string(&r.host_traddr)),
        ("host_iface", string(&r.host_iface)),
        ("discovery", flag(r.discovery)),
        ("keep_alive_tmo", number(r.keep_alive_tmo)),
        ("queue_size", number(r.queue_size)),
        ("nr_io_queues", number(r.nr_io_queues)),
        ("nr_write_queues", number(r.nr_write_queues)),
        ("nr_poll_queues", number(r.nr_poll_queues)),
        ("reconnect_delay", number(r.reconnect_delay)),
        ("ctrl_loss_tmo", number(r.ctrl_loss_tmo)),
        ("fast_io_fail_tmo", number(r.fast_io_fail_tmo)),
        ("tos", number(r.tos)),
        ("hdr_digest", flag(r.hdr_digest)),
        ("data_digest", flag(r.data_digest)),
        ("disable_sqflow", flag(r.disable_sqflow)),
        ("duplicate_connect", flag(r.duplicate_connect)),
        ("tls", flag(r.tls)),
        ("tls_key", string(&r.tls_key)),
        ("keyring", string(&r.keyring)),
        ("concat", flag(r.concat)),
        ("dhchap_secret", string(&r.dhchap_secret)),
        ("dhchap_ctrl_secret", string(&r.dhchap_ctrl_secret)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}

/// Takes an option that may be left out off a request.
fn clear(request: &mut ConnectRequest, option: &str) {
    match option {
        "trsvcid" => request.trsvcid.clear(),
        "host_traddr" => request.host_traddr.clear(),
        "host_iface" => request.host_iface.clear(),
        "keep_alive_tmo" => request.keep_alive_tmo = None,
        "queue_size" => request.queue_size = None,
        "nr_io_queues" => request.nr_io_queues = None,
        "nr_write_queues" => request.nr_write_queues = None,
        "nr_poll_queues" => request.nr_poll_queues = None,
        "reconnect_delay" => request.reconnect_delay = None,
        "ctrl_loss_tmo" => request.ctrl_loss_tmo = None,
        "fast_io_fail_tmo" => request.fast_io_fail_tmo = None,
        "tos" => request.tos = None,
        "hdr_digest" => request.hdr_digest = false,
        "data_digest" => request.data_digest = false,
        "disable_sqflow" => request.disable_sqflow = false,
        "duplicate_connect" => request.duplicate_connect = false,
        _ => {}
    }
}

/// Whether connections of a transport have that option; the kernel refuses them otherwise.
fn is_option_of(transport: Transport, option: &str) -> bool {
    match option {
        "trsvcid" | "nr_write_queues" | "nr_poll_queues" | "tos" => transport.is_ip(),
        "host_iface" | "hdr_digest" | "data_digest" | "tls" | "tls_key" | "keyring" | "concat" => {
            transport == Transport::Tcp
        }
        "host_traddr" | "reconnect_delay" | "ctrl_loss_tmo" => transport != Transport::Loop,
        _ => true,
    }
}

/// Leaves out what the request's transport does not have at all (a daemon-wide `hdr_digest` means TCP connections only), and
/// returns the names. TLS over another transport than TCP is an error.
pub fn drop_foreign(request: &mut ConnectRequest) -> Result<Vec<&'static str>, Failure> {
    let Some(transport) = Transport::parse(&request.transport) else {
        return Err(unknown_transport());
    };
    drop_unless(request, |option| is_option_of(transport, option))
        .map_err(|option| Failure::BadField(format!("{option} is not possible with transport {transport}")))
}

/// Asks for a discovery controller by the well-known NQN, to which it answers all the same, where the kernel takes whoever has
/// another one for an I/O controller: before 5.16. Whether it had to.
pub fn use_known_name(request: &mut ConnectRequest, known: &[String]) -> bool {
    let has_to = request.discovery && !known.iter().any(|name| name == "discovery");
    if has_to {
        request.discovery = false;
        request.nqn = DISCOVERY_NQN.to_owned();
    }
    has_to
}

/// Leaves out what this kernel does not know, and returns the names, for a warning. Options that security or identity hang
/// on are not left out: the first one missing is the error.
pub fn drop_unsupported(request: &mut ConnectRequest, known: &[String]) -> Result<Vec<&'static str>, Failure> {
    drop_unless(request, |option| known.iter().any(|name| name == option))
        .map_err(|option| Failure::NoSuchOption(option.to_owned()))
}

/// Fails with the name of an essential option that would have to go; the request is untouched then.
fn drop_unless(request: &mut ConnectRequest, keep: impl Fn(&str) -> bool) -> Result<Vec<&'static str>, &'static str> {
    let dropped: Vec<_> = options(request).map(|(name, _)| name).filter(|name| !keep(name)).collect();
    if let Some(essential) = dropped.iter().find(|name| ESSENTIAL.contains(name)) {
        return Err(essential);
    }
    for option in &dropped {
        clear(request, option);
    }
    Ok(dropped)
}

fn unknown_transport() -> Failure {
    Failure::BadField("transport is not one of tcp, rdma, fc, loop".to_owned())
}

/// The option string for a request.
pub fn option_string(request: &ConnectRequest) -> Result<String, Failure> {
    for (name, value) in [("nqn", &request.nqn), ("transport", &request.transport)] {
        if value.is_empty() {
            return Err(Failure::BadField(format!("{name} is missing")));
        }
    }
    if Transport::parse(&request.transport).is_none() {
        return Err(unknown_transport());
    }
    if !request.trsvcid.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Failure::BadField("trsvcid is not a number".to_owned()));
    }
    let mut string = String::with_capacity(STRING_MAX);
    for (name, value) in options(request) {
        let separator = if string.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ = match value {
            Value::Text(text) => write!(string, "{separator}{name}={}", checked(name, text)?),
            Value::Number(number) => write!(string, "{separator}{name}={number}"),
            Value::Flag => write!(string, "{separator}{name}"),
        };
    }
    if string.len() > STRING_MAX {
        return Err(Failure::BadField(format!("the options together are longer than {STRING_MAX} bytes")));
    }
    Ok(string)
}

/// The complaint does not repeat the value, which may be a key.
fn checked<'a>(name: &str, value: &'a str) -> Result<&'a str, Failure> {
    let limit = if matches!(name, "nqn" | "hostnqn") { NQN_MAX } else { VALUE_MAX };
    if value.len() > limit {
        return Err(Failure::BadField(format!("{name} is longer than {limit} bytes")));
    }
    if value.contains(',') || value.chars().any(char::is_control) {
        return Err(Failure::BadField(format!("{name} contains a comma or a control character")));
    }
    Ok(value)
}

/// The option names in what a freshly opened device reads as (5.17+).
pub fn parse_options(list: &str) -> Vec<String> {
    list.split([',', '\n'])
        .filter_map(|option| option.split('=').next())
        // The list begins like a reply.
        .filter(|name| !matches!(*name, "" | "instance" | "cntlid"))
        .map(str::to_owned)
        .collect()
}

/// `(instance, cntlid)` of the controller that was just connected, from the device it was written to.
pub fn parse_reply(reply: &str) -> Option<(u32, u16)> {
    let (instance, cntlid) = reply.trim_end().split_once(',')?;
    Some((instance.strip_prefix("instance=")?.parse().ok()?, cntlid.strip_prefix("cntlid=")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Linux 6.12, and what later ones added.
    const LIST: &str = "instance=-1,cntlid=-1,transport=%s,traddr=%s,trsvcid=%s,nqn=%s,queue_size=%d,\
        nr_io_queues=%d,reconnect_delay=%d,ctrl_loss_tmo=%d,keep_alive_tmo=%d,hostnqn=%s,host_traddr=%s,host_iface=%s,\
        hostid=%s,duplicate_connect,disable_sqflow,hdr_digest,data_digest,nr_write_queues=%d,nr_poll_queues=%d,tos=%d,\
        keyring=%d,tls_key=%d,fast_io_fail_tmo=%d,discovery,dhchap_secret=%s,dhchap_ctrl_secret=%s,tls,concat\n";

    fn request() -> ConnectRequest {
        ConnectRequest {
            nqn: "nqn.x".into(),
            transport: "tcp".into(),
            traddr: "192.0.2.1".into(),
            trsvcid: "4420".into(),
            hostnqn: "nqn.h".into(),
            hostid: "id".into(),
            ..ConnectRequest::default()
        }
    }

    /// Every option in use.
    fn full() -> ConnectRequest {
        ConnectRequest {
            host_traddr: "192.0.2.2".into(),
            host_iface: "eth0".into(),
            discovery: true,
            keep_alive_tmo: Some(30),
            queue_size: Some(128),
            nr_io_queues: Some(4),
            nr_write_queues: Some(1),
            nr_poll_queues: Some(2),
            reconnect_delay: Some(10),
            ctrl_loss_tmo: Some(-1),
            fast_io_fail_tmo: Some(5),
            tos: Some(255),
            hdr_digest: true,
            data_digest: true,
            disable_sqflow: true,
            duplicate_connect: true,
            tls: true,
            tls_key: "123".into(),
            keyring: "456".into(),
            concat: true,
            dhchap_secret: "DHHC-1:00:a:".into(),
            dhchap_ctrl_secret: "DHHC-1:00:b:".into(),
            ..request()
        }
    }

    fn complaint(change: impl FnOnce(&mut ConnectRequest)) -> String {
        let mut request = request();
        change(&mut request);
        option_string(&request).unwrap_err().to_string()
    }

    #[test]
    fn an_option_string_has_what_was_asked_for_and_no_more() {
        let minimal = "nqn=nqn.x,transport=tcp,traddr=192.0.2.1,trsvcid=4420,hostnqn=nqn.h,hostid=id";
        assert_eq!(option_string(&request()).unwrap(), minimal);
        assert_eq!(
            option_string(&full()).unwrap(),
            minimal.to_owned()
                + ",host_traddr=192.0.2.2,host_iface=eth0,discovery,keep_alive_tmo=30,queue_size=128,nr_io_queues=4,\
                   nr_write_queues=1,nr_poll_queues=2,reconnect_delay=10,ctrl_loss_tmo=-1,fast_io_fail_tmo=5,tos=255,\
                   hdr_digest,data_digest,disable_sqflow,duplicate_connect,tls,tls_key=123,keyring=456,concat,\
                   dhchap_secret=DHHC-1:00:a:,dhchap_ctrl_secret=DHHC-1:00:b:"
        );
    }

    #[test]
    fn a_kernel_without_the_discovery_option_is_asked_by_the_known_name() {
        let asked = || ConnectRequest { discovery: true, ..request() };
        let baseline: Vec<String> = BASELINE_OPTIONS.map(str::to_owned).into();
        let mut unchanged = asked();
        assert!(!use_known_name(&mut unchanged, &parse_options(LIST)));
        assert!(unchanged.discovery && unchanged.nqn == "nqn.x");
        let mut changed = asked();
        assert!(use_known_name(&mut changed, &baseline));
        assert_eq!(drop_unsupported(&mut changed, &baseline), Ok(vec![]));
        assert_eq!(changed.nqn, DISCOVERY_NQN);
        assert!(!use_known_name(&mut request(), &baseline), "an I/O controller");
    }

    #[test]
    fn a_value_cannot_add_options() {
        let bad = "traddr contains a comma or a control character";
        for value in ["1.2.3.4,tls", "1.2.3.4\ntls", "1.2.3.4\0", "\u{85}"] {
            assert_eq!(complaint(|request| request.traddr = value.into()), bad);
        }
        assert!(!complaint(|request| request.dhchap_secret = "DHHC,xyzzy".into()).contains("xyzzy"));
    }

    #[test]
    fn missing_and_over_long_values_are_refused() {
        assert_eq!(complaint(|request| request.nqn.clear()), "nqn is missing");
        assert_eq!(complaint(|request| request.nqn = "n".repeat(224)), "nqn is longer than 223 bytes");
        assert_eq!(complaint(|request| request.host_iface = "e".repeat(256)), "host_iface is longer than 255 bytes");
    }

    #[test]
    fn the_kernels_list_names_every_option_we_write() {
        let known = parse_options(LIST);
        assert_eq!(known.first().map(String::as_str), Some("transport"));
        assert_eq!(drop_unsupported(&mut full(), &known), Ok(vec![]));
    }

    #[test]
    fn what_a_kernel_lacks_is_left_out_and_named() {
        let known = BASELINE_OPTIONS.map(str::to_owned);
        let mut request = ConnectRequest { host_iface: "eth0".into(), fast_io_fail_tmo: Some(5), ..request() };
        assert_eq!(drop_unsupported(&mut request, &known), Ok(vec!["host_iface", "fast_io_fail_tmo"]));
        assert!(!option_string(&request).unwrap().contains("host_iface"));
    }

    #[test]
    fn security_and_identity_are_never_left_out() {
        let known = BASELINE_OPTIONS.map(str::to_owned);
        let mut secret = ConnectRequest { dhchap_secret: "DHHC-1:00:a:".into(), ..request() };
        assert_eq!(drop_unsupported(&mut secret, &known), Err(Failure::NoSuchOption("dhchap_secret".into())));
        let mut tls = ConnectRequest { tls: true, host_iface: "eth0".into(), ..request() };
        assert_eq!(drop_unsupported(&mut tls, &known), Err(Failure::NoSuchOption("tls".into())));
        assert_eq!(tls.host_iface, "eth0");
        assert_eq!(drop_unsupported(&mut request(), &[]), Err(Failure::NoSuchOption("nqn".into())));
    }

    /// Whatever can be dropped is really gone afterwards.
    #[test]
    fn every_option_that_is_not_essential_can_be_cleared() {
        let mut request = full();
        let essential = ESSENTIAL.map(str::to_owned);
        let dropped = drop_unsupported(&mut request, &essential).unwrap();
        assert_eq!(dropped.len() + essential.len(), options(&full()).count());
        assert!(options(&request).all(|(name, _)| ESSENTIAL.contains(&name)));
    }

    #[test]
    fn each_transport_gets_what_its_driver_accepts() {
        let on = |transport: &str| {
            let request = ConnectRequest { transport: transport.into(), tls: false, concat: false, ..full() };
            ConnectRequest { tls_key: String::new(), keyring: String::new(), ..request }
        };
        assert_eq!(drop_foreign(&mut on("tcp")), Ok(vec![]));
        assert_eq!(drop_foreign(&mut on("rdma")), Ok(vec!["host_iface", "hdr_digest", "data_digest"]));
        let fc = vec!["trsvcid", "host_iface", "nr_write_queues", "nr_poll_queues", "tos", "hdr_digest", "data_digest"];
        assert_eq!(drop_foreign(&mut on("fc")), Ok(fc));
        assert!(drop_foreign(&mut on("loop")).unwrap().contains(&"ctrl_loss_tmo"));
        assert!(drop_foreign(&mut on("pcie")).is_err());
        let mut tls = ConnectRequest { tls: true, ..on("rdma") };
        assert_eq!(drop_foreign(&mut tls).unwrap_err().to_string(), "tls is not possible with transport rdma");
    }

    #[test]
    fn the_reply_names_the_controller() {
        assert_eq!(parse_reply("instance=3,cntlid=65535\n"), Some((3, 65535)));
        for bad in
            ["", "instance=-1,cntlid=-1,transport=%s", "instance=3", "cntlid=1,instance=3", "instance=3,cntlid=70000"]
        {
            assert_eq!(parse_reply(bad), None, "{bad}");
        }
    }
}
