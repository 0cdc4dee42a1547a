//! What is between the host and a discovery controller before the log page: registration, and what the controller can do.

use crate::guest::{Guest, HOSTID, HOSTNQN};
use crate::hostile::Storage;
use crate::sim::{Behaviour, Command, DcType, Handle, Kind, PLEOS, Recording, Simulator, Status, Times};
use crate::stas::{Form, SOON, STAFD_CONF, Stas, controller};
use crate::vm::{Kernel, Scenario, scenario};
use std::time::Duration;

const SYS_CONF: &str = "/etc/stas/sys.conf";
const CDC_NQN: &str = "nqn.2026-01.example:cdc";
const DIM: Kind = Kind::DiscoveryInformationManagement;

/// The connection comes back soon after it is lost.
const SOON_AGAIN: &str = "reconnect-delay = 1\n";

/// What a registration says, read by the specification's positions.
#[derive(Debug, PartialEq, Eq)]
struct Registration {
    task: u8,
    entity: [String; 3],
    transport: [u8; 2],
    nqn: String,
    traddr: String,
    host_id: String,
    symbolic_name: Option<String>,
}

impl Registration {
    fn of(command: &Command) -> Self {
        let data = &command.data;
        let number = |at: usize, bytes: usize| {
            data[at..at + bytes].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        };
        let text = |at: usize, bytes: usize| {
            String::from_utf8(data[at..at + bytes].to_vec()).unwrap().trim_end_matches(['\0', ' ']).to_owned()
        };
        assert_eq!((number(0, 4), number(8, 8)), (data.len(), 1), "TDL, NUMENT");
        assert_eq!((number(16, 2), number(18, 2), number(22, 2)), (2, 1, 0x5f), "ENTFMT, ETYPE, EKTYPE");
        assert_eq!(number(2048, 4), data.len() - 1024, "TEL");
        let mut attributes = Vec::new();
        let mut at = 1024 + 1032;
        while at < data.len() {
            attributes.push((number(at, 2), at + 4, number(at + 2, 2)));
            at += 4 + number(at + 2, 2);
        }
        assert_eq!(number(2052, 2), attributes.len(), "NUMEXAT");
        let attribute = |wanted| attributes.iter().find(|(exattype, _, _)| *exattype == wanted);
        let (_, id, 16) = attribute(1).unwrap() else { panic!("the host ID has 16 bytes") };
        Registration {
            task: command.dim_task().unwrap(),
            entity: [text(24, 256), text(280, 256), text(536, 64)],
            transport: [data[1024], data[1025]],
            nqn: text(1280, 256),
            traddr: text(1536, 256),
            host_id: data[*id..id + 16].iter().map(|byte| format!("{byte:02x}")).collect(),
            symbolic_name: attribute(2).map(|(_, at, length)| text(*at, *length)),
        }
    }
}

fn registrations(dc: &Handle) -> Vec<Registration> {
    dc.recording().of(DIM).map(Registration::of).collect()
}

fn central(address: &str) -> Simulator {
    let cdc = Simulator::start(address).unwrap();
    cdc.behave(|b| {
        b.identity.dctype = DcType::Cdc;
        b.identity.unique_nqn = Some(CDC_NQN.into());
    });
    cdc
}

#[track_caller]
fn wait(dc: &Handle, what: &str, wanted: impl FnMut(&Recording) -> bool) {
    assert!(dc.wait(SOON, wanted), "{what}: {:#?}", dc.recording().commands.iter().map(|c| c.kind).collect::<Vec<_>>());
}

#[test]
fn a_central_controller_is_told_who_asks() {
    scenario(told_who_asks);
}

#[test]
fn a_central_controller_is_told_who_asks_on_6_1() {
    Scenario::new().kernel(Kernel::V6_1).run(told_who_asks);
}

