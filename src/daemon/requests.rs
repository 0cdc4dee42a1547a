//! What the daemon asks of the helper process, and what becomes of the answers.
//!
//! Knows which options this kernel has, fills in the connect request, and turns replies into events. When the helper
//! dies, each open request fails and the one in reserve takes its place.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::de::DeserializeOwned;

use crate::config::settings::{ConnectOptions, HostIdentity, Secret};
use crate::config::{Configuration, Exclusions};
use crate::core::device::{ControllerKind, Device};
use crate::core::links::{LinkId, needs_discovery_option};
use crate::core::{Event, Ticket};
use crate::daemon::claims::Claims;
use crate::helper::Helper;
use crate::helper::message::{
    ConnectRequest, ControllerIdentity, Failure, PageRequest, RegisterRequest, Reply, Request, RequestId,
};
use crate::kernel::fabrics;
use crate::kernel::sysfs::{FC_DISCOVERY, Sysfs};

pub use crate::kernel::fabrics::DEVICE as FABRICS;

/// How long to wait before asking for the kernel's options once more.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// How long to wait before looking in sysfs once more.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Whose a controller is to be noted to be.
type Owner = &'static str;

/// What a request was made for.
#[derive(Debug)]
enum Purpose {
    Options,
    Connect(Ticket, Owner),
    Disconnect(Ticket),
    Register(Ticket),
    Inquire(Ticket),
    Page(Ticket),
    Resolve(Ticket),
    FcPorts,
    /// For the HFI of this number.
    Network(usize),
    Configuration,
    Exclusions,
    Rule,
    Reserve,
}

/// What came of a request.
#[derive(Debug)]
pub enum Outcome {
    Event(Event),
    /// The network was changed for the HFI of this number, or could not be.
    Network {
        hfi: usize,
        outcome: Result<(), Failure>,
    },
    Configuration(Result<Configuration, Failure>),
    Exclusions(Result<Exclusions, Failure>),
    /// Whether nvme-cli's udev rule is out of force.
    Rule(bool),
    /// Another helper is in reserve, or not.
    Reserve(Result<(), Failure>),
}

#[derive(Debug)]
pub struct Requests {
    helper: Helper,
    open: BTreeMap<RequestId, Purpose>,
    /// The option names of this kernel, once known.
    options: Vec<String>,
    /// Options that this kernel lacks and that was said of.
    missing: BTreeSet<&'static str>,
    /// When to ask for the options again after that failed.
    ask_again: Option<Instant>,
    /// When to look again in sysfs after that failed.
    look_again: Option<Instant>,
    /// That it failed was said.
    looks_in_vain: bool,
    /// Taken in, but not yet turned into events.
    arrived: VecDeque<Arrival>,
}

/// What came back for a request.
#[derive(Debug)]
struct Arrival {
    purpose: Purpose,
    reply: Reply,
    page: Option<Box<[u8]>>,
}

impl Requests {
    pub fn new(helper: Helper) -> Requests {
        Requests {
            helper,
            open: BTreeMap::new(),
            options: Vec::new(),
            missing: BTreeSet::new(),
            ask_again: None,
            look_again: None,
            looks_in_vain: false,
            arrived: VecDeque::new(),
        }
    }

    /// Asks which options the kernel has, if it can be asked at all: [`Event::FabricsReady`] follows. Whether it can.
    pub fn read_options(&mut self) -> bool {
        let exists = Path::new(FABRICS).exists();
        if exists {
            self.send(&Request::ReadOptions, Purpose::Options);
        }
        exists
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.ask_again.into_iter().chain(self.look_again).min()
    }

    pub fn handle_deadline(&mut self, now: Instant) {
        if self.ask_again.is_some_and(|at| at <= now) {
            self.ask_again = None;
            self.read_options();
        }
    }

