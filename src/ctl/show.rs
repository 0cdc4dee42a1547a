//! What the daemons say, for people.

use super::client::{Failure, Pairs};
use super::json::Json;
use super::table::{Table, printable};
use crate::bus::ControllerId;
use crate::bus::pages::PARKED_KEY;

/// What a key says; empty without the key.
pub fn value(pairs: &Pairs, wanted: &str) -> String {
    pairs.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.clone()).unwrap_or_default()
}

/// The part of a controller's description that names it.
pub fn controller_id(pairs: &Pairs) -> ControllerId {
    ControllerId {
        transport: value(pairs, "transport"),
        traddr: value(pairs, "traddr"),
        trsvcid: value(pairs, "trsvcid"),
        subsysnqn: value(pairs, "subsysnqn"),
        host_traddr: value(pairs, "host-traddr"),
        host_iface: value(pairs, "host-iface"),
        host_nqn: value(pairs, "host-nqn"),
    }
}

/// `ls`: a line for each controller. The widest column comes last, so that the others fit a terminal; why a controller is kept
/// that is not wanted any more comes after that, where there is one.
pub fn controllers(controllers: &[Pairs]) -> String {
    if controllers.is_empty() {
        return "no controllers\n".to_owned();
    }
    let mut table = Table::new(&["DEVICE", "TRTYPE", "TRADDR", "TRSVCID", "IFACE", "PARKED FOR", "SUBSYSNQN", "KEPT"]);
    for pairs in controllers {
        let keys = ["device", "transport", "traddr", "trsvcid", "host-iface", PARKED_KEY, "subsysnqn", "kept"];
        table.row(keys.map(|key| value(pairs, key)).to_vec());
    }
    table.text(0)
}

/// `ls -d`: a block for each controller.
pub fn controllers_in_detail(controllers: &[Pairs]) -> String {
    if controllers.is_empty() {
        return "no controllers\n".to_owned();
    }
    let block = |pairs: &Pairs| format!("{}\n{}", title(pairs), lines(pairs, 2));
    controllers.iter().map(block).collect::<Vec<_>>().join("\n")
}

/// How a controller is called above what is said of it.
fn title(pairs: &Pairs) -> String {
    let device = printable(&value(pairs, "device"));
    match controller_id(pairs).transport_id() {
        Some(tid) => printable(&format!("{device} {tid}")),
        None => device,
    }
}

/// Key and value, aligned.
fn lines(pairs: &Pairs, indent: usize) -> String {
    let width = pairs.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    let line = |(key, value): &(String, String)| {
        let line = format!("{:indent$}{:width$}  {}", "", printable(key), printable(value));
        format!("{}\n", line.trim_end())
    };
    pairs.iter().map(line).collect()
}

/// `dlp`: a line for each log page entry.
pub fn entries(entries: &[Pairs]) -> String {
    indented_entries(entries, 0)
}

fn indented_entries(entries: &[Pairs], indent: usize) -> String {
    if entries.is_empty() {
        return format!("{:indent$}no log page entries\n", "");
    }
    let mut table = Table::new(&["SUBTYPE", "TRTYPE", "TRADDR", "TRSVCID", "PORTID", "SUBNQN"]);
    for pairs in entries {
        let keys = ["subtype", "trtype", "traddr", "trsvcid", "portid", "subnqn"];
        table.row(keys.map(|key| value(pairs, key)).to_vec());
    }
    table.text(indent)
}

/// `adlp`: a block for each discovery controller.
///
/// # Errors
/// When the daemon sent something else than log pages.
pub fn pages(json: &str, detailed: bool) -> Result<String, Failure> {
    let pages = Json::parse(json)?;
    if pages.elements().is_empty() {
        return Ok("no discovery controllers\n".to_owned());
    }
    let block = |page: &Json| {
        let controller = page.get("discovery-controller").map(Json::pairs).unwrap_or_default();
        let entries: Vec<Pairs> =
            page.get("log-pages").map(Json::elements).unwrap_or_default().iter().map(Json::pairs).collect();
        let details = if detailed { lines(&controller, 2) } else { String::new() };
        format!("{}\n{details}{}", title(&controller), indented_entries(&entries, 2))
    };
    Ok(pages.elements().iter().map(block).collect::<Vec<_>>().join("\n"))
}

