//! One discovery controller: the commands of one host, executed. No sockets and no threads here: a command goes in, its
//! completion comes out.
//!
//! Facts: NVM Express Base Specification 2.0, sections 5 and 6; what a Linux host asks for, `drivers/nvme/host/fabrics.c`
//! and `core.c`.

use super::behaviour::Behaviour;
use super::commands::{ConnectData, Kind, LSP_PLEO, LogRead, Sqe, Status};
use super::events::{DISCOVERY_LOG_CHANGED, Events};
use super::identity::{DISCOVERY_LOG_CHANGE, DcType, Properties};
use super::log::{DiscoveryLog, supported_log_pages};

/// Feature identifiers.
const ASYNC_EVENT_CONFIGURATION: u8 = 0x0b;
const KEEP_ALIVE_TIMER: u8 = 0x0f;

/// The longest log page read executed, in bytes.
const MAX_READ: u64 = 64 << 20;

/// The end of a command.
#[derive(Default)]
pub struct Completion {
    pub cid: u16,
    pub status: Option<Status>,
    pub result: u64,
    pub data: Vec<u8>,
}

impl Completion {
    /// Dword 0 of the completion, and no data.
    fn result(result: impl Into<u64>) -> Outcome {
        Ok(Some(Self { result: result.into(), ..Self::default() }))
    }

    fn data(data: Vec<u8>) -> Outcome {
        Ok(Some(Self { data, ..Self::default() }))
    }

    /// The completion of command `cid` that reports a failure.
    pub fn failure(cid: u16, status: Status) -> Self {
        Self { cid, status: Some(status), ..Self::default() }
    }

    /// The completion of an Asynchronous Event Request.
    pub fn event(cid: u16, result: u32) -> Self {
        Self { cid, result: result.into(), ..Self::default() }
    }
}

/// A completion, nothing yet, or the status to fail with.
type Outcome = Result<Option<Completion>, Status>;

/// The controller a host's connection made.
pub struct Controller {
    cntlid: u16,
    /// Set by Connect.
    pub host: Option<ConnectData>,
    properties: Properties,
    pub events: Events,
    keep_alive: u32,
}

impl Controller {
    pub fn new(cntlid: u16) -> Self {
        Self { cntlid, host: None, properties: Properties::default(), events: Events::default(), keep_alive: 0 }
    }

    /// Executes a command; `data` came with it. `None` when its completion comes later, if ever.
    pub fn execute(
        &mut self,
        behaviour: &mut Behaviour,
        log: &mut DiscoveryLog,
        sqe: &Sqe,
        data: &[u8],
    ) -> Option<Completion> {
        let outcome = match sqe.kind() {
            Kind::Connect => self.connect(behaviour, sqe, data),
            _ if self.host.is_none() => Err(Status::COMMAND_SEQUENCE_ERROR.dnr()),
            Kind::PropertyGet => self.property_get(sqe),
            Kind::PropertySet => self.property_set(sqe),
            Kind::Identify => self.identify(behaviour, sqe),
            Kind::KeepAlive => Completion::result(0_u64),
            Kind::SetFeatures => self.set_features(sqe),
            Kind::GetFeatures => self.get_features(sqe),
            Kind::AsynchronousEventRequest => return self.event_request(sqe),
            Kind::SupportedLogPages => supported(behaviour, sqe),
            Kind::DiscoveryLogPage => self.discovery_log(behaviour, log, sqe),
            Kind::OtherLogPage => Err(Status::INVALID_FIELD.dnr()),
            Kind::DiscoveryInformationManagement => match behaviour.identity.dctype {
                DcType::NotReported => Err(Status::INVALID_OPCODE.dnr()),
                DcType::Ddc | DcType::Cdc => Completion::result(0_u64),
            },
            Kind::Other => Err(Status::INVALID_OPCODE.dnr()),
        };
        let completion = outcome.unwrap_or_else(|status| Some(Completion::failure(0, status)))?;
        Some(Completion { cid: sqe.cid(), ..completion })
    }

