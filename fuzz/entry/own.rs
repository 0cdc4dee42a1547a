//! What our own processes wrote, the one before us and the one beside us: no stranger, but a file can be damaged, and the
//! helper's children have been where no other process of ours goes.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use stas::core::{Event, Legacy, Machine, Roles};
use stas::daemon::state_file::{self, StateFile};
use stas::helper::message::{ConnectRequest, Reply, Request};
use stas::helper::packet::{PACKET_MAX, decode, encode};
use stas::kernel::fabrics;

/// The state file: what one run takes over from it, it hands to the next.
pub fn state(data: &[u8]) {
    let Ok(legacy) = state_file::parse(data) else { return };
    for (finder, connector) in [(true, true), (true, false), (false, true)] {
        let now = Instant::now();
        let mut machine = Machine::new(Roles { finder, connector }, 1);
        machine.inherit(legacy.clone());
        machine.handle(now, Event::DevicesRead(Vec::new()));
        let handed_on = machine.legacy(now);
        let written = StateFile::new(Path::new("/nonexistent")).write(&handed_on);
        let read = state_file::parse(written.as_bytes()).expect("what we write is what we read");
        // Ages are counted in seconds.
        let ageless = |legacy: &[Legacy]| -> Vec<Legacy> {
            let unseen = |age: Duration| if age.is_zero() { age } else { Duration::MAX };
            legacy.iter().map(|one| Legacy { unseen: one.unseen.map(unseen), ..one.clone() }).collect()
        };
        assert_eq!(ageless(&read), ageless(&handed_on));
    }
}

/// A packet between the daemon and its helper, in either direction.
pub fn helper(data: &[u8]) {
    if let Ok((id, request)) = decode::<Request>(data) {
        if let Request::Connect(request) = &request {
            asks_for_nothing_else(request);
        }
        if let Ok(packet) = encode(id, &request) {
            assert!(packet.len() <= PACKET_MAX && decode::<Request>(&packet).unwrap() == (id, request));
        }
    }
    if let Ok((id, reply)) = decode::<Reply>(data)
        && let Ok(packet) = encode(id, &reply)
    {
        assert!(decode::<Reply>(&packet).unwrap() == (id, reply));
    }
}

/// An option string has each option once, and what was asked for under its name.
fn asks_for_nothing_else(request: &ConnectRequest) {
    let Ok(options) = fabrics::option_string(request) else { return };
    assert!(!options.contains(['\n', '\0']));
    let mut seen = BTreeSet::new();
    for (key, value) in options.split(',').map(|option| option.split_once('=').unwrap_or((option, ""))) {
        assert!(seen.insert(key), "{key} twice");
        let asked = match key {
            "nqn" => &request.nqn,
            "transport" => &request.transport,
            "traddr" => &request.traddr,
            "trsvcid" => &request.trsvcid,
            "host_traddr" => &request.host_traddr,
            "host_iface" => &request.host_iface,
            "hostnqn" => &request.hostnqn,
            "hostid" => &request.hostid,
            "tls_key" => &request.tls_key,
            "keyring" => &request.keyring,
            "dhchap_secret" => &request.dhchap_secret,
            "dhchap_ctrl_secret" => &request.dhchap_ctrl_secret,
            _ => continue,
        };
        assert_eq!(value, asked, "{key}");
    }
}
