use rustbus::MessageBuilder;

use super::*;
use crate::bus::BUS_PATH;

/// The client, the messages it wanted sent, and a bus that numbers them.
struct Bus {
    client: FinderClient,
    serial: u32,
    now: Instant,
}

impl Bus {
    fn new() -> Bus {
        let mut client = FinderClient::default();
        assert_eq!(client.joined().len(), 2);
        Bus { client, serial: 0, now: Instant::now() }
    }

    /// The member of the next call, which counts as sent.
    fn sent(&mut self) -> Option<String> {
        let call = self.client.next_call()?;
        self.serial += 1;
        self.client.called(self.serial);
        call.dynheader.member
    }

    fn receive(&mut self, message: Message) {
        self.client.handle(&message, self.now);
    }

    fn reply(&mut self, text: &str) {
        let header = rustbus::message_builder::DynamicHeader { serial: Some(self.serial), ..Default::default() };
        let mut reply = header.make_response();
        reply.body.push_param(text).unwrap();
        self.receive(reply);
    }

    fn fail(&mut self) {
        let header = rustbus::message_builder::DynamicHeader { serial: Some(self.serial), ..Default::default() };
        self.receive(message::error(&header, "org.freedesktop.DBus.Error.NameHasNoOwner", "nobody"));
    }

    fn owner_changed(&mut self, new: &str) {
        let mut signal = MessageBuilder::new().signal(BUS_NAME, "NameOwnerChanged", BUS_PATH).build();
        signal.dynheader.sender = Some(BUS_NAME.to_owned());
        signal.body.push_param3("org.nvmexpress.staf", "", new).unwrap();
        self.receive(signal);
    }

    fn changed(&mut self, sender: &str) {
        let mut signal =
            MessageBuilder::new().signal("org.nvmexpress.staf", "log_pages_changed", Role::Finder.path()).build();
        signal.dynheader.sender = Some(sender.to_owned());
        self.receive(signal);
    }

    fn events(&mut self) -> Vec<BusEvent> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }
}

#[test]
fn asks_a_finder_that_is_there_already() {
    let mut bus = Bus::new();
    assert_eq!(bus.sent().as_deref(), Some("GetNameOwner"));
    assert_eq!(bus.sent(), None);
    bus.reply(":1.9");
    assert_eq!(bus.events(), [BusEvent::FinderAppeared]);
    assert_eq!(bus.sent().as_deref(), Some("get_all_log_pages"));
    bus.reply("[]");
    assert_eq!(bus.events(), [BusEvent::FinderPages(vec![])]);
    assert_eq!(bus.sent(), None);
}

#[test]
fn waits_for_a_finder_that_is_not_there() {
    let mut bus = Bus::new();
    bus.sent();
    bus.fail();
    assert_eq!((bus.sent(), bus.events()), (None, vec![]));
    bus.owner_changed(":1.4");
    assert_eq!(bus.sent().as_deref(), Some("get_all_log_pages"));
    bus.owner_changed("");
    // What the former owner still says counts for nothing.
    bus.reply("[]");
    assert_eq!((bus.sent(), bus.events()), (None, vec![BusEvent::FinderAppeared, BusEvent::FinderGone]));
}

#[test]
fn a_burst_of_changes_costs_one_more_question() {
    let mut bus = Bus::new();
    bus.owner_changed(":1.4");
    assert_eq!(bus.sent().as_deref(), Some("get_all_log_pages"));
    for _ in 0..10 {
        bus.changed(":1.4");
        assert_eq!(bus.sent(), None);
    }
    bus.reply("[]");
    assert_eq!(bus.sent().as_deref(), Some("get_all_log_pages"));
    bus.reply("[]");
    assert_eq!(bus.sent(), None);
    bus.changed(":1.66");
    assert_eq!(bus.sent(), None, "a stranger's signal");
}

#[test]
fn an_unreadable_answer_is_told_and_asked_again_later() {
    let mut bus = Bus::new();
    bus.owner_changed(":1.4");
    bus.sent();
    bus.reply("[{]");
    assert!(matches!(&bus.events()[..], [BusEvent::FinderAppeared, BusEvent::FinderUnreadable(_)]));
    assert_eq!(bus.sent(), None);
    let at = bus.client.deadline().unwrap();
    bus.client.handle_deadline(at);
    assert_eq!(bus.client.deadline(), None);
    assert_eq!(bus.sent().as_deref(), Some("get_all_log_pages"));
}

#[test]
fn a_lost_bus_is_a_gone_finder() {
    let mut bus = Bus::new();
    bus.owner_changed(":1.4");
    bus.client.parted();
    assert_eq!(bus.events(), [BusEvent::FinderAppeared, BusEvent::FinderGone]);
    bus.client.parted();
    assert_eq!((bus.events(), bus.sent()), (vec![], None));
    bus.client.joined();
    assert_eq!(bus.sent().as_deref(), Some("GetNameOwner"));
}
