//! What Avahi's browsers and resolvers say, taken out of their signals. Pure, and without trust: the texts were written
//! by whoever announces a service in the local network.
//!
//! Facts: Avahi's `org.freedesktop.Avahi.ServiceBrowser.xml` and `org.freedesktop.Avahi.ServiceResolver.xml`, the same
//! in 0.6 to 0.9.

use rustbus::wire::errors::UnmarshalError;

use crate::bus::message::Message;
use crate::core::announcement::{Announcement, Claims};
use crate::wire::txt::Txt;

/// The service types under which discovery controllers announce themselves (NVM Express TP8009); which transport it is
/// stands in the TXT record.
pub const SERVICE_TYPES: [&str; 2] = ["_nvme-disc._tcp", "_nvme-disc._udp"];
/// Where they do.
pub const DOMAIN: &str = "local";
/// Longest name of a service: a DNS label has 63 bytes, and Avahi escapes none.
const NAME_MAX: usize = 63;

/// Avahi's numbers for what carries a multicast DNS message, and for an address family.
pub const INET: i32 = 0;
pub const INET6: i32 = 1;

/// One service as Avahi tells services apart: the same one seen on two interfaces, or by IPv4 and IPv6, is two.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceKey {
    pub service_type: &'static str,
    /// Index of the interface, from 1.
    pub interface: u32,
    /// [`INET`] or [`INET6`]: what the announcement arrived by.
    pub protocol: i32,
    pub name: String,
}

impl ServiceKey {
    /// From `ItemNew` or `ItemRemove` of the browser for this service type. `Err` says in printable words what is
    /// wrong.
    pub fn from_item(service_type: &'static str, message: &Message) -> Result<ServiceKey, String> {
        let malformed = |error: UnmarshalError| format!("malformed signal: {error}");
        let item = message.body.parser().get5::<i32, i32, &str, &str, &str>().map_err(malformed)?;
        let (interface, protocol, name, told_type, domain) = item;
        let interface = u32::try_from(interface).ok().filter(|index| *index > 0);
        if !told_type.eq_ignore_ascii_case(service_type) || !domain.eq_ignore_ascii_case(DOMAIN) {
            return Err("a service that was not asked for".to_owned());
        }
        if name.is_empty() || name.len() > NAME_MAX || ![INET, INET6].contains(&protocol) {
            return Err("a service that multicast DNS cannot have brought".to_owned());
        }
        let interface = interface.ok_or("a service without interface")?;
        Ok(ServiceKey { service_type, interface, protocol, name: name.to_owned() })
    }
}

/// The announcement in a resolver's `Found`; `interface` is the name of the interface it arrived on.
///
/// # Errors
/// Says in printable words what is wrong.
pub fn announcement(found: &Message, interface: &str) -> Result<Announcement, String> {
    let malformed = |error: UnmarshalError| format!("malformed signal: {error}");
    let mut body = found.body.parser();
    // interface, protocol; name, type, domain, host: known already, or of no interest.
    body.get2::<i32, i32>().map_err(malformed)?;
    body.get4::<&str, &str, &str, &str>().map_err(malformed)?;
    let (_, address, port, strings) = body.get4::<i32, &str, u16, Vec<&[u8]>>().map_err(malformed)?;
    let txt = Txt::new(&strings).ok_or("a TXT record longer than any message")?;
    let claims = Claims { protocol: txt.get("p"), subsysnqn: txt.get("nqn"), address, port, interface };
    Announcement::new(claims)
}
