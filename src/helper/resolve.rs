//! Finds the addresses of a host name: `/etc/hosts` first, then the name servers of `/etc/resolv.conf` (hosts(5),
//! resolv.conf(5)).
//!
//! Not getaddrinfo(3): in a static program it costs 180 kB and cannot be relied upon, because it loads the modules that
//! `/etc/nsswitch.conf` names, and those belong to the C library of whatever distribution the program runs on. So
//! nsswitch.conf is not looked at; where names come from elsewhere (LDAP, mDNS, containers), systemd-resolved and the like
//! answer for them as the name server in resolv.conf. Where nsswitch.conf says `files dns`, it is the same.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::message::Failure;
use crate::core::tid::parse_ip;
use crate::kernel::address::socket_address;
use crate::wire::dns::{self, Answer, Kind};

const HOSTS: &str = "/etc/hosts";
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
const RANDOM: &str = "/dev/urandom";
/// All files that are read.
pub const SOURCES: [&str; 3] = [HOSTS, RESOLV_CONF, RANDOM];
const DNS_PORT: u16 = 53;
/// The limits of resolv.conf(5).
const MAX_SERVERS: usize = 3;
const MAX_SEARCH: usize = 6;
const MAX_NDOTS: usize = 15;
const MAX_TIMEOUT: u64 = 30;
const MAX_ATTEMPTS: u32 = 5;
/// More than any name has that storage is behind.
const MAX_ADDRESSES: usize = 32;

/// The addresses of a name, in the order in which they are told, IPv4 first; some have a zone. Blocks for half a minute and more where nobody answers.
pub fn resolve(name: &str) -> Result<Vec<String>, Failure> {
    let text = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let in_hosts = addresses_in(&text(HOSTS), name);
    if !in_hosts.is_empty() {
        return Ok(in_hosts);
    }
    let addresses = ResolvConf::parse(&text(RESOLV_CONF), DNS_PORT).look_up(name).map_err(Failure::Unresolved)?;
    Ok(addresses.iter().take(MAX_ADDRESSES).map(IpAddr::to_string).collect())
}

/// What hosts(5) says of a name.
pub fn addresses_in(hosts: &str, name: &str) -> Vec<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut addresses = Vec::new();
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        if let Some(address) = words.next().filter(|address| parse_ip(address).is_some())
            && words.any(|word| word.eq_ignore_ascii_case(name))
            && addresses.len() < MAX_ADDRESSES
        {
            addresses.push(address.to_owned());
        }
    }
    addresses
}

/// What resolv.conf(5) says, within its limits.
#[derive(Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// At least one.
    pub servers: Vec<SocketAddr>,
    pub search: Vec<String>,
    /// A name with fewer dots is looked for in the search domains first.
    pub ndots: usize,
    pub timeout: Duration,
    pub attempts: u32,
}

impl ResolvConf {
    /// `port`: where the name servers listen.
    pub fn parse(text: &str, port: u16) -> ResolvConf {
        let mut conf = ResolvConf {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if conf.servers.len() < MAX_SERVERS => {
                    conf.servers.extend(words.next().and_then(|ip| socket_address(ip, port).ok().flatten()));
                }
                Some("search") => conf.search = words.map(str::to_owned).take(MAX_SEARCH).collect(),
                Some("domain") => conf.search = words.map(str::to_owned).take(1).collect(),
                Some("options") => words.for_each(|option| conf.set(option)),
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers.push(SocketAddr::from(([127, 0, 0, 1], port)));
        }
        conf
    }

    fn set(&mut self, option: &str) {
        match option.split_once(':').map(|(key, value)| (key, value.parse::<u32>())) {
            Some(("ndots", Ok(dots))) => self.ndots = usize::try_from(dots).unwrap_or(MAX_NDOTS).min(MAX_NDOTS),
            Some(("timeout", Ok(seconds))) => {
                self.timeout = Duration::from_secs(u64::from(seconds).clamp(1, MAX_TIMEOUT))
            }
            Some(("attempts", Ok(attempts))) => self.attempts = attempts.clamp(1, MAX_ATTEMPTS),
            _ => {}
        }
    }

    /// The names that are asked for one after the other until one exists.
    fn candidates(&self, name: &str) -> Vec<String> {
        let as_it_is = [name.to_owned()];
        if name.ends_with('.') {
            return as_it_is.into();
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{}", domain.trim_start_matches('.')));
        if name.bytes().filter(|byte| *byte == b'.').count() >= self.ndots {
            as_it_is.into_iter().chain(searched).collect()
        } else {
            searched.chain(as_it_is).collect()
        }
    }

    fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let mut exists = false;
        for candidate in self.candidates(name) {
            match self.ask_servers(&candidate)? {
                Answer::Addresses(addresses) if !addresses.is_empty() => return Ok(addresses),
                Answer::Addresses(_) => exists = true,
                _ => {}
            }
        }
        let says = if exists { "has no address" } else { "no such name" };
        Err(format!("{says}, neither in {HOSTS} nor by the name server {}", self.name_servers()))
    }

    /// The first answer that a name server has. `Err`: none has any.
    fn ask_servers(&self, name: &str) -> Result<Answer, String> {
        let mut why = format!("no answer from the name server {}", self.name_servers());
        for server in std::iter::repeat_n(&self.servers, self.attempts as usize).flatten() {
            match ask(*server, name, self.timeout) {
                Ok(Answer::Failed(rcode)) => why = format!("the name server {} fails (RCODE {rcode})", server.ip()),
                Ok(answer) => return Ok(answer),
                Err(error) if is_timeout(&error) => {}
                Err(error) => why = format!("the name server {}: {error}", server.ip()),
            }
        }
        Err(why)
    }

