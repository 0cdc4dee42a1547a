//! Discovery log pages in words: as `get_log_pages` and `get_all_log_pages` publish them, and as another stafd does.
//!
//! The words and the order of the keys are those of nvme-stas (libnvme's Python binding), which programs compare. What is
//! read here was written by another process: unknown keys are ignored, missing ones that matter are an error, and memory
//! stays within a small multiple of the message, because an entry needs its four mandatory keys.

use std::rc::Rc;

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::ControllerId;
use super::objects::Description;
use crate::core::finder::Origin;
pub use crate::core::finder::PageState;
use crate::core::page::Page;
use crate::wire::discovery::Entry;

/// In a detailed description: the controller has been left and is read again after so long. Not known to nvme-stas.
pub const PARKED_KEY: &str = "parked for";

/// In a detailed description: why the controller is not connected. Not known to nvme-stas.
pub const FAILURE_KEY: &str = "last failure";

/// One discovery log page entry, every field as a string.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryText {
    pub trtype: String,
    #[serde(default)]
    pub adrfam: String,
    pub traddr: String,
    #[serde(default)]
    pub trsvcid: String,
    pub subnqn: String,
    pub subtype: String,
    #[serde(default)]
    pub treq: String,
    #[serde(default)]
    pub portid: String,
    #[serde(default)]
    pub cntlid: String,
    #[serde(default)]
    pub asqsz: String,
    #[serde(default)]
    pub eflags: String,
}

impl EntryText {
    /// Keys and values in the published order.
    pub fn pairs(&self) -> [(&'static str, &str); 11] {
        [
            ("trtype", &self.trtype),
            ("adrfam", &self.adrfam),
            ("traddr", &self.traddr),
            ("trsvcid", &self.trsvcid),
            ("subnqn", &self.subnqn),
            ("subtype", &self.subtype),
            ("treq", &self.treq),
            ("portid", &self.portid),
            ("cntlid", &self.cntlid),
            ("asqsz", &self.asqsz),
            ("eflags", &self.eflags),
        ]
    }
}

/// Strings that are not UTF-8 come out empty, which no address and no NQN is.
impl From<&Entry> for EntryText {
    fn from(entry: &Entry) -> EntryText {
        let text = |field: Option<&str>| field.unwrap_or_default().to_owned();
        EntryText {
            trtype: trtype_word(entry.trtype()),
            adrfam: adrfam_word(entry.adrfam()),
            traddr: text(entry.traddr()),
            trsvcid: text(entry.trsvcid()),
            subnqn: text(entry.subnqn()),
            subtype: subtype_word(entry.subtype()),
            treq: treq_word(entry.treq()),
            portid: entry.portid().to_string(),
            cntlid: entry.cntlid().to_string(),
            asqsz: entry.asqsz().to_string(),
            eflags: entry.eflags().to_string(),
        }
    }
}

fn word(value: u8, words: &[(u8, &str)]) -> String {
    let known = words.iter().find(|(code, _)| *code == value);
    known.map_or_else(|| value.to_string(), |(_, word)| (*word).to_owned())
}

fn trtype_word(trtype: u8) -> String {
    word(trtype, &[(0, "unspecified"), (1, "rdma"), (2, "fc"), (3, "tcp"), (254, "loop")])
}

fn adrfam_word(adrfam: u8) -> String {
    word(adrfam, &[(0, "pci"), (1, "ipv4"), (2, "ipv6"), (3, "infiniband"), (4, "fc"), (254, "loop")])
}

fn subtype_word(subtype: u8) -> String {
    word(subtype, &[(1, "referral"), (2, "nvme"), (3, "discovery")])
}

const TREQ_WORDS: [(u8, &str); 4] = [(0, "not specified"), (1, "required"), (2, "not required"), (4, "disable sqflow")];

fn treq_word(treq: u8) -> String {
    word(treq, &TREQ_WORDS)
}

/// The bits that a word or number stands for.
pub fn treq(text: &str) -> u8 {
    let known = TREQ_WORDS.iter().find(|(_, word)| *word == text);
    known.map_or_else(|| text.parse().unwrap_or_default(), |(bits, _)| *bits)
}

impl PageState {
    /// The key under which our finder's detailed descriptions have it; nvme-stas has no such key.
    pub const KEY: &'static str = "log page";

    /// The value of that key.
    pub fn as_str(self) -> &'static str {
        match self {
            PageState::Fresh => "fresh",
            PageState::Stale => "stale",
            PageState::None => "none",
        }
    }
}

/// One discovery controller and its log page, as a finder published them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinderPage {
    pub id: ControllerId,
    /// Whether the finder is connected to it; `None` when it did not say.
    pub connected: Option<bool>,
    /// Why the finder knows it; configured when it did not say.
    pub origin: Origin,
    /// `None` from a finder that does not tell: nvme-stas.
    pub state: Option<PageState>,
    pub entries: Vec<EntryText>,
}