fn told_who_asks(guest: &Guest) {
    let cdc = central("127.0.0.1:8009");
    let storage = Storage::offer(guest, 1);
    cdc.set_entries(storage.entries(..1));
    guest.write(SYS_CONF, "symname = \"rack1 of 3\"\n");
    guest.write(STAFD_CONF, &format!("{SOON_AGAIN}{}", controller("127.0.0.1", 8009)));
    let stas = Stas::start(guest, Form::OneProcess);
    guest.wait_for_storage(&storage.nqns(..1), SOON);

    let uname = guest.run("uname", &["-s", "-r"]).ok();
    let hostname = guest.run("uname", &["-n"]).ok();
    let expected = |symbolic_name: Option<&str>| Registration {
        task: 0,
        entity: [HOSTNQN.to_owned(), hostname.trim().to_owned(), uname.trim().to_owned()],
        transport: [3, 1],
        nqn: HOSTNQN.to_owned(),
        traddr: "127.0.0.1".to_owned(),
        host_id: HOSTID.replace('-', ""),
        symbolic_name: symbolic_name.map(str::to_owned),
    };
    assert_eq!(registrations(&cdc), [expected(Some("rack1 of 3"))]);
    let order: Vec<Kind> = cdc.recording().commands.iter().map(|command| command.kind).collect();
    let first = |kind: Kind| order.iter().position(|other| *other == kind).unwrap();
    assert!(first(DIM) < first(Kind::DiscoveryLogPage), "{order:?}");
    assert_eq!(cdc.recording().count(Kind::SupportedLogPages), 0, "a central controller has no ports");
    assert!(
        guest
            .run("stafctl", &["ls", "-d"])
            .ok()
            .lines()
            .any(|line| { line.trim().starts_with("register operation") && line.ends_with("registered") })
    );

    // Once for each connection, once for each name.
    cdc.drop_connections();
    wait(&cdc, "connected again", |seen| {
        seen.count(DIM) == 2 && seen.of(Kind::DiscoveryLogPage).any(|c| c.connection == 2)
    });
    cdc.change_entries(|_| ());
    stas.finder().reload();
    guest.write(SYS_CONF, "symname = \"rack2\"\n");
    stas.finder().reload();
    wait(&cdc, "another name", |seen| seen.count(DIM) == 3);
    guest.write(SYS_CONF, "# nameless\n");
    stas.finder().reload();
    wait(&cdc, "no name", |seen| seen.count(DIM) == 4);
    let names = [Some("rack1 of 3"), Some("rack1 of 3"), Some("rack2"), None];
    assert_eq!(registrations(&cdc), names.map(expected));
    assert_eq!(stas.finder().count_log("is registered with"), 1, "{}", stas.finder().log());
}

#[test]
fn over_ipv6_and_with_who_is_no_central_controller() {
    scenario(|guest| {
        let ddc = Simulator::start("[::1]:8009").unwrap();
        ddc.behave(|b| b.identity.dctype = DcType::Ddc);
        let plain = Simulator::start("127.0.0.1:8009").unwrap();
        guest.write(STAFD_CONF, &(controller("::1", 8009) + &controller("127.0.0.1", 8009)));
        let _stas = Stas::start(guest, Form::OneProcess);
        for dc in [&ddc, &plain] {
            wait(dc, "the page is read", |seen| seen.count(Kind::DiscoveryLogPage) > 0);
        }
        let registered = &registrations(&ddc)[0];
        assert_eq!((registered.transport, registered.traddr.as_str()), ([3, 2], "::1"));
        assert_eq!(registrations(&plain), [], "it does not say that it takes any");
    });
}

#[test]
fn a_refused_registration() {
    scenario(|guest| {
        let cdc = central("127.0.0.1:8009");
        cdc.behave(|b| b.fail(DIM, Times::Always, Status(0x132).dnr()));
        let storage = Storage::offer(guest, 2);
        cdc.set_entries(storage.entries(..2));
        guest.write(STAFD_CONF, &format!("{SOON_AGAIN}{}", controller("127.0.0.1", 8009)));
        let stas = Stas::start(guest, Form::TwoDaemons);
        guest.wait_for_storage(&storage.nqns(..2), SOON);
        cdc.drop_connections();
        wait(&cdc, "tried again", |seen| seen.count(DIM) == 2);
        // It has spoken, so its word counts.
        cdc.set_entries(storage.entries(1..2));
        guest.wait_for_storage(&storage.nqns(1..2), SOON);
        let told = "could not be registered with nvme0: the controller answered with NVMe status 0x4132 (Insufficient";
        assert_eq!(stas.finder().count_log(told), 1, "{}", stas.finder().log());
        assert!(guest.run("stafctl", &["ls", "-d"]).ok().contains("Insufficient Discovery Resources"));

        cdc.behave(|b| b.heal(DIM));
        stas.finder().reload();
        stas.finder().wait_log("is registered with nvme0", SOON);
    });
}

/// The kernel gives the controller up for it, so it happens once.
#[test]
fn a_registration_that_is_not_answered() {
    let spoil = |b: &mut Behaviour| b.ignore(DIM, Times::Always);
    scenario(|guest| costs_the_connection(guest, spoil, SOON * 3));
}

#[test]
fn a_registration_that_ends_the_connection() {
    scenario(|guest| costs_the_connection(guest, |b| b.disconnect_on(DIM, Times::Always), SOON));
}

