//! Table rows as JSON and back. CBOR can hold what JSON cannot: bytes, numbers that are no numbers, integers of more than
//! 64 bits. These are shown as objects with one key, `$bytes` (base64), `$float` (`NaN`, `Infinity`, `-Infinity`) and
//! `$int` (decimal), and read back as what they were; a real object of such a form has its key's `$` doubled. Whatever
//! would lose something on the way is an error. Depth is bounded before anything is descended into (I7).

use data_encoding::BASE64;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use std::fmt;

const BYTES: &str = "$bytes";
const FLOAT: &str = "$float";
const INT: &str = "$int";
/// How deeply values may be nested as they are shown: what serde_json reads as well.
const DEPTH: usize = 127;

/// A value as JSON, stored as CBOR.
#[derive(Debug, Clone, PartialEq)]
pub struct Json(pub Value);

/// Why text is not taken as a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// It is no JSON.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    /// A number that would silently be rounded.
    #[error(
        "the number {0} does not fit into 64 bits; write it as text, or as {{\"$int\": \"…\"}} where 128 bits are enough"
    )]
    Number(String),
}

/// Reads JSON text.
///
/// # Errors
/// [`JsonError`].
pub fn parse(text: &str) -> Result<Json, JsonError> {
    let value = serde_json::from_str(text)?;
    match oversized(text) {
        Some(number) => Err(JsonError::Number(number.chars().take(40).collect())),
        None => Ok(Json(value)),
    }
}

/// An integer that would silently become a rounded floating point number. `text` is valid JSON.
fn oversized(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at + 1),
            b'-' | b'0'..=b'9' => {
                let rest = &text[at..];
                let end =
                    rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'));
                let number = &rest[..end.unwrap_or(rest.len())];
                let whole = !number.contains(['.', 'e', 'E']);
                if whole && number.parse::<u64>().is_err() && number.parse::<i64>().is_err() {
                    return Some(number);
                }
                at += number.len();
            }
            _ => at += 1,
        }
    }
    None
}

fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// The only key of an object, if it is one of the special ones or one of them with more `$` before it.
fn marked(object: &Map<String, Value>) -> Option<(&str, &Value)> {
    let (key, value) = object.iter().next().filter(|_| object.len() == 1)?;
    let name = key.trim_start_matches('$');
    let special = [BYTES, FLOAT, INT].iter().any(|special| special[1..] == *name);
    (special && name.len() < key.len()).then_some((key, value))
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored(&self.0).serialize(serializer)
    }
}

/// A JSON value on its way into storage.
struct Stored<'v>(&'v Value);

impl Serialize for Stored<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_none(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(number) => number.serialize(serializer),
            Value::String(text) => serializer.serialize_str(text),
            Value::Array(list) => serializer.collect_seq(list.iter().map(Stored)),
            Value::Object(object) => match marked(object) {
                Some((key, value)) => special(key, value, serializer),
                None => serializer.collect_map(object.iter().map(|(k, v)| (k, Stored(v)))),
            },
        }
    }
}

fn special<S: Serializer>(key: &str, value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    let text = || value.as_str().ok_or_else(|| S::Error::custom(format!("{key} takes a text")));
    match key {
        BYTES => {
            let bytes = BASE64.decode(text()?.as_bytes());
            let bytes =
                bytes.map_err(|e| S::Error::custom(format!("{BYTES} takes base64: {e}")))?;
            serializer.serialize_bytes(&bytes)
        }
        FLOAT => serializer.serialize_f64(match text()? {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            _ => return Err(S::Error::custom("$float takes NaN, Infinity or -Infinity")),
        }),
        INT => {
            let text = text()?;
            match (text.parse::<i128>(), text.parse::<u128>()) {
                (Ok(number), _) => serializer.serialize_i128(number),
                (_, Ok(number)) => serializer.serialize_u128(number),
                (Err(e), _) => Err(S::Error::custom(format!("$int takes a whole number: {e}"))),
            }
        }
        doubled => {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(&doubled[1..], &Stored(value))?;
            map.end()
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Shown(0).deserialize(deserializer).map(Json)
    }
}

/// A stored value on its way to JSON, so many levels down.
#[derive(Clone, Copy)]
struct Shown(usize);

impl Shown {
    fn below<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.0 < DEPTH {
            Ok(Self(self.0 + 1))
        } else {
            Err(E::custom(format!("it is nested more than {DEPTH} levels deep")))
        }
    }

    /// What JSON cannot say, as an object, which is one level more.
    fn one<E: serde::de::Error>(self, key: &str, text: String) -> Result<Value, E> {
        self.below()?;
        Ok(Value::Object(Map::from_iter([(key.to_owned(), Value::String(text))])))
    }
}