    fn name_servers(&self) -> String {
        let servers: Vec<String> = self.servers.iter().map(|server| server.ip().to_string()).collect();
        servers.join(" or ")
    }
}

/// Asks one name server for the addresses of both families, those of IPv4 first.
fn ask(server: SocketAddr, name: &str, timeout: Duration) -> io::Result<Answer> {
    let anywhere: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
    let socket = UdpSocket::bind((anywhere, 0))?;
    // Only it can answer now, and that nothing listens there is known at once.
    socket.connect(server)?;
    let id = random_id()?;
    let not_a_name = || io::Error::new(ErrorKind::InvalidInput, "not a name that DNS could have");
    let query = |id, kind| dns::query(id, name, kind).ok_or_else(not_a_name);
    let queries = [query(id, Kind::A)?, query(id ^ 1, Kind::Aaaa)?];
    for query in &queries {
        socket.send(query)?;
    }
    let mut answers = [None, None];
    let deadline = Instant::now() + timeout;
    while answers.iter().any(Option::is_none) {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left))?;
        let mut buffer = [0; dns::MESSAGE_MAX];
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            // Some servers keep silent about a family that they do not know.
            Err(error) if is_timeout(&error) && answers.iter().any(Option::is_some) => break,
            Err(error) => return Err(error),
        };
        let message = buffer.get(..length).unwrap_or_default();
        for (query, answer) in queries.iter().zip(&mut answers) {
            *answer = answer.take().or_else(|| dns::answer(query, message));
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    answers.into_iter().flatten().reduce(both).ok_or_else(|| ErrorKind::TimedOut.into())
}

/// What two answers say together: an address is more than none, and that the name exists is more than a failure.
fn both(first: Answer, second: Answer) -> Answer {
    match (first, second) {
        (Answer::Addresses(first), Answer::Addresses(second)) => Answer::Addresses([first, second].concat()),
        (Answer::Addresses(some), other) | (other, Answer::Addresses(some)) if some.is_empty() => other,
        (Answer::Addresses(some), _) | (_, Answer::Addresses(some)) => Answer::Addresses(some),
        (first, _) => first,
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Not to be guessed by who would like to answer in the server's stead.
fn random_id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    fs::File::open(RANDOM)?.read_exact(&mut bytes)?;
    Ok(u16::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_has_several_addresses_and_names_in_any_case() {
        let hosts = "127.0.0.1 localhost\n# 192.0.2.9 array\n192.0.2.1\tArray.example.org array # a\nnonsense array\n\
                     fe80::1%eth0 array\n192.0.2.2 other array2\n";
        assert_eq!(addresses_in(hosts, "array"), ["192.0.2.1", "fe80::1%eth0"]);
        assert_eq!(addresses_in(hosts, "ARRAY.example.org."), ["192.0.2.1"]);
        assert_eq!(addresses_in(hosts, "192.0.2.1"), [""; 0]);
        assert_eq!(addresses_in(hosts, "a"), [""; 0]);
    }

    #[test]
    fn resolv_conf_within_its_limits() {
        let text = "# nameserver 192.0.2.9\nnameserver 192.0.2.1\nnameserver nonsense\nnameserver 2001:db8::1\n\
                    domain a.example\nsearch b.example c.example\noptions ndots:99 timeout:0 rotate attempts:3\n";
        let conf = ResolvConf::parse(text, 53);
        let servers = ["192.0.2.1:53", "[2001:db8::1]:53"].map(|server| server.parse().unwrap());
        assert_eq!(conf.servers, servers);
        assert_eq!(conf.search, ["b.example", "c.example"]);
        assert_eq!((conf.ndots, conf.timeout, conf.attempts), (15, Duration::from_secs(1), 3));
        assert_eq!(ResolvConf::parse("", 53).servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn search_domains_come_first_for_short_names() {
        let conf = ResolvConf::parse("search example.org", 53);
        assert_eq!(conf.candidates("array"), ["array.example.org", "array"]);
        assert_eq!(conf.candidates("array.lan"), ["array.lan", "array.lan.example.org"]);
        assert_eq!(conf.candidates("array."), ["array."]);
    }

    /// A name server that knows `array.example.org`, with a question for another name in between.
    fn serve(known: &'static str) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let mut message = buffer[..length].to_vec();
                let is_known =
                    buffer[12..].starts_with(&dns::query(0, known, Kind::A).unwrap()[12..][..known.len() + 2]);
                message[2..4].copy_from_slice(&[0x81, if is_known { 0x80 } else { 0x83 }]);
                if is_known && buffer[length - 3] == 1 {
                    message[7] = 1;
                    message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
                }
                socket.send_to(b"nonsense", peer).unwrap();
                socket.send_to(&message, peer).unwrap();
            }
        });
        address
    }

    fn conf_of(servers: &[SocketAddr]) -> ResolvConf {
        let text = "search example.com example.org\noptions timeout:1 attempts:1";
        ResolvConf { servers: servers.to_vec(), ..ResolvConf::parse(text, 53) }
    }

    #[test]
    fn a_name_server_is_asked() {
        let conf = conf_of(&[serve("array.example.org")]);
        assert_eq!(conf.look_up("array"), Ok(vec![[192, 0, 2, 1].into()]));
        let why = conf.look_up("nothing").unwrap_err();
        assert_eq!(why, "no such name, neither in /etc/hosts nor by the name server 127.0.0.1");
    }

    #[test]
    fn a_dead_name_server_is_passed_over() {
        let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let conf = conf_of(&[dead, serve("array.example.org")]);
        assert_eq!(conf.look_up("array.example.org"), Ok(vec![[192, 0, 2, 1].into()]));
        let why = conf_of(&[dead]).look_up("array").unwrap_err();
        assert!(why.starts_with("the name server 127.0.0.1: Connection refused"), "{why}");
    }
}