    fn connect(&mut self, behaviour: &Behaviour, sqe: &Sqe, data: &[u8]) -> Outcome {
        let host = ConnectData::parse(data)
            .filter(|host| sqe.connect_qid() == 0 && behaviour.identity.answers_to(&host.subsysnqn))
            .ok_or(Status::CONNECT_INVALID_PARAMETERS.dnr())?;
        self.host = Some(host);
        Completion::result(self.cntlid)
    }

    fn property_get(&self, sqe: &Sqe) -> Outcome {
        let value = self.properties.get(sqe.cdw(11));
        Completion::result(value.ok_or(Status::INVALID_FIELD.dnr())?)
    }

    fn property_set(&mut self, sqe: &Sqe) -> Outcome {
        let set = self.properties.set(sqe.cdw(11), sqe.property_value());
        set.ok_or(Status::INVALID_FIELD.dnr())?;
        Completion::result(0_u64)
    }

    fn identify(&self, behaviour: &Behaviour, sqe: &Sqe) -> Outcome {
        const CNS_CONTROLLER: u32 = 1;
        if sqe.cdw(10) & 0xff != CNS_CONTROLLER {
            return Err(Status::INVALID_FIELD.dnr());
        }
        Completion::data(behaviour.identity.identify_controller(self.cntlid))
    }

    fn set_features(&mut self, sqe: &Sqe) -> Outcome {
        let value = sqe.cdw(11);
        match sqe.cdw(10) as u8 {
            ASYNC_EVENT_CONFIGURATION => self.events.enabled = value & DISCOVERY_LOG_CHANGE != 0,
            KEEP_ALIVE_TIMER => self.keep_alive = value,
            _ => return Err(Status::INVALID_FIELD.dnr()),
        }
        Completion::result(0_u64)
    }

    fn get_features(&self, sqe: &Sqe) -> Outcome {
        match sqe.cdw(10) as u8 {
            ASYNC_EVENT_CONFIGURATION if self.events.enabled => Completion::result(DISCOVERY_LOG_CHANGE),
            ASYNC_EVENT_CONFIGURATION => Completion::result(0_u64),
            KEEP_ALIVE_TIMER => Completion::result(self.keep_alive),
            _ => Err(Status::INVALID_FIELD.dnr()),
        }
    }

    fn event_request(&mut self, sqe: &Sqe) -> Option<Completion> {
        match self.events.request(sqe.cid()) {
            Ok(reported) => reported.map(|cid| Completion::event(cid, DISCOVERY_LOG_CHANGED)),
            Err(status) => Some(Completion::failure(sqe.cid(), status)),
        }
    }

    fn discovery_log(&mut self, behaviour: &mut Behaviour, log: &mut DiscoveryLog, sqe: &Sqe) -> Outcome {
        let (read, length) = allowed(behaviour, sqe)?;
        let data = behaviour.read_log(log, read.lsp & LSP_PLEO != 0, read.offset, length);
        if !read.rae {
            self.events.clear();
        }
        if behaviour.restless_generation.take() {
            log.generation += 1;
        }
        Completion::data(data)
    }
}

fn supported(behaviour: &Behaviour, sqe: &Sqe) -> Outcome {
    let (read, length) = allowed(behaviour, sqe)?;
    let page = supported_log_pages(behaviour.discovery_log_bits);
    let offset = usize::try_from(read.offset).unwrap_or(usize::MAX);
    let mut data = page.get(offset..).unwrap_or_default().to_vec();
    data.resize(length, 0);
    Completion::data(data)
}

/// A log page read and its length, when a controller of this MDTS executes it.
fn allowed(behaviour: &Behaviour, sqe: &Sqe) -> Result<(LogRead, usize), Status> {
    let limit = match behaviour.identity.mdts {
        0 => MAX_READ,
        mdts => MAX_READ.min(4096_u64.checked_shl(mdts.into()).unwrap_or(MAX_READ)),
    };
    let read = sqe.log_read().filter(|read| read.length <= limit);
    let read = read.ok_or(Status::INVALID_FIELD.dnr())?;
    // A host that made room for less than it asks for gets what fits.
    Ok((read, sqe.data_length().min(read.length as usize)))
}
