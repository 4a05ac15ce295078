//! Values as cells hold them: CBOR made from anything serde can serialise. A row's columns and a document's leaves are
//! cut out of the encoding of the whole, never decoded on the way.

use crate::Error;
use crate::depth::{self, Bounded};
use minicbor::data::Type;
use minicbor::decode::Decoder;
use minicbor::encode::Encoder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// The encoded form of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw(pub(crate) Vec<u8>);

/// Encoding of an empty map: marks a map that has nothing in it.
pub(crate) const EMPTY_MAP: &[u8] = &[0xa0];
/// Encoding of null: what a row's presence cell holds.
pub(crate) const NULL: &[u8] = &[0xf6];
/// Maps inside maps that are followed; deeper ones are refused.
const DEPTH: usize = anabranch_core::limits::PATH_SEGMENTS;

fn value_error(what: &str, why: impl std::fmt::Display) -> Error {
    Error::Value { what: what.to_owned(), why: why.to_string() }
}

impl Raw {
    /// Encodes `value`.
    ///
    /// # Errors
    /// [`Error::Value`] when serde cannot, or when it is nested too deeply to be read again.
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        let mut serializer = minicbor_serde::Serializer::new(&mut bytes);
        // What serde calls a unit is null nearly everywhere, above all in JSON values.
        value
            .serialize(serializer.serialize_unit_as_null(true))
            .map_err(|e| value_error("a value cannot be stored", e))?;
        depth::check(&bytes).map_err(|e| value_error("a value cannot be stored", e))?;
        Ok(Self(bytes))
    }

    /// An encoding that was taken from [`Self::as_bytes`]. What is wrong with it shows when it is read.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Decodes it as a `T`.
    ///
    /// # Errors
    /// [`Error::Value`] when it is none, or one that is nested beyond what a stack has room for.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(Bounded::new(&mut minicbor_serde::Deserializer::new(&self.0)))
            .map_err(|e| value_error("a stored value has another type", e))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The entries of a map with text keys, or `None` for anything else.
    pub(crate) fn fields(&self) -> Result<Option<BTreeMap<String, Self>>, Error> {
        let mut decoder = Decoder::new(&self.0);
        if !matches!(decoder.datatype(), Ok(Type::Map | Type::MapIndef)) {
            return Ok(None);
        }
        let bad = |e: minicbor::decode::Error| value_error("a map cannot be stored", e);
        let count = decoder.map().map_err(bad)?;
        let mut fields = BTreeMap::new();
        let mut done = 0;
        loop {
            let ended = match count {
                Some(count) => done == count,
                None => matches!(decoder.datatype(), Ok(Type::Break)),
            };
            if ended {
                return Ok(Some(fields));
            }
            done += 1;
            if !matches!(decoder.datatype(), Ok(Type::String)) {
                return Err(value_error("a map cannot be stored", "its keys must be text"));
            }
            let key = decoder.str().map_err(bad)?.to_owned();
            let start = decoder.position();
            decoder.skip().map_err(bad)?;
            let value = self.0.get(start..decoder.position()).unwrap_or_default().to_vec();
            fields.insert(key, Self(value));
        }
    }

    /// The same value in deterministic form (RFC 8949, section 4.2.1) as far as serde leaves a choice: definite lengths, and
    /// keys of maps in the order of their encoding.
    ///
    /// # Errors
    /// [`Error::Value`] when it is no single value, or has a key twice.
    pub(crate) fn canonical(&self) -> Result<Self, Error> {
        let mut decoder = Decoder::new(&self.0);
        let mut out = Vec::with_capacity(self.0.len());
        let bad = |e: minicbor::decode::Error| value_error("a value cannot be stored", e);
        canonical(&mut decoder, &mut out).map_err(bad)?;
        match decoder.position() == self.0.len() {
            true => Ok(Self(out)),
            false => Err(value_error("a value cannot be stored", "it is more than one")),
        }
    }

    /// The items of an array, or `None` for anything else.
    pub(crate) fn items(&self) -> Result<Option<Vec<Self>>, Error> {
        let mut decoder = Decoder::new(&self.0);
        if !matches!(decoder.datatype(), Ok(Type::Array | Type::ArrayIndef)) {
            return Ok(None);
        }
        let bad = |e: minicbor::decode::Error| value_error("an array cannot be read", e);
        let count = decoder.array().map_err(bad)?;
        let mut items = Vec::new();
        while count.is_none_or(|count| (items.len() as u64) < count) {
            if count.is_none() && matches!(decoder.datatype(), Ok(Type::Break)) {
                break;
            }
            let start = decoder.position();
            decoder.skip().map_err(bad)?;
            items.push(Self(self.0.get(start..decoder.position()).unwrap_or_default().to_vec()));
        }
        Ok(Some(items))
    }

    /// The array of these items.
    pub(crate) fn array(items: &[Self]) -> Self {
        let mut encoder = Encoder::new(Vec::new());
        // Writing to a vector cannot fail.
        let _ = encoder.array(items.len() as u64);
        items.iter().for_each(|item| encoder.writer_mut().extend_from_slice(&item.0));
        Self(encoder.into_writer())
    }

    /// The map with these entries.
    pub(crate) fn map<'f>(fields: impl ExactSizeIterator<Item = (&'f str, &'f [u8])>) -> Self {
        let mut encoder = Encoder::new(Vec::new());
        // Writing to a vector cannot fail.
        let _ = encoder.map(fields.len() as u64);
        for (key, value) in fields {
            let _ = encoder.str(key);
            encoder.writer_mut().extend_from_slice(value);
        }
        Self(encoder.into_writer())
    }

    /// The leaves of nested maps with their paths; an empty map is a leaf.
    pub(crate) fn leaves(&self) -> Result<Vec<(Vec<String>, Self)>, Error> {
        let mut leaves = Vec::new();
        let mut open = vec![(Vec::new(), self.clone())];
        while let Some((path, value)) = open.pop() {
            match value.fields()? {
                Some(fields) if !fields.is_empty() => {
                    if path.len() >= DEPTH {
                        return Err(value_error(
                            "a document cannot be stored",
                            "it is nested too deeply",
                        ));
                    }
                    open.extend(fields.into_iter().map(|(key, value)| {
                        let mut path = path.clone();
                        path.push(key);
                        (path, value)
                    }));
                }
                Some(_) => leaves.push((path, Self(EMPTY_MAP.to_vec()))),
                None => leaves.push((path, value)),
            }
        }
        Ok(leaves)
    }
}

