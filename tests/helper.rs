//! The helper process, seen from the daemon's side.
//!
//! It forks, so it needs a process with a single thread: this test has no harness and runs its cases one after another. An
//! alarm ends it should something never happen.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigHandler, Signal, kill, raise, signal};
use nix::sys::socket::MsgFlags;
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpgrp, mkfifo, pipe, setpgid};

use stas::helper::message::{
    ConnectRequest, ControllerIdentity, Failure, PageRequest, RegisterRequest, Reply, Request,
};
use stas::helper::{Answer, Helper, Mandate};

fn main() {
    // A group of its own, for a signal to the whole group.
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).unwrap();
    nix::unistd::alarm::set(120);
    let cases: [(&str, fn()); 14] = [
        ("a_host_without_nvme_fails_cleanly", a_host_without_nvme_fails_cleanly),
        ("hostile_fields_are_refused", hostile_fields_are_refused),
        ("nonsense_is_no_request", nonsense_is_no_request),
        ("every_request_gets_its_own_reply", every_request_gets_its_own_reply),
        ("a_stuck_child_holds_up_nobody", a_stuck_child_holds_up_nobody),
        ("a_child_that_dies_is_reported", a_child_that_dies_is_reported),
        ("requests_wait_for_room", requests_wait_for_room),
        ("an_absurd_request_is_refused", an_absurd_request_is_refused),
        ("a_log_page_arrives", a_log_page_arrives),
        ("the_helper_outlives_a_signal_to_the_group", the_helper_outlives_a_signal_to_the_group),
        ("the_helper_ends_with_the_daemon", the_helper_ends_with_the_daemon),
        ("the_death_of_the_helper_is_seen", the_death_of_the_helper_is_seen),
        ("the_one_in_reserve_takes_over", the_one_in_reserve_takes_over),
        ("inherited_descriptors_are_closed", inherited_descriptors_are_closed),
    ];
    for (name, case) in cases {
        case();
        println!("test {name} ... ok");
    }
}

/// What children do here; the NQN says what.
fn call(request: Request) -> (Reply, Option<OwnedFd>) {
    match request {
        Request::Connect(request) => match request.nqn.as_str() {
            "die" => {
                raise(Signal::SIGKILL).unwrap();
                unreachable!()
            }
            // Opening a named pipe blocks until the test opens its other end.
            "hang" => {
                let _ = File::open(&request.traddr);
                (Reply::Connected { instance: 0, cntlid: 0 }, None)
            }
            _ => (Reply::Connected { instance: request.keep_alive_tmo.unwrap_or(0), cntlid: 1 }, None),
        },
        Request::ReadLogPage { identity, .. } => {
            let file = memfd_create("page", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
            let mut file = File::from(file);
            file.write_all(&[7; 2048]).unwrap();
            if identity.device == "nvme1" {
                fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all())).unwrap();
            }
            (Reply::LogPage { bytes: 2048 }, Some(file.into()))
        }
        _ => (Reply::Failed(Failure::Gone), None),
    }
}

fn helper() -> Helper {
    Helper::start_with(call).unwrap()
}

fn connect(nqn: &str, traddr: &str, keep_alive_tmo: u32) -> Request {
    let keep_alive_tmo = Some(keep_alive_tmo);
    Request::Connect(Box::new(ConnectRequest {
        nqn: nqn.to_owned(),
        traddr: traddr.to_owned(),
        keep_alive_tmo,
        ..ConnectRequest::default()
    }))
}

fn identity(device: &str) -> ControllerIdentity {
    ControllerIdentity {
        device: device.to_owned(),
        transport: "tcp".to_owned(),
        traddr: String::new(),
        trsvcid: String::new(),
        subsysnqn: String::new(),
        hostnqn: String::new(),
        host_traddr: String::new(),
        host_iface: String::new(),
        owner: None,
    }
}

fn read_log_page(device: &str) -> Request {
    Request::ReadLogPage { identity: identity(device), how: PageRequest::default() }
}

/// As the daemon's loop does it, but for this socket only.
fn next(helper: &mut Helper) -> Answer {
    loop {
        if let Some(answer) = helper.recv().unwrap() {
            return answer;
        }
        let events = if helper.unsent() > 0 { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        // SAFETY: the helper outlives the borrow.
        let socket = unsafe { BorrowedFd::borrow_raw(helper.as_raw_fd()) };
        poll(&mut [PollFd::new(socket, events)], PollTimeout::NONE).unwrap();
        helper.flush().unwrap();
    }
}

fn fifo(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("stas-helper-{}-{name}", std::process::id()));
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    path
}

/// Lets the child go that opened, or will open, this named pipe.
fn release(path: &Path) {
    OpenOptions::new().write(true).open(path).unwrap();
    fs::remove_file(path).unwrap();
}

