//! JSON with the order of its keys: what the daemon sent, for showing it to people; dictionaries, for programs.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::client::{Failure, Pairs};

/// A JSON value; scalars are kept as the text that people are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    Scalar(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// # Errors
    /// When it is not JSON.
    pub fn parse(text: &str) -> Result<Json, Failure> {
        serde_json::from_str(text).map_err(|error| Failure::Refused(format!("unexpected answer: {error}")))
    }

    /// A member of an object.
    pub fn get(&self, wanted: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(key, _)| key == wanted).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The elements of a list; none of anything else.
    pub fn elements(&self) -> &[Json] {
        match self {
            Json::List(elements) => elements,
            _ => &[],
        }
    }

    /// The members of an object that are scalars.
    pub fn pairs(&self) -> Pairs {
        let Json::Object(members) = self else {
            return Vec::new();
        };
        let scalar = |(key, value): &(String, Json)| match value {
            Json::Scalar(text) => Some((key.clone(), text.clone())),
            _ => None,
        };
        members.iter().filter_map(scalar).collect()
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Scalar(if value { "yes" } else { "no" }.to_owned()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Scalar(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Scalar(String::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element()? {
            elements.push(element);
        }
        Ok(Json::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

/// Dictionaries as a line of JSON.
pub fn objects(dictionaries: &[Pairs]) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let object = |pairs: &Pairs| {
        let members: Vec<String> =
            pairs.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value))).collect();
        format!("{{{}}}", members.join(","))
    };
    let all: Vec<String> = dictionaries.iter().map(object).collect();
    format!("[{}]\n", all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept() {
        let json = Json::parse(r#"{"z": true, "a": [1, null], "m": {"k": "v"}}"#).unwrap();
        let Json::Object(members) = &json else { panic!("{json:?}") };
        let keys: Vec<&str> = members.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["z", "a", "m"]);
        assert_eq!(json.pairs(), [("z".to_owned(), "yes".to_owned())]);
        assert!(Json::parse(&"[".repeat(10_000)).is_err());
    }

    #[test]
    fn dictionaries_become_json() {
        let pairs = vec![("b\"".to_owned(), "\u{1b}".to_owned()), ("a".to_owned(), String::new())];
        assert_eq!(objects(&[pairs, vec![]]), "[{\"b\\\"\":\"\\u001b\",\"a\":\"\"},{}]\n");
    }
}