    /// The controller will be noted to be its owner's. `host_key`: for controllers that have no key of their own.
    pub fn connect(
        &mut self,
        (ticket, owner): (Ticket, Owner),
        id: &LinkId,
        options: &ConnectOptions,
        host_id: String,
        host_key: Option<&Secret>,
    ) {
        let purpose = Purpose::Connect(ticket, owner);
        let mut request = connect_request(id, options, host_id, host_key);
        self.spare_host_key(&mut request, options);
        match self.fit_to_kernel(&mut request) {
            Ok(()) => self.send(&Request::Connect(Box::new(request)), purpose),
            Err(failure) => self.fail(purpose, failure),
        }
    }

    /// `even_if_used`: also if it is the last way to what this host uses.
    pub fn disconnect(&mut self, ticket: Ticket, device: &Device, even_if_used: bool) {
        let controller = ControllerIdentity::from(device);
        self.send(&Request::Disconnect { controller, even_if_used }, Purpose::Disconnect(ticket));
    }

    pub fn register(&mut self, ticket: Ticket, device: Option<&Device>, host: &HostIdentity) {
        let request = |identity| {
            let (hostid, symname) = (host.id.clone(), host.symname.clone().unwrap_or_default());
            Request::Register(Box::new(RegisterRequest { identity, hostid, symname }))
        };
        self.ask(device, Purpose::Register(ticket), request);
    }

    pub fn inquire(&mut self, ticket: Ticket, device: Option<&Device>, pleo: bool) {
        self.ask(device, Purpose::Inquire(ticket), |identity| Request::Inquire { identity, pleo });
    }

    pub fn read_log_page(&mut self, ticket: Ticket, device: Option<&Device>, how: PageRequest) {
        self.ask(device, Purpose::Page(ticket), |identity| Request::ReadLogPage { identity, how });
    }

    /// Something of a controller that there is.
    fn ask(&mut self, device: Option<&Device>, purpose: Purpose, what: impl FnOnce(ControllerIdentity) -> Request) {
        match device {
            Some(device) => self.send(&what(ControllerIdentity::from(device)), purpose),
            None => self.fail(purpose, Failure::Gone),
        }
    }

    pub fn resolve(&mut self, ticket: Ticket, name: &str) {
        self.send(&Request::Resolve(name.to_owned()), Purpose::Resolve(ticket));
    }

    /// Asks for the ports of Fibre Channel targets: [`Event::FcPortsTold`] follows. Most hosts have no Fibre Channel.
    pub fn ask_fc_ports(&mut self) {
        match Path::new(FC_DISCOVERY).exists() {
            true => self.send(&Request::AskFcPorts, Purpose::FcPorts),
            false => self.fail(Purpose::FcPorts, Failure::Gone),
        }
    }

    /// Changes the network for the HFI of a number: [`Outcome::Network`] follows.
    pub fn change_network(&mut self, hfi: usize, requests: Vec<u8>) {
        self.send(&Request::ChangeNetwork(requests), Purpose::Network(hfi));
    }

    /// [`Outcome::Configuration`] follows.
    pub fn read_configuration(&mut self) {
        self.send(&Request::ReadConfiguration, Purpose::Configuration);
    }

    /// The same, waited for: before there is a loop that would have to wait as well.
    pub fn wait_for_configuration(&mut self) -> Result<Configuration, String> {
        self.read_configuration();
        loop {
            if let Some(arrival) = self.arrived.pop_front() {
                let configuration: Result<Configuration, _> = told(arrival.reply, arrival.page);
                return configuration.map_err(|failure| failure.to_string());
            }
            let events = PollFlags::POLLIN;
            poll(&mut [PollFd::new(self.helper.as_fd(), events)], PollTimeout::NONE)
                .map_err(|errno| errno.to_string())?;
            self.receive().map_err(|error| error.to_string())?;
        }
    }

    /// [`Outcome::Exclusions`] follows.
    pub fn read_exclusions(&mut self) {
        self.send(&Request::ReadExclusions, Purpose::Exclusions);
    }

    /// [`Outcome::Rule`] follows.
    pub fn override_rule(&mut self, on: bool) {
        self.send(&Request::OverrideRule(on), Purpose::Rule);
    }