/// Writes the next item. What came out of [`Raw::new`] is not nested too deeply for it.
fn canonical(decoder: &mut Decoder<'_>, out: &mut Vec<u8>) -> Result<(), minicbor::decode::Error> {
    let more = |decoder: &mut Decoder<'_>, left: &mut Option<u64>| match left {
        Some(0) => Ok(false),
        Some(n) => {
            *n -= 1;
            Ok(true)
        }
        None if matches!(decoder.datatype()?, Type::Break) => {
            decoder.set_position(decoder.position() + 1);
            Ok(false)
        }
        None => Ok::<_, minicbor::decode::Error>(true),
    };
    match decoder.datatype()? {
        Type::Array | Type::ArrayIndef => {
            let mut left = decoder.array()?;
            let (mut items, mut body) = (0, Vec::new());
            while more(decoder, &mut left)? {
                canonical(decoder, &mut body)?;
                items += 1;
            }
            // Writing to a vector cannot fail.
            let _ = Encoder::new(&mut *out).array(items);
            out.extend_from_slice(&body);
        }
        Type::Map | Type::MapIndef => {
            let mut left = decoder.map()?;
            let mut fields = BTreeMap::new();
            while more(decoder, &mut left)? {
                let (mut key, mut value) = (Vec::new(), Vec::new());
                canonical(decoder, &mut key)?;
                canonical(decoder, &mut value)?;
                if fields.insert(key, value).is_some() {
                    return Err(minicbor::decode::Error::message("a map has a key twice"));
                }
            }
            let _ = Encoder::new(&mut *out).map(fields.len() as u64);
            fields.into_iter().for_each(|(key, value)| out.extend([key, value].concat()));
        }
        _ => {
            let start = decoder.position();
            decoder.skip()?;
            out.extend_from_slice(decoder.input().get(start..decoder.position()).unwrap_or(&[]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn leaves_are_cut_out_of_nested_maps() {
        let nested: BTreeMap<&str, BTreeMap<&str, u32>> =
            BTreeMap::from([("a", BTreeMap::from([("x", 1), ("y", 2)])), ("b", BTreeMap::new())]);
        let mut leaves = Raw::new(&nested).unwrap().leaves().unwrap();
        leaves.sort_by(|a, b| a.0.cmp(&b.0));
        let paths: Vec<String> = leaves.iter().map(|(path, _)| path.join("/")).collect();
        assert_eq!(paths, ["a/x", "a/y", "b"]);
        assert_eq!(leaves[1].1.get::<u32>().unwrap(), 2);
    }

    #[test]
    fn nothing_is_null() {
        assert_eq!(Raw::new(&()).unwrap().as_bytes(), NULL);
        assert_eq!(Raw::new(&None::<u8>).unwrap().as_bytes(), NULL);
    }

    #[test]
    fn keys_that_are_not_text_are_refused() {
        assert!(Raw::new(&BTreeMap::from([(1u8, 2u8)])).unwrap().fields().is_err());
        assert_eq!(Raw::new("text").unwrap().fields().unwrap(), None);
    }

    proptest! {
        #[test]
        fn maps_come_back(map: BTreeMap<String, Option<Vec<i64>>>) {
            let fields = Raw::new(&map).unwrap().fields().unwrap().unwrap();
            let again = Raw::map(fields.iter().map(|(k, v)| (k.as_str(), v.as_bytes())));
            prop_assert_eq!(again.get::<BTreeMap<String, Option<Vec<i64>>>>().unwrap(), map);
        }

        #[test]
        fn arrays_come_back(array: Vec<Option<Vec<i64>>>) {
            let raw = Raw::new(&array).unwrap();
            let items = raw.items().unwrap().unwrap();
            prop_assert_eq!(items.len(), array.len());
            prop_assert_eq!(Raw::array(&items), raw);
        }

        #[test]
        fn the_deterministic_form_is_one(
            map in proptest::collection::btree_map(
                ".{0,4}",
                proptest::collection::vec(proptest::collection::btree_map(any::<i64>(), any::<f64>(), 0..4), 0..3),
                0..6,
            ),
            turn: usize
        ) {
            let raw = Raw::new(&map).unwrap().canonical().unwrap();
            prop_assert_eq!(raw.canonical().unwrap(), raw.clone());
            let mut fields: Vec<_> = map.iter().collect();
            let turn = turn % fields.len().max(1);
            fields.rotate_left(turn);
            let encoded: Vec<_> = fields.iter().map(|(k, v)| (k.as_str(), Raw::new(v).unwrap())).collect();
            let turned = Raw::map(encoded.iter().map(|(k, v)| (*k, v.as_bytes())));
            prop_assert_eq!(turned.canonical().unwrap(), raw);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let raw = Raw(bytes);
            if depth::check(raw.as_bytes()).is_ok() {
                let _ = raw.canonical();
            }
            let _ = raw.leaves();
            let _ = raw.items();
            let _ = raw.get::<String>();
        }
    }
}
