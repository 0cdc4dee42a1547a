//! What a child does: one request, one or a few kernel calls that may block, one reply.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde::Serialize;

use super::message::{
    Capabilities, ConnectRequest, ControllerIdentity, Failure, PageRequest, RegisterRequest, Reply, Request,
};
use super::resolve::{SOURCES, resolve};
use super::{Mandate, page, registration, udev_rule};
use crate::config::settings::path_of;
use crate::config::{Exclusions, read_key};
use crate::confine::{Places, confine};
use crate::kernel::in_use::Host;
use crate::kernel::keyring::{self, KeyType};
use crate::kernel::sysfs::{self, Sysfs};
use crate::kernel::{admin, fabrics, interfaces};

/// Longer than any reply or option list.
const REPLY_MAX: u64 = 4096;

pub fn perform(request: Request, mandate: &Mandate) -> (Reply, Option<OwnedFd>) {
    let result = match request {
        Request::ReadOptions => read_options().map(|options| (Reply::Options(options), None)),
        Request::Connect(request) => connect(*request).map(|reply| (reply, None)),
        Request::Disconnect { controller, even_if_used } => {
            let host = Host::this();
            let host = (!even_if_used).then_some(&host);
            Sysfs::new(sysfs::CLASS).disconnect(&controller, host).map(|()| (Reply::Disconnected, None))
        }
        Request::Resolve(name) => {
            // What name servers answer is read here. What cannot be given up the daemon has said by now.
            confine(&Places { read: SOURCES.map(PathBuf::from).into(), write: Vec::new() });
            resolve(&name).map(|addresses| (Reply::Resolved(addresses), None))
        }
        Request::AskFcPorts => {
            fs::write(sysfs::FC_DISCOVERY, "add").map(|()| (Reply::FcPortsTold, None)).map_err(errno)
        }
        Request::ChangeNetwork(_) if !mandate.network => Err(Failure::Errno(Errno::EPERM as i32)),
        Request::ChangeNetwork(requests) => interfaces::change(&requests)
            .map(|()| (Reply::NetworkChanged, None))
            .map_err(|refusal| Failure::Refused(refusal.to_string())),
        Request::OverrideRule(on) => {
            let (overridden, complaint) = udev_rule::set_aside(on);
            Ok((Reply::RuleOverridden(overridden, complaint), None))
        }
        Request::Register(request) => register(&request).map(|reply| (reply, None)),
        Request::Inquire { identity, pleo } => inquire(&identity, pleo).map(|reply| (reply, None)),
        Request::ReadLogPage { identity, how } => {
            read_log_page(&identity, how).map(|(reply, page)| (reply, Some(page)))
        }
        Request::ReadConfiguration => hand_over(&mandate.paths.read()),
        Request::ReadExclusions => hand_over(&Exclusions::read()),
        // Only the helper process itself can do that.
        Request::Another => Err(Failure::NoChild(Errno::EPERM as i32)),
    };
    result.unwrap_or_else(|failure| (Reply::Failed(failure), None))
}

fn read_options() -> Result<Vec<String>, Failure> {
    let device = File::open(fabrics::DEVICE).map_err(errno)?;
    match read_text(&device) {
        Ok(list) => Ok(fabrics::parse_options(&list)),
        // Before 5.17 there is no list, only a reply after a connect.
        Err(Failure::Errno(errno)) if errno == Errno::EINVAL as i32 => {
            Ok(fabrics::BASELINE_OPTIONS.map(str::to_owned).into())
        }
        Err(failure) => Err(failure),
    }
}

fn connect(mut request: ConnectRequest) -> Result<Reply, Failure> {
    fetch_keys(&mut request)?;
    let options = fabrics::option_string(&request)?;
    let mut device = OpenOptions::new().read(true).write(true).open(fabrics::DEVICE).map_err(errno)?;
    // One write is one connect: it must not be split or repeated.
    let written = device.write(options.as_bytes()).map_err(errno);
    written.map_err(|failure| if request.tls { Failure::of_tls(failure) } else { failure })?;
    let (instance, cntlid) = fabrics::parse_reply(&read_text(&device)?).ok_or(Failure::BadReply)?;
    Ok(Reply::Connected { instance, cntlid })
}