    /// Has another helper made if there is none in reserve (any more): [`Outcome::Reserve`] follows. To be called on SIGCHLD.
    pub fn mind_reserve(&mut self) {
        let is_asked_for = self.open.values().any(|purpose| matches!(purpose, Purpose::Reserve));
        if !is_asked_for && self.helper.lacks_reserve() {
            self.send(&Request::Another, Purpose::Reserve);
        }
    }

    /// Takes in the replies that have arrived. Every uevent that the kernel sent before them must have been handled
    /// before their events are: call this first, then drain the uevents, then ask [`Requests::poll_outcome`].
    pub fn receive(&mut self) -> io::Result<()> {
        self.helper.flush()?;
        while let Some((id, reply, page)) = self.helper.recv()? {
            if let Some(purpose) = self.open.remove(&id) {
                self.arrived.push_back(Arrival { purpose, reply, page });
            }
        }
        Ok(())
    }

    /// The next outcome. What sysfs shows of a new controller is looked up only now, unless its uevent has made it `known`: had it
    /// gone before the uevents were drained, it is not there; if it goes later, its uevent is still to come. If it cannot be
    /// looked up, all replies wait: a connection of ours that we did not know of would be nobody's. It is noted whose it is.
    pub fn poll_outcome(
        &mut self,
        now: Instant,
        sysfs: &Sysfs,
        known: impl Fn(&str) -> Option<Device>,
        claims: &mut Claims,
    ) -> Option<Outcome> {
        if self.look_again.is_some_and(|at| at > now) {
            return None;
        }
        self.look_again = None;
        let arrival = self.arrived.pop_front()?;
        if let (Purpose::Connect(ticket, owner), Reply::Connected { instance, .. }) = (&arrival.purpose, &arrival.reply)
        {
            let (ticket, owner, name) = (*ticket, *owner, format!("nvme{instance}"));
            let known = known(&name).filter(|device| device.state == "live");
            return match known.map_or_else(|| sysfs.controller(&name), |device| Ok(Some(device))) {
                Ok(device) => {
                    self.looks_in_vain = false;
                    // What was noted about that number so far was about an earlier controller.
                    let device = device.map(|device| Device { owner: Some(owner.to_owned()), ..device });
                    if let Some(device) = &device {
                        claims.made(now, &device.name, owner);
                    }
                    Some(Outcome::Event(Event::Connected { ticket, outcome: Ok(device) }))
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.looks_in_vain, true) {
                        log::error!("{name} was connected, but cannot be looked up: {error}; trying again");
                    }
                    self.arrived.push_front(arrival);
                    self.look_again = now.checked_add(LOOK_AGAIN);
                    None
                }
            };
        }
        let Arrival { purpose, reply, page } = arrival;
        Some(match (purpose, reply) {
            (Purpose::Network(hfi), Reply::NetworkChanged) => Outcome::Network { hfi, outcome: Ok(()) },
            (Purpose::Network(hfi), Reply::Failed(failure)) => Outcome::Network { hfi, outcome: Err(failure) },
            (Purpose::Configuration, reply) => Outcome::Configuration(told(reply, page)),
            (Purpose::Exclusions, reply) => Outcome::Exclusions(told(reply, page)),
            (Purpose::Reserve, Reply::Another { .. }) => Outcome::Reserve(Ok(())),
            (Purpose::Reserve, Reply::Failed(failure)) => Outcome::Reserve(Err(failure)),
            (Purpose::Rule, Reply::RuleOverridden(overridden, complaint)) => {
                complaint.inspect(|complaint| log::warn!("{complaint}"));
                Outcome::Rule(overridden)
            }
            (Purpose::Rule, _) => Outcome::Rule(false),
            (purpose, reply) => Outcome::Event(self.event(now, purpose, reply, page)),
        })
    }

    fn event(&mut self, now: Instant, purpose: Purpose, reply: Reply, page: Option<Box<[u8]>>) -> Event {
        match (purpose, reply, page) {
            (Purpose::Options, Reply::Failed(failure), _) => {
                log::error!(
                    "{FABRICS}: cannot be read: {failure}; nothing can be connected, trying again every minute"
                );
                self.ask_again = now.checked_add(ASK_AGAIN);
                Event::FabricsReady(self.is_ready())
            }
            (purpose, Reply::Failed(failure), _) => failed(purpose, failure),
            (Purpose::Options, Reply::Options(options), _) => {
                self.options = options;
                Event::FabricsReady(true)
            }
            (Purpose::FcPorts, Reply::FcPortsTold, _) => Event::FcPortsTold { answered: true },
            (Purpose::Disconnect(ticket), Reply::Disconnected, _) => Event::Disconnected { ticket, outcome: Ok(()) },
            (Purpose::Register(ticket), Reply::Registered(taken), _) => {
                Event::Registered { ticket, outcome: Ok(taken) }
            }
            (Purpose::Inquire(ticket), Reply::Capabilities(can), _) => Event::Inquired { ticket, outcome: Ok(can) },
            (Purpose::Page(ticket), Reply::LogPage { .. }, Some(page)) => Event::PageRead { ticket, outcome: Ok(page) },
            (Purpose::Resolve(ticket), Reply::Resolved(addresses), _) => {
                Event::Resolved { ticket, outcome: Ok(addresses) }
            }
            (purpose, _, _) => failed(purpose, Failure::BadReply),
        }
    }

    /// Whether the kernel can be asked to connect.
    pub fn is_ready(&self) -> bool {
        !self.options.is_empty()
    }

    /// Whether this kernel has a connect option.
    pub fn knows(&self, option: &str) -> bool {
        self.options.iter().any(|known| known == option)
    }

    /// To be asked on SIGCHLD.
    pub fn has_died(&self) -> bool {
        self.helper.has_died()
    }

    /// The helper in reserve takes the place of the one that died. What was asked of that has failed, as far as anybody can tell.
    pub fn take_over(&mut self) -> io::Result<()> {
        self.helper.take_over()?;
        for (_, purpose) in std::mem::take(&mut self.open) {
            self.fail(purpose, Failure::ChildDied);
        }
        Ok(())
    }

    fn send(&mut self, request: &Request, purpose: Purpose) {
        match self.helper.send(request) {
            Ok(id) => {
                self.open.insert(id, purpose);
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(Errno::EPIPE as i32);
                self.fail(purpose, Failure::Errno(errno));
            }
        }
    }

    fn fail(&mut self, purpose: Purpose, failure: Failure) {
        self.arrived.push_back(Arrival { purpose, reply: Reply::Failed(failure), page: None });
    }

    /// The host's key is for whoever asks for it. Where the kernel cannot use it, nobody is asked to: those who do not
    /// insist on authentication are connected as ever. A key that is given for one controller is not left out.
    fn spare_host_key(&mut self, request: &mut ConnectRequest, options: &ConnectOptions) {
        const OPTION: &str = "dhchap_secret";
        if options.dhchap_secret.is_none() && !request.dhchap_secret.is_empty() && !self.knows(OPTION) {
            request.dhchap_secret.clear();
            if self.missing.insert(OPTION) {
                log::warn!(
                    "this kernel's NVMe driver cannot authenticate: connections are made without the host's key"
                );
            }
        }
    }

    /// Leaves out what the transport or this kernel does not have; says so once for each option.
    fn fit_to_kernel(&mut self, request: &mut ConnectRequest) -> Result<(), Failure> {
        fabrics::drop_foreign(request)?;
        if fabrics::use_known_name(request, &self.options) && self.missing.insert("discovery") {
            log::warn!(
                "this kernel's nvme-fabrics has no option discovery: discovery controllers are asked for by the \
                 well-known NQN"
            );
        }
        for option in fabrics::drop_unsupported(request, &self.options)? {
            if self.missing.insert(option) {
                log::warn!("this kernel's nvme-fabrics has no option {option}: connections are made without it");
            }
        }
        Ok(())
    }
}

