//! Every way in which evidence can be missing, in one place: none of them takes a path down, and none of them keeps
//! real evidence from counting afterwards.

use super::*;
use crate::core::Report;
use crate::core::finder::Origin;

/// What goes wrong, and how the world is told.
type Case = (&'static str, fn(&mut World));

const IN_ONE_PROCESS: &[Case] = &[
    ("nothing", |_| {}),
    ("the discovery controller's connection is lost and the kernel gives it up", |world| world.removed("nvme0")),
    ("and it cannot be reached for long", |world| {
        world.removed("nvme0");
        for _ in 0..20 {
            world.fail_probe(DC);
            world.pass_secs(120);
        }
    }),
    ("it answers and refuses", |world| {
        world.removed("nvme0");
        world.answer_probe(DC);
        world.connect_fails(Errno::EIO);
    }),
    ("the page cannot be read", |world| {
        world.aen("nvme0");
        world.page_read(Err("no".into()));
    }),
    ("the page changes all the time", |world| {
        world.aen("nvme0");
        world.page_read(Err(Failure::Inconsistent { attempts: 8 }.to_string()));
    }),
    ("the page is cut", |world| {
        world.aen("nvme0");
        world.page_read(Ok(page(&[PATH])[..1500].into()));
    }),
    ("the page claims what it does not have", |world| {
        let mut bytes = page(&[]);
        bytes[8..16].fill(0xff);
        world.aen("nvme0");
        world.page_read(Ok(bytes.into()));
    }),
    ("the page has a format of the future", |world| {
        let mut bytes = page(&[]);
        bytes[16] = 1;
        world.aen("nvme0");
        world.page_read(Ok(bytes.into()));
    }),
    ("the page is read while the connection is lost", |world| {
        world.aen("nvme0");
        let (ticket, _) = world.page_reads.remove(0);
        world.removed("nvme0");
        world.event(Event::PageRead { ticket, outcome: Ok(page(&[]).into()) });
    }),
    ("an empty page comes for a question that nobody asked", |world| {
        world.event(Event::PageRead { ticket: 4711, outcome: Ok(page(&[]).into()) });
    }),
    ("its name is another controller's", |world| {
        world.aen("nvme0");
        let (ticket, _) = world.page_reads.remove(0);
        world.up(&serving(&dc("192.0.2.99"), "nvme0"));
        world.event(Event::PageRead { ticket, outcome: Ok(page(&[]).into()) });
    }),
    ("events are lost, and the discovery controller is gone", |world| {
        world.event(Event::DevicesRead(vec![serving(&io(PATH), "nvme1")]));
    }),
    ("the configuration is read again, unchanged", World::configure),
    ("the discovery controller is replaced by one that is silent", |world| {
        world.settings.discovery = vec![entry("192.0.2.2", "")];
        world.configure();
        world.fail_probe("192.0.2.2");
    }),
    ("another one is added that lists nothing", |world| {
        world.settings.discovery.push(entry("192.0.2.2", ""));
        world.configure();
        world.connect("192.0.2.2", "nvme5");
        world.page(&[]);
    }),
    ("announcements come and go", |world| {
        world.announce(&["192.0.2.3"]);
        world.announce(&[]);
    }),
    ("the I/O controller itself is lost and is silent", |world| {
        world.removed("nvme1");
        world.fail_probe("192.0.2.9");
        world.pass_secs(600);
    }),
    ("connecting is impossible", |world| world.event(Event::FabricsReady(false))),
    ("the daemon stops", |world| world.event(Event::Stop)),
];

#[test]
fn missing_evidence_takes_nothing_down_in_one_process() {
    for (what, happens) in IN_ONE_PROCESS {
        let mut world = World::with_path();
        happens(&mut world);
        world.pass_secs(3600);
        assert_eq!(world.disconnects.iter().filter(|(_, device)| device.name == "nvme1").count(), 0, "{what}");
        assert!(world.machine.links().is_wanted(&io(PATH)), "{what}");
    }
}

fn reported(testimony: Testimony) -> Report {
    Report { source: dc(DC).tid, testimony, referrals: BTreeSet::new(), origin: Origin::Configured, connected: true }
}

/// The same with the finder in another process.
fn in_two_processes() -> World {
    let mut world = World::with_roles(CONNECTOR);
    world.configure();
    world.event(Event::FinderReports(vec![reported(fresh(&[PATH]))]));
    world.connect("192.0.2.9", "nvme1");
    world.pass_secs(60);
    world
}

const IN_TWO_PROCESSES: &[Case] = &[
    ("the finder goes away, or the bus does", |world| world.event(Event::FinderGone)),
    ("it comes back and has read nothing yet", |world| {
        world.event(Event::FinderGone);
        world.event(Event::FinderReports(vec![reported(stale(&[]))]));
    }),
    ("it cannot read the page", |world| world.event(Event::FinderReports(vec![reported(stale(&[PATH]))]))),
    ("it is that of nvme-stas, which mentions nothing", |world| {
        world.event(Event::FinderGone);
        world.event(Event::FinderMentions(vec![]));
    }),
    ("it is that of nvme-stas, which has no page", |world| {
        world.event(Event::FinderMentions(vec![reported(stale(&[]))]));
    }),
    ("its discovery controller was announced, and it has forgotten it", |world| {
        let report = Report { origin: Origin::Discovered, connected: false, ..reported(stale(&[PATH])) };
        world.event(Event::FinderReports(vec![report]));
        world.event(Event::FinderReports(vec![]));
    }),
    ("the configuration is read again", World::configure),
];

#[test]
fn missing_evidence_takes_nothing_down_in_two_processes() {
    for (what, happens) in IN_TWO_PROCESSES {
        let mut world = in_two_processes();
        happens(&mut world);
        world.pass_secs(3600);
        world.assert_nothing_to_do();
        assert_eq!(world.machine.links().devices().count(), 1, "{what}");
    }
}

/// After a restart: what the earlier run left, and nobody has been heard.
const AFTER_A_RESTART: &[Case] = &[
    ("nobody is heard", |world| world.configure()),
    ("the discovery controller is silent", |world| {
        world.configure();
        world.fail_probe(DC);
    }),
    ("its first page cannot be read", |world| {
        world.configure();
        world.connect(DC, "nvme0");
        world.page_read(Err("no".into()));
    }),
    ("another one is heard first", |world| {
        world.settings.discovery.push(entry("192.0.2.2", ""));
        world.configure();
        world.let_through("192.0.2.2");
        world.connect_ok("nvme5");
        world.page(&[]);
    }),
    ("it was replaced meanwhile, and the new one is silent", |world| {
        world.settings.discovery = vec![entry("192.0.2.2", "")];
        world.configure();
        world.fail_probe("192.0.2.2");
    }),
];

fn restarted() -> World {
    let before = World::with_path();
    let legacy = before.machine.legacy(before.now);
    let mut world = World::new();
    world.inherit(legacy, vec![serving(&io(PATH), "nvme1")]);
    world.settings.discovery = vec![entry(DC, "")];
    world
}

#[test]
fn missing_evidence_takes_nothing_down_after_a_restart() {
    for (what, happens) in AFTER_A_RESTART {
        let mut world = restarted();
        happens(&mut world);
        world.pass_secs(3600);
        assert_eq!(world.disconnecting(), [""; 0], "{what}");
        assert_eq!(world.device_of(&io(PATH)), Some("nvme1"), "{what}");
    }
}

/// The rule is no dead letter: after any of it, a page that was read whole counts.
#[test]
fn evidence_counts_afterwards() {
    for (what, happens) in &IN_ONE_PROCESS[..9] {
        let mut world = World::with_path();
        happens(&mut world);
        world.pass_secs(120);
        if world.device_of(&dc(DC)).is_none() {
            world.let_through(DC);
            world.connect_ok("nvme9");
        }
        let device = world.device_of(&dc(DC)).unwrap().to_owned();
        if world.page_reads.is_empty() {
            world.aen(&device);
        }
        world.page(&[]);
        assert_eq!(world.disconnecting(), ["nvme1"], "{what}");
    }
    for (what, happens) in &IN_TWO_PROCESSES[..3] {
        let mut world = in_two_processes();
        happens(&mut world);
        world.event(Event::FinderReports(vec![reported(fresh(&[]))]));
        assert_eq!(world.disconnecting(), ["nvme1"], "{what}");
    }
    for (what, happens) in &AFTER_A_RESTART[..2] {
        let mut world = restarted();
        happens(&mut world);
        world.pass_secs(120);
        world.let_through(DC);
        world.connect_ok("nvme0");
        world.page(&[]);
        assert_eq!(world.disconnecting(), ["nvme1"], "{what}");
    }
}