/// A [`FinderPage`] as it is written.
#[derive(Deserialize)]
struct WrittenPage {
    #[serde(rename = "discovery-controller")]
    controller: WrittenController,
    #[serde(rename = "log-pages")]
    entries: Vec<EntryText>,
}

#[derive(Deserialize)]
struct WrittenController {
    #[serde(flatten)]
    id: ControllerId,
    connected: Option<String>,
    origin: Option<String>,
    #[serde(rename = "log page")]
    state: Option<String>,
}

impl From<WrittenPage> for FinderPage {
    fn from(page: WrittenPage) -> FinderPage {
        let connected = match page.controller.connected.as_deref() {
            Some("True") => Some(true),
            Some("False") => Some(false),
            _ => None,
        };
        let states = [PageState::Fresh, PageState::Stale, PageState::None];
        let state = page.controller.state.and_then(|word| states.into_iter().find(|state| state.as_str() == word));
        let origin = page.controller.origin.as_deref().and_then(Origin::parse).unwrap_or(Origin::Configured);
        FinderPage { id: page.controller.id, connected, origin, state, entries: page.entries }
    }
}

/// Reads what `get_all_log_pages` returned.
///
/// # Errors
/// When it is not JSON of the expected shape. Nothing of it may be used then: half a list is no evidence.
pub fn from_json(json: &str) -> Result<Vec<FinderPage>, serde_json::Error> {
    let pages: Vec<WrittenPage> = serde_json::from_str(json)?;
    Ok(pages.into_iter().map(FinderPage::from).collect())
}

/// Writes what `get_all_log_pages` returns.
pub fn to_json<'a>(pages: impl IntoIterator<Item = (&'a Description, &'a [EntryText])>) -> String {
    #[derive(Serialize)]
    struct Page<'a> {
        #[serde(rename = "discovery-controller", serialize_with = "in_order")]
        controller: &'a Description,
        #[serde(rename = "log-pages")]
        entries: &'a [EntryText],
    }
    let pages: Vec<Page<'_>> = pages.into_iter().map(|(controller, entries)| Page { controller, entries }).collect();
    // Strings and lists of strings always serialise; the fallback is the empty list all the same, not a panic.
    serde_json::to_string(&pages).unwrap_or_else(|_| "[]".to_owned())
}

/// The answer to `get_all_log_pages` that was given last, and what it was made of: as long as that is the same, so is the answer.
#[derive(Debug, Default)]
pub struct AllPages {
    of: Vec<(Description, Option<Rc<Page>>)>,
    json: Option<Rc<str>>,
}