impl<'de> DeserializeSeed<'de> for Shown {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shown {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can show")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Value, E> {
        let number = Number::from_i128(value).map(Value::Number);
        number.map_or_else(|| self.one(INT, value.to_string()), Ok)
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        let number = Number::from_u128(value).map(Value::Number);
        number.map_or_else(|| self.one(INT, value.to_string()), Ok)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        if let Some(number) = Number::from_f64(value) {
            return Ok(Value::Number(number));
        }
        let name = match value {
            v if v.is_nan() => "NaN",
            v if v > 0.0 => "Infinity",
            _ => "-Infinity",
        };
        self.one(FLOAT, name.to_owned())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_bytes<E: serde::de::Error>(self, value: &[u8]) -> Result<Value, E> {
        self.one(BYTES, BASE64.encode(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(below)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut object = Map::new();
        while let Some(key) = map.next_key_seed(below)? {
            let key = match key {
                Value::String(text) => text,
                Value::Number(_) | Value::Bool(_) => key.to_string(),
                _ => return Err(A::Error::custom("a map has a key that is no text")),
            };
            object.insert(key, map.next_value_seed(below)?);
        }
        let key = marked(&object).map(|(key, _)| key.to_owned());
        if let Some(key) = key
            && let Some(value) = object.remove(&key)
        {
            object.insert(format!("${key}"), value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch::Raw;
    use proptest::prelude::*;
    use serde_json::json;

    fn round(text: &str) -> String {
        let raw = Raw::new(&parse(text).unwrap()).unwrap();
        raw.get::<Json>().unwrap().0.to_string()
    }

    #[test]
    fn what_json_can_say_comes_back() {
        for text in [
            "null",
            "true",
            "0",
            "-1",
            "18446744073709551615",
            "-9223372036854775808",
            "1.5",
            "1.0",
            "-0.0",
            "1e300",
            "5e-324",
            "7.292443446014892e-304",
            "0.1",
            r#""""#,
            r#""ü 日本 🦀""#,
            r#""\u0000\u001f""#,
            "[]",
            "{}",
            r#"{"a":[1,{"b":null}],"ü":{}}"#,
            r#"{"$oid":"5"}"#,
            r#"{"$bytes":"AP8="}"#,
            r#"{"$float":"NaN"}"#,
            r#"{"$float":"-Infinity"}"#,
            r#"{"$int":"-170141183460469231731687303715884105728"}"#,
            r#"{"$int":"340282366920938463463374607431768211455"}"#,
            r#"{"$$bytes":"AP8="}"#,
            r#"{"$$$x":1}"#,
            r#"{"$$$int":[]}"#,
            r#"{"int":1}"#,
        ] {
            let again = round(text);
            let same: Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), same, "{text}");
        }
        assert_eq!(round("7.292443446014892e-304"), "7.292443446014892e-304", "not its neighbour");
        assert_eq!(round("1.0"), "1.0", "a float stays one");
        assert_eq!(round("1"), "1", "an integer stays one");
    }

    #[test]
    fn what_would_be_lost_is_refused() {
        for text in
            ["18446744073709551616", "-9223372036854775809", "[{\"a\": 99999999999999999999}]"]
        {
            assert!(
                parse(text).unwrap_err().to_string().contains("does not fit into 64 bits"),
                "{text}"
            );
        }
        assert!(parse("1e999").is_err());
        assert!(parse(&"[".repeat(200)).is_err());
        assert!(parse(r#""99999999999999999999 \" 99999999999999999999""#).is_ok());
        for text in
            [r#"{"$bytes":"AP8"}"#, r#"{"$bytes":1}"#, r#"{"$float":"1"}"#, r#"{"$int":"x"}"#]
        {
            assert!(Raw::new(&parse(text).unwrap()).is_err(), "{text}");
        }
    }

    #[test]
    fn programs_values_are_shown() {
        struct Bytes;
        impl Serialize for Bytes {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_bytes(&[0, 255])
            }
        }
        let shown = |raw: Raw| raw.get::<Json>().unwrap().0;
        assert_eq!(shown(Raw::new(&Bytes).unwrap()), json!({"$bytes": "AP8="}));
        assert_eq!(shown(Raw::new(&f32::NAN).unwrap()), json!({"$float": "NaN"}));
        assert_eq!(shown(Raw::new(&u128::MAX).unwrap()), json!({"$int": u128::MAX.to_string()}));
        let keyed = std::collections::BTreeMap::from([(7, "x")]);
        assert_eq!(shown(Raw::new(&keyed).unwrap()), json!({"7": "x"}));
        let real = std::collections::BTreeMap::from([("$bytes", "AP8=")]);
        assert_eq!(shown(Raw::new(&real).unwrap()), json!({"$$bytes": "AP8="}));
    }

    #[test]
    fn a_value_nested_on_purpose_is_an_error_and_no_crash() {
        let mut nested = vec![0x81; 150_000];
        nested.push(0xf6);
        let failed = Raw::from_bytes(nested).get::<Json>().unwrap_err().to_string();
        assert!(failed.contains("levels deep"), "{failed}");
    }

    #[test]
    fn what_is_shown_can_be_read_however_deep_it_is() {
        let leaves: [&[u8]; 3] = [&[0xf6], &[0x41, 7], &[0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]];
        for leaf in leaves {
            let mut deepest = 0;
            for depth in 1..=DEPTH + 2 {
                let nested = [&vec![0x81; depth][..], leaf].concat();
                if let Ok(shown) = Raw::from_bytes(nested).get::<Json>() {
                    assert!(parse(&shown.0.to_string()).is_ok(), "{depth} levels");
                    deepest = depth;
                }
            }
            assert!((DEPTH - 1..=DEPTH).contains(&deepest), "{deepest} levels");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
            ".{0,10}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[$]{0,3}(int|bytes|x)?", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_comes_back(value in any_json()) {
            // A single special key with anything else below it is refused.
            if let Ok(raw) = Raw::new(&parse(&value.to_string()).unwrap()) {
                prop_assert_eq!(raw.get::<Json>().unwrap().0, value);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = parse(&text);
        }
    }
}