fn a_host_without_nvme_fails_cleanly() {
    if Path::new("/dev/nvme-fabrics").exists() {
        return;
    }
    let mut helper = Helper::start(Mandate::default()).unwrap();
    let gone = Reply::Failed(Failure::Gone);
    let enoent = Reply::Failed(Failure::Errno(Errno::ENOENT as i32));
    let mut expected = BTreeMap::new();
    for (request, reply) in [
        (Request::ReadOptions, &enoent),
        (
            Request::Connect(Box::new(ConnectRequest {
                nqn: "nqn.x".into(),
                transport: "tcp".into(),
                ..ConnectRequest::default()
            })),
            &enoent,
        ),
        (Request::Disconnect { controller: identity("nvme12345"), even_if_used: false }, &gone),
        (read_log_page("nvme12345"), &gone),
    ] {
        expected.insert(helper.send(&request).unwrap(), reply.clone());
    }
    while !expected.is_empty() {
        let (id, reply, page) = next(&mut helper);
        assert_eq!(expected.remove(&id), Some(reply));
        assert_eq!(page, None);
    }
}

/// Whatever a daemon that was taken over asks for, the helper builds no option string with more options than there are fields,
/// and no path with more parts.
fn hostile_fields_are_refused() {
    let mut helper = Helper::start(Mandate::default()).unwrap();
    let mut refused = |request: Request| {
        let id = helper.send(&request).unwrap();
        let (answered, reply, _) = next(&mut helper);
        assert_eq!(answered, id);
        assert!(matches!(reply, Reply::Failed(Failure::BadField(_))), "{request:?}: {reply:?}");
    };
    let long = "x".repeat(300);
    type Set = fn(&mut ConnectRequest, String);
    let fields: [Set; 9] = [
        |request, value| request.nqn = value,
        |request, value| request.transport = value,
        |request, value| request.traddr = value,
        |request, value| request.trsvcid = value,
        |request, value| request.host_traddr = value,
        |request, value| request.host_iface = value,
        |request, value| request.hostnqn = value,
        |request, value| request.hostid = value,
        |request, value| request.dhchap_secret = value,
    ];
    for set in fields {
        for hostile in ["x,tls", "x\n", "\n", "x\0y", "x,", ",", "\u{85}", &long] {
            let (nqn, transport) = ("nqn.x".to_owned(), "tcp".to_owned());
            let mut request = ConnectRequest { nqn, transport, ..ConnectRequest::default() };
            set(&mut request, hostile.to_owned());
            refused(Request::Connect(Box::new(request)));
        }
    }
    for device in
        ["", "nvme", "nvme-1", "nvme+1", "../nvme0", "nvme0/../nvme1", "nvme0n1", "nvme0\0", "nvme99999999999", "sda"]
    {
        let described = || identity(device);
        refused(Request::Disconnect { controller: described(), even_if_used: true });
        refused(Request::Inquire { identity: described(), pleo: true });
        refused(read_log_page(device));
        let (hostid, symname) = (String::new(), String::new());
        refused(Request::Register(Box::new(RegisterRequest { identity: described(), hostid, symname })));
    }
}

/// What is no request is no reason to end, however long it is or deep.
fn nonsense_is_no_request() {
    let mut helper = helper();
    let deep = "[".repeat(60_000);
    for nonsense in ["x", "[]", "[1]", "[1,\"Reboot\"]", "[1,{\"Resolve\":7}]", "[-1,\"Another\"]", &deep] {
        let sent = nix::sys::socket::send(helper.as_raw_fd(), nonsense.as_bytes(), MsgFlags::empty());
        assert_eq!(sent, Ok(nonsense.len()));
    }
    let id = helper.send(&connect("ok", "", 1)).unwrap();
    assert_eq!(next(&mut helper).0, id);
}

fn every_request_gets_its_own_reply() {
    let mut helper = helper();
    let mut expected: BTreeMap<_, _> = (0..200)
        .map(|n| (helper.send(&connect("ok", "", n)).unwrap(), Reply::Connected { instance: n, cntlid: 1 }))
        .collect();
    while !expected.is_empty() {
        let (id, reply, _) = next(&mut helper);
        assert_eq!(expected.remove(&id), Some(reply));
    }
    assert_eq!(helper.recv().unwrap(), None);
}

fn a_stuck_child_holds_up_nobody() {
    let mut helper = helper();
    let path = fifo("stuck");
    let stuck = helper.send(&connect("hang", path.to_str().unwrap(), 0)).unwrap();
    let quick = helper.send(&connect("ok", "", 1)).unwrap();
    assert_eq!(next(&mut helper).0, quick);
    release(&path);
    assert_eq!(next(&mut helper).0, stuck);
}