impl AsRawFd for Requests {
    fn as_raw_fd(&self) -> RawFd {
        self.helper.as_raw_fd()
    }
}

/// What a long reply says.
fn told<T: DeserializeOwned>(reply: Reply, bytes: Option<Box<[u8]>>) -> Result<T, Failure> {
    match (reply, bytes) {
        (Reply::Long { .. }, Some(bytes)) => postcard::from_bytes(&bytes).map_err(|_| Failure::BadReply),
        (Reply::Failed(failure), _) => Err(failure),
        _ => Err(Failure::BadReply),
    }
}

fn failed(purpose: Purpose, failure: Failure) -> Event {
    match purpose {
        // The others are no events.
        Purpose::Options
        | Purpose::Network(_)
        | Purpose::Configuration
        | Purpose::Exclusions
        | Purpose::Rule
        | Purpose::Reserve => Event::FabricsReady(false),
        Purpose::FcPorts => {
            if failure != Failure::Gone {
                log::warn!("{FC_DISCOVERY}: {failure}; discovery controllers on Fibre Channel may be missed");
            }
            Event::FcPortsTold { answered: false }
        }
        Purpose::Connect(ticket, _) => Event::Connected { ticket, outcome: Err(failure) },
        Purpose::Disconnect(ticket) => Event::Disconnected { ticket, outcome: Err(failure) },
        Purpose::Register(ticket) => Event::Registered { ticket, outcome: Err(failure) },
        Purpose::Inquire(ticket) => Event::Inquired { ticket, outcome: Err(failure) },
        Purpose::Page(ticket) => Event::PageRead { ticket, outcome: Err(failure.to_string()) },
        Purpose::Resolve(ticket) => Event::Resolved { ticket, outcome: Err(failure.to_string()) },
    }
}