/// Reads the keys that are in files, and finds those that are in keyrings.
fn fetch_keys(request: &mut ConnectRequest) -> Result<(), Failure> {
    for secret in [&mut request.dhchap_secret, &mut request.dhchap_ctrl_secret] {
        if let Some(path) = path_of(secret) {
            *secret = read_key(Path::new(path)).map_err(Failure::NoKey)?.reveal().to_owned();
        }
    }
    for (name, kind, what) in
        [(&mut request.tls_key, KeyType::Psk, "pre-shared key"), (&mut request.keyring, KeyType::Keyring, "keyring")]
    {
        if !name.is_empty() {
            let serial = keyring::serial_of(name, kind).map_err(errno)?;
            *name = serial.ok_or_else(|| Failure::NoKey(format!("the kernel has no {what} called {name:?}")))?;
        }
    }
    Ok(())
}

fn register(request: &RegisterRequest) -> Result<Reply, Failure> {
    let file = open(&request.identity)?;
    let device = Sysfs::new(sysfs::CLASS).describe(&request.identity)?;
    let takes_registrations = match device.dctype.as_str() {
        // Before 5.18 the kernel does not tell.
        "" => admin::identify(&file)?.takes_registrations(),
        dctype => matches!(dctype, "ddc" | "cdc"),
    };
    if takes_registrations {
        registration::register(&file, &device, &request.hostid, &request.symname)?;
    }
    Ok(Reply::Registered(takes_registrations))
}

fn inquire(identity: &ControllerIdentity, pleo: bool) -> Result<Reply, Failure> {
    let file = open(identity)?;
    let identified = admin::identify(&file)?;
    let pleo = if pleo && !identified.is_central() {
        match admin::supports_pleo(&file) {
            Err(Failure::NvmeStatus(_)) => None,
            answer => Some(answer?),
        }
    } else {
        None
    };
    Ok(Reply::Capabilities(Capabilities { notices: identified.notices, pleo, piece: identified.piece() }))
}

fn read_log_page(identity: &ControllerIdentity, how: PageRequest) -> Result<(Reply, OwnedFd), Failure> {
    let file = open(identity)?;
    let page = admin::read_discovery_log_page(&file, how)?;
    let file = page::write(&page).map_err(errno)?;
    Ok((Reply::LogPage { bytes: page.len() as u64 }, file))
}

fn hand_over(told: &impl Serialize) -> Result<(Reply, Option<OwnedFd>), Failure> {
    let bytes = postcard::to_allocvec(told).map_err(|_| Failure::BadReply)?;
    let file = page::write(&bytes).map_err(errno)?;
    Ok((Reply::Long { bytes: bytes.len() as u64 }, Some(file)))
}

/// The controller described.
fn open(identity: &ControllerIdentity) -> Result<File, Failure> {
    let number = sysfs::number_of(&identity.device)
        .ok_or_else(|| Failure::BadField("device is not of the form nvmeN".to_owned()))?;
    let file = File::open(format!("/dev/nvme{number}")).map_err(|error| match errno(error) {
        Failure::Errno(errno) if errno == Errno::EAGAIN as i32 => Failure::NotReady,
        Failure::Errno(errno) if errno == Errno::ENOENT as i32 || errno == Errno::ENXIO as i32 => Failure::Gone,
        failure => failure,
    })?;
    // After opening: if the name has changed hands since, the descriptor is of a dead controller, which takes no command.
    Sysfs::new(sysfs::CLASS).check(identity)?;
    Ok(file)
}

fn read_text(device: &File) -> Result<String, Failure> {
    let mut text = String::new();
    device.take(REPLY_MAX).read_to_string(&mut text).map_err(errno)?;
    Ok(text)
}

fn errno(error: io::Error) -> Failure {
    Failure::Errno(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}