/// `status`: the daemon's facts, one a line.
///
/// # Errors
/// When the daemon sent something else than JSON.
pub fn status(json: &str) -> Result<String, Failure> {
    let mut text = String::new();
    nested(&Json::parse(json)?, 0, &mut text);
    Ok(text)
}

fn nested(json: &Json, indent: usize, text: &mut String) {
    match json {
        Json::Scalar(value) => text.push_str(&format!("{:indent$}{}\n", "", printable(value))),
        Json::List(elements) => elements.iter().for_each(|element| nested(element, indent, text)),
        Json::Object(members) => {
            let width = json.pairs().iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
            for (key, value) in members {
                match value {
                    Json::Scalar(value) => {
                        let line = format!("{:indent$}{:width$}  {}", "", printable(key), printable(value));
                        text.push_str(line.trim_end());
                        text.push('\n');
                    }
                    _ => {
                        text.push_str(&format!("{:indent$}{}\n", "", printable(key)));
                        nested(value, indent.saturating_add(2), text);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Pairs {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn controller() -> Pairs {
        pairs(&[
            ("transport", "tcp"),
            ("traddr", "192.168.100.200"),
            ("trsvcid", "8009"),
            ("subsysnqn", "nqn.2014-08.org.nvmexpress.discovery"),
            ("host-traddr", ""),
            ("host-iface", ""),
            ("host-nqn", ""),
            ("device", "nvme10"),
        ])
    }

    #[test]
    fn a_usual_list_fits_a_terminal() {
        let text = controllers(&[controller(), controller()]);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        let expected = "\
DEVICE  TRTYPE  TRADDR           TRSVCID  SUBSYSNQN
nvme10  tcp     192.168.100.200  8009     nqn.2014-08.org.nvmexpress.discovery
";
        assert_eq!(controllers(&[controller()]), expected);
        let parked = [controller(), pairs(&[("parked for", "893 s"), ("connected", "False")])].concat();
        let expected = "\
DEVICE  TRTYPE  TRADDR           TRSVCID  PARKED FOR  SUBSYSNQN
nvme10  tcp     192.168.100.200  8009     893 s       nqn.2014-08.org.nvmexpress.discovery
";
        assert_eq!(controllers(&[parked]), expected);
        assert_eq!(controllers(&[]), "no controllers\n");
    }

    #[test]
    fn details_come_in_blocks() {
        let text = controllers_in_detail(&[controller(), controller()]);
        let title = "nvme10 tcp 192.168.100.200:8009 nqn.2014-08.org.nvmexpress.discovery\n  transport    tcp\n";
        assert!(text.starts_with(title), "{text}");
        assert_eq!(text.matches(title).count(), 2);
        assert!(text.lines().all(|line| line.trim_end() == line));
    }

    #[test]
    fn pages_are_tables_under_their_controllers() {
        let json = r#"[{"discovery-controller": {"transport": "tcp", "traddr": "192.0.2.1", "trsvcid": "8009",
            "subsysnqn": "nqn.d", "device": "nvme0"}, "log-pages": [{"trtype": "tcp", "traddr": "192.0.2.2",
            "trsvcid": "4420", "subnqn": "nqn.s\u001b[31m", "subtype": "nvme", "portid": "1"}]},
            {"discovery-controller": {"transport": "fc", "traddr": "nn-0x1:pn-0x2", "subsysnqn": "nqn.e",
            "device": "nvme?"}, "log-pages": []}]"#;
        let expected = "\
nvme0 tcp 192.0.2.1:8009 nqn.d
  SUBTYPE  TRTYPE  TRADDR     TRSVCID  PORTID  SUBNQN
  nvme     tcp     192.0.2.2  4420     1       nqn.s?[31m

nvme? fc nn-0x1:pn-0x2 nqn.e
  no log page entries
";
        assert_eq!(pages(json, false).unwrap(), expected);
        assert_eq!(pages("[]", false).unwrap(), "no discovery controllers\n");
        assert!(pages("x", false).is_err());
    }

    #[test]
    fn status_is_read_line_by_line() {
        let json = r#"{"tron": false, "hostnqn": "nqn.h", "avahi": {"services": ["a", "b"], "timer": "5s"}}"#;
        let expected = "\
tron     no
hostnqn  nqn.h
avahi
  services
    a
    b
  timer  5s
";
        assert_eq!(status(json).unwrap(), expected);
    }
}
