//! Further files that name controllers: those of nvme-cli, so that a host which has them needs no second configuration.
//!
//! `discovery.conf` has a line of options for each discovery controller; `nvme-fabrics.conf`, of nvme-cli 3, has sections, and
//! drop-ins in `nvme-fabrics.conf.d`. Which of both a file is, its content tells. Either is brought into the form of our own
//! entries and read like them. It was not written for this program: what is not understood is reported and left out, and the
//! rest counts.

mod discovery_conf;
mod fabrics_conf;

use std::io;
use std::path::Path;

use crate::config::controller::controller;
use crate::config::exclusions::{drop_ins, with_drop_ins};
use crate::config::file::{self, Contents};
use crate::config::finding::{Finding, Report, Severity};
use crate::config::keys::{OPTIONS, names};
use crate::config::settings::{Common, ControllerEntry};
use crate::config::value::{Entry, Value};
use crate::core::device::ControllerKind;
use crate::core::tid::Transport;

/// The controllers of one kind that the file at this path names, its drop-ins included; and all that is remarkable.
pub(super) fn load(kind: ControllerKind, path: &Path) -> (Vec<ControllerEntry>, Vec<Finding>) {
    let (mut controllers, mut findings) = (Vec::new(), Vec::new());
    let mut defaults = fabrics_conf::Defaults::default();
    let exists = path.exists() || drop_ins(path).is_dir();
    for file in with_drop_ins(path) {
        let mut report = Report::new(&file, Severity::Warning);
        match file::read(&file) {
            Ok(contents) => {
                let is_main = file == path;
                let found = read(kind, &contents, is_main, &mut defaults, &mut report);
                let common = Common { controllers: found, ..Common::default() };
                if contents.exposed && common.holds_secrets() {
                    let what =
                        "the file holds a secret that other users can read; `chmod 600` it, and change the secret";
                    report.add(Severity::Warning, None, "", what.to_owned());
                }
                controllers.extend(common.controllers);
            }
            // The drop-ins may be all that there is.
            Err(error) if error.kind() == io::ErrorKind::NotFound && exists => {}
            Err(error) => report.add(Severity::Warning, None, "", format!("cannot be read: {error}")),
        }
        findings.extend(report.into_findings());
    }
    (controllers, findings)
}

/// The same from the text of one file; for tests.
pub fn parse_source(kind: ControllerKind, text: &str, path: &Path) -> (Vec<ControllerEntry>, Vec<Finding>) {
    let mut report = Report::new(path, Severity::Warning);
    let controllers = read(kind, &Contents::of(text), true, &mut Default::default(), &mut report);
    (controllers, report.into_findings())
}

fn read(
    kind: ControllerKind,
    contents: &Contents,
    is_main: bool,
    defaults: &mut fabrics_conf::Defaults,
    report: &mut Report<'_>,
) -> Vec<ControllerEntry> {
    super::report_garbled(contents, report);
    if is_json(&contents.text) {
        let what = "is JSON, which is not read: the controllers of nvme-cli's config.json belong into stafd.conf and stacd.conf";
        report.add(Severity::Warning, None, "", what.to_owned());
        return Vec::new();
    }
    let drafts = if contents.text.lines().any(|line| line.trim_start().starts_with('[')) {
        fabrics_conf::read(kind, &contents.text, is_main, defaults, report)
    } else if kind == ControllerKind::Discovery {
        discovery_conf::read(&contents.text, report)
    } else {
        // Discovery controllers all, which are none of our business.
        Vec::new()
    };
    drafts.into_iter().filter_map(|draft| draft.complete(kind, report)).collect()
}

/// An object, or a list of them.
fn is_json(text: &str) -> bool {
    let text = text.trim_start();
    text.strip_prefix('[').unwrap_or(text).trim_start().starts_with('{')
}

/// A controller as such a file has it: keys with their values, by the names of nvme-cli's options.
#[derive(Debug, Default)]
struct Draft {
    line: usize,
    fields: Vec<Entry>,
}