fn connect_request(
    id: &LinkId,
    options: &ConnectOptions,
    host_id: String,
    host_key: Option<&Secret>,
) -> ConnectRequest {
    let tid = &id.tid;
    let key = |key: Option<&Secret>| key.map(|key| key.reveal().to_owned()).unwrap_or_default();
    ConnectRequest {
        nqn: tid.subsysnqn().to_owned(),
        transport: tid.transport().as_str().to_owned(),
        traddr: tid.traddr().to_owned(),
        trsvcid: tid.trsvcid().to_owned(),
        host_traddr: tid.host_traddr().to_owned(),
        host_iface: tid.host_iface().to_owned(),
        hostnqn: tid.host_nqn().to_owned(),
        hostid: host_id,
        discovery: needs_discovery_option(id),
        keep_alive_tmo: options.kato,
        queue_size: options.queue_size,
        nr_io_queues: options.nr_io_queues.filter(|_| id.kind == ControllerKind::Io),
        nr_write_queues: options.nr_write_queues.filter(|n| *n > 0 && id.kind == ControllerKind::Io),
        nr_poll_queues: options.nr_poll_queues.filter(|n| *n > 0 && id.kind == ControllerKind::Io),
        reconnect_delay: options.reconnect_delay,
        ctrl_loss_tmo: options.ctrl_loss_tmo,
        fast_io_fail_tmo: options.fast_io_fail_tmo,
        tos: options.tos,
        hdr_digest: options.hdr_digest == Some(true),
        data_digest: options.data_digest == Some(true),
        disable_sqflow: options.disable_sqflow == Some(true),
        duplicate_connect: options.duplicate_connect == Some(true),
        tls: options.wants_tls(),
        tls_key: options.tls_key.clone().filter(|_| options.wants_tls()).unwrap_or_default(),
        keyring: options.keyring.clone().filter(|_| options.wants_tls()).unwrap_or_default(),
        concat: options.concat == Some(true),
        // A controller's own key wins over the host's.
        dhchap_secret: key(options.dhchap_secret.as_ref().or(host_key)),
        dhchap_ctrl_secret: key(options.dhchap_ctrl_secret.as_ref()),
    }
}