fn costs_the_connection(guest: &Guest, spoil: impl FnOnce(&mut Behaviour), patience: Duration) {
    let cdc = central("127.0.0.1:8009");
    cdc.behave(spoil);
    let storage = Storage::offer(guest, 2);
    cdc.set_entries(storage.entries(..2));
    guest.write(STAFD_CONF, &format!("{SOON_AGAIN}{}", controller("127.0.0.1", 8009)));
    let stas = Stas::start(guest, Form::TwoDaemons);
    let attached = guest.wait_for_storage(&storage.nqns(..2), patience);
    assert_eq!(cdc.recording().count(DIM), 1);
    assert_eq!(stas.finder().count_log("did not answer the registration"), 1, "{}", stas.finder().log());

    // It does not know us: that it lists nothing says nothing.
    let pages = cdc.recording().count(Kind::DiscoveryLogPage);
    cdc.set_entries([]);
    wait(&cdc, "the page is read", |seen| seen.count(Kind::DiscoveryLogPage) >= pages + 2);
    stas.finder().wait_log("lists 0 entries", SOON);
    guest.assert_untouched(&attached);

    cdc.behave(|b| b.heal(DIM));
    cdc.set_entries(storage.entries(..1));
    stas.finder().wait_log("lists 1 entries", SOON);
    guest.assert_untouched(&attached);
    stas.finder().reload();
    stas.finder().wait_log("is registered with", SOON);
    guest.wait_for_storage(&storage.nqns(..1), SOON);
}

/// Entries of other ports are not asked for where that is possible.
#[test]
fn port_local_entries() {
    scenario(|guest| {
        let storage = Storage::offer(guest, 2);
        let kinds = [(DcType::Ddc, PLEOS), (DcType::NotReported, PLEOS), (DcType::Ddc, 0), (DcType::Cdc, PLEOS)];
        let dcs = kinds.map(|(dctype, bits)| {
            let dc = Simulator::start("127.0.0.1:0").unwrap();
            dc.behave(|b| {
                b.identity.dctype = dctype;
                b.discovery_log_bits = bits;
            });
            let mut entries = storage.entries(..2);
            entries[0].port_local = true;
            dc.set_entries(entries);
            dc
        });
        let lsp = |dc: &Simulator| dc.recording().log_reads().last().map(|read| read.lsp);
        let asked = |dc: &Simulator| dc.recording().count(Kind::SupportedLogPages);
        guest.write(STAFD_CONF, "");
        let stas = Stas::start(guest, Form::OneProcess);
        stas.finder().wait_log("no system bus", SOON);
        for (number, (dc, expected)) in
            dcs.iter().zip([(Some(2), 1), (Some(2), 1), (Some(0), 1), (Some(0), 0)]).enumerate()
        {
            guest.write(STAFD_CONF, &controller("127.0.0.1", dc.address().port()));
            stas.finder().reload();
            let listed = if expected.0 == Some(2) { storage.nqns(..1) } else { storage.nqns(..2) };
            wait(dc, "the page is read", |seen| seen.count(Kind::DiscoveryLogPage) > 0);
            assert_eq!((lsp(dc), asked(dc)), expected, "{number}");
            guest.wait_for_storage(&listed, SOON);
        }
        // Asked once for each connection, not for each page.
        let first = &dcs[0];
        guest.write(STAFD_CONF, &controller("127.0.0.1", first.address().port()));
        stas.finder().reload();
        guest.wait_for_storage(&storage.nqns(..1), SOON);
        first.change_entries(|entries| entries[1].port_local = true);
        guest.wait_for_storage(&storage.nqns(..2), SOON);
        assert_eq!(asked(first), 2);
        first.change_entries(|entries| entries[1].port_local = false);
        guest.wait_for_storage(&storage.nqns(..1), SOON);

        guest.write(STAFD_CONF, &format!("pleo = \"disabled\"\n{}", controller("127.0.0.1", first.address().port())));
        stas.finder().reload();
        guest.wait_for_storage(&storage.nqns(..2), SOON);
        assert_eq!((lsp(first), asked(first)), (Some(0), 2));
    });
}

#[test]
fn supported_log_pages_that_cannot_be_had() {
    scenario(|guest| {
        let ways: [fn(&mut Behaviour); 2] = [
            |b| b.fail(Kind::SupportedLogPages, Times::Always, Status::INVALID_FIELD.dnr()),
            |b| b.disconnect_on(Kind::SupportedLogPages, Times::Always),
        ];
        let storage = Storage::offer(guest, ways.len());
        let dcs = ways.map(|spoil| {
            let dc = Simulator::start("127.0.0.1:0").unwrap();
            dc.behave(spoil);
            dc
        });
        for (at, dc) in dcs.iter().enumerate() {
            dc.set_entries(storage.entries(at..=at));
        }
        let controllers: String = dcs.iter().map(|dc| controller("127.0.0.1", dc.address().port())).collect();
        guest.write(STAFD_CONF, &format!("{SOON_AGAIN}{controllers}"));
        let mut stas = Stas::start(guest, Form::OneProcess);
        guest.wait_for_storage(&storage.nqns(..), SOON);
        assert!(dcs.iter().all(|dc| dc.recording().count(Kind::SupportedLogPages) == 1));
        stas.assert_running();
    });
}