fn a_child_that_dies_is_reported() {
    let mut helper = helper();
    let doomed: Vec<_> = (0..20).map(|_| helper.send(&connect("die", "", 0)).unwrap()).collect();
    let mut reported: Vec<_> = doomed
        .iter()
        .map(|_| {
            let (id, reply, _) = next(&mut helper);
            assert_eq!(reply, Reply::Failed(Failure::ChildDied));
            id
        })
        .collect();
    reported.sort_unstable();
    assert_eq!(reported, doomed);
}

fn requests_wait_for_room() {
    let mut helper = helper();
    kill(helper.pid(), Signal::SIGSTOP).unwrap();
    assert!(matches!(waitpid(helper.pid(), Some(WaitPidFlag::WUNTRACED)), Ok(WaitStatus::Stopped(..))));
    let padding = "x".repeat(30_000);
    let mut sent = 0;
    while helper.unsent() < 5 {
        sent += 1;
        helper.send(&connect("ok", &padding, sent)).unwrap();
    }
    kill(helper.pid(), Signal::SIGCONT).unwrap();
    let mut instances: Vec<_> = (0..sent)
        .map(|_| match next(&mut helper).1 {
            Reply::Connected { instance, .. } => instance,
            other => panic!("{other:?}"),
        })
        .collect();
    instances.sort_unstable();
    assert_eq!(instances, (1..=sent).collect::<Vec<_>>());
    assert_eq!(helper.unsent(), 0);
}

fn an_absurd_request_is_refused() {
    let mut helper = helper();
    assert!(helper.send(&connect("ok", &"x".repeat(70_000), 0)).is_err());
    let id = helper.send(&connect("ok", "", 0)).unwrap();
    assert_eq!(next(&mut helper).0, id);
}

fn a_log_page_arrives() {
    let mut helper = helper();
    let id = helper.send(&read_log_page("nvme1")).unwrap();
    assert_eq!(next(&mut helper), (id, Reply::LogPage { bytes: 2048 }, Some(vec![7; 2048].into())));
    helper.send(&read_log_page("nvme2")).unwrap();
    let (_, unsealed, page) = next(&mut helper);
    assert!(matches!(unsealed, Reply::Failed(Failure::BadPage(_))));
    assert_eq!(page, None);
}

fn the_helper_outlives_a_signal_to_the_group() {
    let mut helper = helper();
    // It is set up once it has answered.
    helper.send(&connect("ok", "", 0)).unwrap();
    next(&mut helper);
    for sent in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: no handler function is installed.
        let before = unsafe { signal(sent, SigHandler::SigIgn) }.unwrap();
        kill(Pid::from_raw(-getpgrp().as_raw()), sent).unwrap();
        // SAFETY: as above.
        unsafe { signal(sent, before) }.unwrap();
    }
    let id = helper.send(&connect("ok", "", 0)).unwrap();
    assert_eq!(next(&mut helper).0, id);
    assert!(!helper.has_died());
}

fn the_helper_ends_with_the_daemon() {
    let mut helper = helper();
    let path = fifo("left");
    helper.send(&connect("hang", path.to_str().unwrap(), 0)).unwrap();
    let pid = helper.pid();
    drop(helper);
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
    release(&path);
}

fn the_death_of_the_helper_is_seen() {
    let helper = helper();
    assert!(!helper.has_died());
    kill(helper.pid(), Signal::SIGKILL).unwrap();
    waitid(Id::Pid(helper.pid()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    assert!(helper.has_died());
    let mut helper = helper;
    assert!(helper.recv().is_err());
    assert!(helper.send(&connect("ok", "", 0)).is_err());
}

fn the_one_in_reserve_takes_over() {
    let mut helper = helper();
    let mut pids = vec![helper.pid()];
    for _ in 0..3 {
        kill(helper.pid(), Signal::SIGKILL).unwrap();
        waitid(Id::Pid(helper.pid()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        helper.take_over().unwrap();
        assert!(!pids.contains(&helper.pid()) && helper.lacks_reserve());
        pids.push(helper.pid());
        let id = helper.send(&connect("ok", "", 1)).unwrap();
        assert_eq!(next(&mut helper).0, id);
        let id = helper.send(&Request::Another).unwrap();
        assert!(matches!(next(&mut helper), (answered, Reply::Another { .. }, None) if answered == id));
        assert!(!helper.lacks_reserve() && !helper.has_died());
    }
    kill(helper.pid(), Signal::SIGKILL).unwrap();
    helper.take_over().unwrap();
    assert!(helper.take_over().is_err(), "there is none left");
}

fn inherited_descriptors_are_closed() {
    let (reader, writer) = pipe().unwrap();
    let mut helper = helper();
    drop(writer);
    helper.send(&connect("ok", "", 0)).unwrap();
    next(&mut helper);
    let mut bytes = Vec::new();
    assert_eq!(File::from(reader).read_to_end(&mut bytes).unwrap(), 0);
}