impl Draft {
    /// A later value of a key replaces an earlier one.
    fn set(&mut self, key: &str, value: &str, line: usize) {
        self.fields.retain(|field| field.key != key);
        if (key, value) == ("concat", "false") {
            return;
        }
        let value = Value::Bare(value.to_owned());
        self.fields.push(Entry { section: None, key: key.to_owned(), value, line });
    }

    fn complete(mut self, kind: ControllerKind, report: &mut Report<'_>) -> Option<ControllerEntry> {
        if self.asks_for("concat") && !names(OPTIONS).any(|name| name == "concat") {
            report.mistake(
                self.line,
                "concat",
                "is not supported; left out, for without it the connection would be insecure",
            );
            return None;
        }
        if self.asks_for("host-id") && !self.asks_for("host-nqn") {
            report.warning(
                self.line,
                "hostid",
                "is ignored without hostnqn: the names of this host are those of sys.conf",
            );
            self.fields.retain(|field| field.key != "host-id");
        }
        if kind == ControllerKind::Io && !self.asks_for("trsvcid") && self.is_ip() {
            // As `nvme connect` has it.
            self.set("trsvcid", "4420", self.line);
        }
        controller(kind, &self.fields, self.line, report)
    }

    fn asks_for(&self, key: &str) -> bool {
        self.fields.iter().any(|field| field.key == key)
    }

    fn is_ip(&self) -> bool {
        let transport = self.fields.iter().find(|field| field.key == "transport");
        transport.and_then(|field| field.value.transport().ok()).is_some_and(Transport::is_ip)
    }
}

