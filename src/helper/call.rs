//! What a child does: one request, one or a few kernel calls that may block, one reply.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::message::{ConnectRequest, ControllerIdentity, Failure, Reply, Request, wipe};
use super::page;
use crate::kernel::sysfs::{self, Sysfs};
use crate::kernel::{admin, fabrics};

/// Longer than any reply or option list.
const REPLY_MAX: u64 = 4096;

pub fn perform(request: Request) -> (Reply, Option<OwnedFd>) {
    let result = match request {
        Request::ReadOptions => read_options().map(|options| (Reply::Options(options), None)),
        Request::Connect(request) => connect(*request).map(|reply| (reply, None)),
        Request::Disconnect(identity) => {
            Sysfs::new(sysfs::CLASS).disconnect(&identity).map(|()| (Reply::Disconnected, None))
        }
        Request::ReadLogPage(identity) => read_log_page(&identity).map(|(reply, page)| (reply, Some(page))),
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
    let options = fabrics::option_string(&request)?.into_bytes();
    request.wipe();
    let mut device = OpenOptions::new().read(true).write(true).open(fabrics::DEVICE).map_err(errno)?;
    // One write is one connect: it must not be split or repeated.
    let written = device.write(&options);
    wipe(options);
    written.map_err(errno)?;
    let (instance, cntlid) = fabrics::parse_reply(&read_text(&device)?).ok_or(Failure::BadReply)?;
    Ok(Reply::Connected { instance, cntlid })
}

fn read_log_page(identity: &ControllerIdentity) -> Result<(Reply, OwnedFd), Failure> {
    let number = sysfs::number_of(&identity.device)
        .ok_or_else(|| Failure::BadField("device is not of the form nvmeN".to_owned()))?;
    let device = File::open(format!("/dev/nvme{number}")).map_err(|error| match errno(error) {
        Failure::Errno(errno) if errno == Errno::EAGAIN as i32 => Failure::NotReady,
        Failure::Errno(errno) if errno == Errno::ENOENT as i32 || errno == Errno::ENXIO as i32 => Failure::Gone,
        failure => failure,
    })?;
    // After opening: if the name has changed hands since, the descriptor is of a dead controller, which sends no page.
    Sysfs::new(sysfs::CLASS).check(identity)?;
    let page = admin::read_discovery_log_page(&device)?;
    let file = page::write(&page).map_err(errno)?;
    Ok((Reply::LogPage { bytes: page.len() as u64 }, file))
}

fn read_text(device: &File) -> Result<String, Failure> {
    let mut text = String::new();
    device.take(REPLY_MAX).read_to_string(&mut text).map_err(errno)?;
    Ok(text)
}

fn errno(error: io::Error) -> Failure {
    Failure::Errno(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}