impl AllPages {
    /// Puts nothing into words unless a description or a page is another one than last time.
    pub fn json(&mut self, of: Vec<(Description, Option<Rc<Page>>)>) -> Rc<str> {
        let is_same = |(one, other): (&Option<Rc<Page>>, &Option<Rc<Page>>)| match (one, other) {
            (Some(one), Some(other)) => Rc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let same = self.of.len() == of.len()
            && self.of.iter().zip(&of).all(|(last, now)| last.0 == now.0 && is_same((&last.1, &now.1)));
        match &self.json {
            Some(json) if same => json.clone(),
            _ => {
                let texts = |page: &Option<Rc<Page>>| -> Vec<EntryText> {
                    page.iter().flat_map(|page| page.entries()).map(EntryText::from).collect()
                };
                let pages: Vec<_> = of.iter().map(|(controller, page)| (controller, texts(page))).collect();
                let json: Rc<str> = to_json(pages.iter().map(|(id, entries)| (*id, entries.as_slice()))).into();
                (self.of, self.json) = (of, Some(json.clone()));
                json
            }
        }
    }
}

/// Serialises pairs as a map that keeps their order.
pub fn in_order<S: Serializer>(pairs: &Description, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (key, value) in pairs {
        map.serialize_entry(key, value)?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As nvme-stas 2.4.1 wrote it, with a key and a second controller that we do not know.
    const PUBLISHED: &str = r#"[{"discovery-controller": {"traddr": "127.0.0.1", "trsvcid": "8009",
        "transport": "tcp", "subsysnqn": "nqn.2014-08.org.nvmexpress.discovery", "host-iface": "", "host-traddr": "",
        "host-nqn": "nqn.host", "device": "nvme0", "connect attempts": "0", "connected": "True"},
        "log-pages": [{"trtype": "tcp", "adrfam": "ipv4", "traddr": "127.0.0.1", "trsvcid": "8009",
        "subnqn": "nqn.a", "subtype": "nvme", "treq": "disable sqflow", "portid": "1", "cntlid": "65535",
        "asqsz": "32", "eflags": "0", "later": {"x": [1]}}], "later": null}]"#;

    #[test]
    fn reads_what_nvme_stas_publishes() {
        let pages = from_json(PUBLISHED).unwrap();
        assert_eq!(pages.len(), 1);
        assert_eq!(pages[0].id.host_nqn, "nqn.host");
        assert_eq!((pages[0].connected, pages[0].origin), (Some(true), Origin::Configured));
        for (word, origin) in [("discovered", Origin::Discovered), ("referral", Origin::Referral)] {
            let published = PUBLISHED.replace("\"device\"", &format!("\"origin\": \"{word}\", \"device\""));
            assert_eq!(from_json(&published).unwrap()[0].origin, origin);
        }
        assert_eq!(pages[0].state, None);
        assert_eq!(pages[0].entries[0].treq, "disable sqflow");
    }

    #[test]
    fn our_finder_tells_how_far_a_page_is_evidence() {
        for (word, state) in [("fresh", PageState::Fresh), ("stale", PageState::Stale), ("none", PageState::None)] {
            let json = PUBLISHED.replace("\"connected\": \"True\"", &format!("\"log page\": \"{word}\""));
            let pages = from_json(&json).unwrap();
            assert_eq!((pages[0].state, pages[0].connected), (Some(state), None));
            assert_eq!(state.as_str(), word);
        }
    }

    #[test]
    fn half_a_page_is_no_page() {
        for bad in ["", "{}", "[{}]", "[1]", r#"[{"discovery-controller": {}, "log-pages": []}]"#] {
            assert!(from_json(bad).is_err(), "{bad}");
        }
        assert!(from_json(&PUBLISHED.replace("\"subnqn\": \"nqn.a\",", "")).is_err());
        assert!(from_json(&"[".repeat(100_000)).is_err());
        assert_eq!(from_json("[]").unwrap(), []);
    }

    #[test]
    fn writes_keys_in_the_published_order() {
        let description: Description = vec![("traddr", "192.0.2.1".into()), ("device", "nvme0".into())];
        let entry = EntryText { trtype: "tcp".into(), subtype: "nvme".into(), ..EntryText::default() };
        let json = to_json([(&description, &[entry][..])]);
        let expected = concat!(
            r#"[{"discovery-controller":{"traddr":"192.0.2.1","device":"nvme0"},"log-pages":[{"trtype":"tcp","#,
            r#""adrfam":"","traddr":"","trsvcid":"","subnqn":"","subtype":"nvme","treq":"","portid":"","#,
            r#""cntlid":"","asqsz":"","eflags":""}]}]"#
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn the_answer_is_made_anew_only_when_something_is_another() {
        let page = || {
            let mut bytes = vec![0; 1024 * 2001];
            bytes[8..16].copy_from_slice(&2000u64.to_le_bytes());
            Some(Rc::new(Page::new(bytes.into()).unwrap()))
        };
        let (one, other) = (page(), page());
        let on = |device: &str| -> Description { vec![("device", device.into())] };
        let mut all = AllPages::default();
        let first = all.json(vec![(on("nvme0"), one.clone()), (on("nvme1"), None)]);
        assert_eq!(["log-pages", "trtype"].map(|key| first.matches(key).count()), [2, 2000]);
        assert!(Rc::ptr_eq(&first, &all.json(vec![(on("nvme0"), one.clone()), (on("nvme1"), None)])));
        for of in [
            vec![(on("nvme0"), one.clone())],
            vec![(on("nvme0"), other.clone())],
            vec![(on("nvme2"), other.clone())],
            vec![(on("nvme2"), None)],
            vec![],
        ] {
            let before = all.json(all.of.clone());
            let after = all.json(of);
            assert!(!Rc::ptr_eq(&before, &after));
            assert!(Rc::ptr_eq(&after, &all.json(all.of.clone())));
        }
    }

    #[test]
    fn an_entry_is_put_into_words() {
        use crate::wire::discovery::LogPage;
        let mut page = vec![0; 2048];
        page[8] = 1; // NUMREC
        let entry = &mut page[1024..];
        entry[..4].copy_from_slice(&[3, 1, 2, 4]);
        entry[4..6].copy_from_slice(&1u16.to_le_bytes());
        entry[6..8].copy_from_slice(&0xffffu16.to_le_bytes());
        entry[8..10].copy_from_slice(&32u16.to_le_bytes());
        entry[32..36].copy_from_slice(b"8009");
        entry[36..64].fill(b' ');
        entry[256..261].copy_from_slice(b"nqn.a");
        entry[512..516].copy_from_slice(&[0xff; 4]);
        let text = EntryText::from(&LogPage::new(&page).unwrap().entries()[0]);
        let values: Vec<&str> = text.pairs().map(|(_, value)| value).to_vec();
        let expected = ["tcp", "ipv4", "", "8009", "nqn.a", "nvme", "disable sqflow", "1", "65535", "32", "0"];
        assert_eq!(values, expected);
    }

    #[test]
    fn codes_have_words_or_stay_numbers() {
        assert_eq!((trtype_word(3), trtype_word(254), trtype_word(9)), ("tcp".into(), "loop".into(), "9".into()));
        assert_eq!((treq_word(4), treq_word(5)), ("disable sqflow".into(), "5".into()));
        assert_eq!((subtype_word(1), subtype_word(3)), ("referral".into(), "discovery".into()));
        assert_eq!(adrfam_word(2), "ipv6");
    }
}