/// What a key of nvme-cli's is called here, and its value as our readers expect it. `None` if it says nothing: as to
/// nvme-cli, no keep alive is one that was not chosen, and `none` is no address.
fn translate(key: &str, value: &str) -> Option<(String, String)> {
    let ours = match key {
        "hostnqn" => "host-nqn",
        "hostid" => "host-id",
        "keep-alive-tmo" => "kato",
        "kxchap-secret" => "dhchap-secret",
        "kxchap-ctrl-secret" => "dhchap-ctrl-secret",
        "tls-key-identity" => "tls-key",
        same => same,
    };
    let says_nothing = match ours {
        "kato" => value == "0",
        "host-traddr" | "host-iface" | "trsvcid" => value == "none",
        _ => false,
    };
    (!says_nothing).then(|| (ours.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;
    use crate::core::tid::DISCOVERY_NQN;

    fn parse(kind: ControllerKind, text: &str) -> (Vec<ControllerEntry>, Vec<String>) {
        let (controllers, findings) = parse_source(kind, text, Path::new("/x"));
        (controllers, findings.iter().map(Finding::to_string).collect())
    }

    fn discovery(text: &str) -> (Vec<ControllerEntry>, Vec<String>) {
        parse(ControllerKind::Discovery, text)
    }

    #[test]
    fn lines_of_options_become_discovery_controllers() {
        let id = "f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f";
        let (controllers, findings) = discovery(&format!(
            "# --transport=tcp --traddr=192.0.2.99\n\n--transport=tcp --traddr=192.0.2.1 --trsvcid=8010 --host-iface=eth0 \
             --persistent\n-t rdma -a 192.0.2.2 -w 192.0.2.3 -q nqn.h -I {id} -k 15 -l -1 -Q 64 -g\n\
             -ttcp -a=192.0.2.4 --keep-alive-tmo 0 --fast_io_fail_tmo=5 --disable-sqflow --trsvcid none --quiet\r\n",
        ));
        assert_eq!(findings, Vec::<String>::new());
        let [first, second, third] = controllers.try_into().unwrap();
        assert_eq!(
            (first.traddr.as_str(), first.trsvcid.as_str(), first.host_iface.as_str()),
            ("192.0.2.1", "8010", "eth0")
        );
        assert_eq!((first.subsysnqn.as_str(), first.options.kato), (DISCOVERY_NQN, None));
        assert_eq!(
            (second.transport, second.trsvcid.as_str(), second.host_traddr.as_str()),
            (Transport::Rdma, "4420", "192.0.2.3")
        );
        assert_eq!((second.host_nqn.as_str(), second.host_id.as_str()), ("nqn.h", id));
        let options = &second.options;
        assert_eq!((options.kato, options.ctrl_loss_tmo, options.queue_size), (Some(15), Some(-1), Some(64)));
        assert_eq!(options.hdr_digest, Some(true));
        assert_eq!((third.traddr.as_str(), third.trsvcid.as_str(), third.options.kato), ("192.0.2.4", "8009", None));
        assert_eq!((third.options.fast_io_fail_tmo, third.options.disable_sqflow), (Some(5), Some(true)));
    }

    #[test]
    fn json_is_said_to_be_something_else() {
        for text in ["[ { \"hostnqn\": \"nqn.x\" } ]", "[\n  {\n    \"hostnqn\": \"nqn.x\"\n", "{\"hosts\": []}\n"] {
            let (controllers, findings) = discovery(text);
            assert!(
                controllers.is_empty() && findings.len() == 1 && findings[0].contains("config.json"),
                "{findings:?}"
            );
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_told_with_its_number() {
        for (line, told) in [
            ("--transport=tcp --traddr=192.0.2.1 --frobnicate=7", "frobnicate"),
            (
                "-t tcp -a 192.0.2.1 --keep-alive-tom=7",
                "\"--keep-alive-tom\", perhaps --keep-alive-tmo is meant, ignored",
            ),
            ("-t tcp -a 192.0.2.1 -z 7", "-z"),
            ("-t tcp -a 192.0.2.1 stray", "stray"),
            ("-t tcp -a 192.0.2.1 -Q", "queue-size"),
            ("-t tcp -a 192.0.2.1 -k soon", "kato"),
            ("-t tcp -a 192.0.2.1 -I f0e1d2c3-b4a5-4697-8879-6a5b4c3d2e1f", "hostid"),
        ] {
            let (controllers, findings) = discovery(&format!("\n{line}\n"));
            assert_eq!(controllers.len(), 1, "{line}");
            assert!(
                findings.len() == 1 && findings[0].starts_with("/x:2: ") && findings[0].contains(told),
                "{findings:?}"
            );
        }
        for line in ["-t tcp", "-a 192.0.2.1", "-t tcp -a 0.0.0.0", "-t tcp -a 192.0.2.1 -S hunter2"] {
            let (controllers, findings) = discovery(line);
            assert!(
                controllers.is_empty() && !findings.is_empty() && !findings[0].contains("hunter"),
                "{line}: {findings:?}"
            );
        }
        assert_eq!(parse(ControllerKind::Io, "-t tcp -a 192.0.2.1").0, []);
    }

    const FABRICS: &str = "
[Discovery Controller Defaults]
keep-alive-tmo = 45
[I/O Controller Defaults]
ctrl-loss-tmo = 600
hdr-digest = yes
queue-size = 64
[Subsystem]
nqn = nqn.2014-08.org.example:a
ctrl-loss-tmo = 1800
controller = transport=tcp;traddr=192.0.2.1;host-iface=eth0;ctrl-loss-tmo=-1
controller = transport=tcp;traddr=192.0.2.2;trsvcid=4421;queue-size=;;
tls = On
[Host]
hostnqn = nqn.2014-08.org.example:host
reconnect-delay = 20
hostsymname = x
[Discovery Controller]
controller = transport=tcp;traddr=192.0.2.3
persistent = auto
[later]
x = 1
";

    #[test]
    fn sections_become_controllers_of_their_kind() {
        let (controllers, findings) = discovery(FABRICS);
        assert!(
            findings.iter().all(|finding| finding.contains("hostsymname") || finding.contains("later")),
            "{findings:?}"
        );
        let [dc] = controllers.try_into().unwrap();
        assert_eq!(
            (dc.traddr.as_str(), dc.trsvcid.as_str(), dc.subsysnqn.as_str()),
            ("192.0.2.3", "8009", DISCOVERY_NQN)
        );
        assert_eq!((dc.options.kato, dc.options.reconnect_delay, dc.options.ctrl_loss_tmo), (Some(45), Some(20), None));
        assert_eq!(dc.host_nqn, "nqn.2014-08.org.example:host");

        let [one, two] = parse(ControllerKind::Io, FABRICS).0.try_into().unwrap();
        assert_eq!(
            (one.subsysnqn.as_str(), one.trsvcid.as_str(), one.host_iface.as_str()),
            ("nqn.2014-08.org.example:a", "4420", "eth0")
        );
        let of_path =
            |one: &ControllerEntry| (one.options.ctrl_loss_tmo, one.options.queue_size, one.options.hdr_digest);
        assert_eq!(of_path(&one), (Some(-1), Some(64), Some(true)));
        assert_eq!(of_path(&two), (Some(1800), None, Some(true)));
        assert_eq!(
            (two.trsvcid.as_str(), two.options.tls, two.host_nqn.as_str()),
            ("4421", Some(true), dc.host_nqn.as_str())
        );
    }

    #[test]
    fn what_is_wrong_with_a_section_costs_only_itself() {
        let good = "[Subsystem]\nnqn = nqn.a\ncontroller = transport=tcp;traddr=192.0.2.1\n";
        for bad in [
            "stray\n",
            "[Subsystem]\ncontroller = transport=tcp;traddr=192.0.2.2\n",
            "[Subsystem]\nnqn = nqn.b\ncontroller = transport=tcp;traddr=192.0.2.2;trsvcld=4420\n",
            "[Subsystem]\nnqn = nqn.b\ncontroller = transport=tcp;traddr=\n",
            "[Subsystem]\nnqn = nqn.b\ncontroller = transport=tcp;traddr=192.0.2.2;tls=yes\n",
            "[Subsystem]\nnqn = nqn.b\nkxchap-secret = hunter2\ncontroller = transport=tcp;traddr=192.0.2.2\n",
            "[Discovery Controller Defaults\n",
            "[I/O Controller Defaults]\nqueue-size = many\n",
            "[I/O Controller Defaults]\nsubsysnqn = nqn.a\n",
            "[Host]\n[Host]\n",
        ] {
            let (controllers, findings) = parse(ControllerKind::Io, &format!("{bad}{good}"));
            let traddrs: Vec<_> = controllers.iter().map(|controller| controller.traddr.as_str()).collect();
            assert_eq!(traddrs, ["192.0.2.1"], "{bad}");
            assert!(!findings.is_empty() && findings[0].starts_with("/x:"), "{bad}: {findings:?}");
            assert!(findings.iter().all(|finding| !finding.contains("hunter")), "{findings:?}");
        }
    }

    #[test]
    fn drop_ins_have_the_main_files_defaults_and_a_host_of_their_own() {
        let scratch = Scratch::new();
        let path = "controller = transport=tcp;traddr=192.0.2.1\n";
        let defaults =
            "[Discovery Controller Defaults]\nkeep-alive-tmo=45\nqueue-size=64\n[Host]\nhostnqn=nqn.main\ntos=3\n";
        let main = scratch.file("nvme-fabrics.conf", format!("{defaults}[Discovery Controller]\n{path}"), 0o644);
        let black = format!(
            "[Discovery Controller Defaults]\nqueue-size=32\n[Discovery Controller]\n{path}[Host]\nhostnqn=nqn.black\n"
        );
        scratch.file("nvme-fabrics.conf.d/a.conf", black, 0o644);
        scratch.file("nvme-fabrics.conf.d/b.conf", format!("[Discovery Controller]\n{path}"), 0o644);
        let (controllers, findings) = load(ControllerKind::Discovery, &main);
        assert_eq!(findings, []);
        let facts =
            controllers.iter().map(|dc| (dc.host_nqn.as_str(), dc.options.kato, dc.options.queue_size, dc.options.tos));
        let expected = [
            ("nqn.main", Some(45), Some(64), Some(3)),
            ("nqn.black", Some(45), Some(32), None),
            ("", Some(45), Some(64), None),
        ];
        assert_eq!(facts.collect::<Vec<_>>(), expected);
        drop(scratch);
        assert_eq!(load(ControllerKind::Discovery, &main).1.len(), 1, "it is missing");
    }
}
