//! How deep values may be nested. They come from other people, and reading one takes a part of the stack for each level:
//! a value made for it would end the process (I5). So they are read through a deserializer that counts the levels.

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::fmt;

/// Arrays and maps in each other in a value that is stored; as many as JSON libraries read.
const STORED: usize = 128;
/// And in one that is read: a document is put together from stored values and the maps that their paths stand for.
const READ: usize = STORED + anabranch_core::limits::PATH_SEGMENTS;

/// Refuses an encoding of our own that nests deeper than what may be stored, with the reason.
pub(crate) fn check(encoded: &[u8]) -> Result<(), String> {
    // Each level takes a byte at least.
    let fits = encoded.len() <= STORED || nests_within(encoded, STORED).unwrap_or(true);
    if fits { Ok(()) } else { Err(too_deep(STORED)) }
}

fn nests_within(encoded: &[u8], most: usize) -> Result<bool, Error> {
    let mut decoder = Decoder::new(encoded);
    // Of each array and map around here: how many items are to come, unless a break ends it.
    let mut open: Vec<Option<u64>> = Vec::new();
    while decoder.position() < encoded.len() {
        let opened = match decoder.datatype()? {
            Type::Array | Type::ArrayIndef => Some(decoder.array()?),
            Type::Map | Type::MapIndef => Some(decoder.map()?.map(|pairs| pairs.saturating_mul(2))),
            Type::Break => {
                decoder.set_position(decoder.position() + 1);
                open.pop();
                None
            }
            _ => {
                decoder.skip()?;
                None
            }
        };
        match opened {
            Some(_) if open.len() == most => return Ok(false),
            Some(items) if items != Some(0) => open.push(items),
            _ => end_item(&mut open),
        }
    }
    Ok(true)
}

/// One item less to come, which may have been the last of what is around it, and so on.
fn end_item(open: &mut Vec<Option<u64>>) {
    while let Some(Some(items)) = open.last_mut() {
        *items -= 1;
        if *items > 0 {
            return;
        }
        open.pop();
    }
}

/// What is wrong with a value that nests deeper.
fn too_deep(most: usize) -> String {
    format!("it is nested more than {most} levels deep")
}

/// A part of what reads a value, with the levels that may still come below it.
pub(crate) struct Bounded<T> {
    inner: T,
    left: usize,
}

impl<T> Bounded<T> {
    /// Around the deserializer of a whole value.
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, left: READ }
    }

    /// Another part on the same level.
    fn beside<U>(&self, inner: U) -> Bounded<U> {
        Bounded { inner, left: self.left }
    }

    /// A part one level down.
    fn below<U, E: serde::de::Error>(&self, inner: U) -> Result<Bounded<U>, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Bounded { inner, left }),
            None => Err(E::custom(too_deep(READ))),
        }
    }
}

macro_rules! deserialize {
    ($($method:ident($($name:ident: $type:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.beside(visitor);
            self.inner.$method($($name,)* visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any() deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32()
        deserialize_i64() deserialize_i128() deserialize_u8() deserialize_u16() deserialize_u32()
        deserialize_u64() deserialize_u128() deserialize_f32() deserialize_f64() deserialize_char()
        deserialize_str() deserialize_string() deserialize_bytes() deserialize_byte_buf()
        deserialize_option() deserialize_unit() deserialize_seq() deserialize_map()
        deserialize_identifier() deserialize_ignored_any()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident($type:ty))*) => {$(
        fn $method<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool(bool) visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64) visit_i128(i128)
        visit_u8(u8) visit_u16(u16) visit_u32(u32) visit_u64(u64) visit_u128(u128) visit_f32(f32)
        visit_f64(f64) visit_char(char) visit_str(&str) visit_borrowed_str(&'de str)
        visit_string(String) visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8])
        visit_byte_buf(Vec<u8>)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.beside(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let inner = self.beside(inner);
        self.inner.visit_newtype_struct(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.beside(access);
        self.inner.visit_seq(access)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.beside(access);
        self.inner.visit_map(access)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.beside(access);
        self.inner.visit_enum(access)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.beside(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let seed = self.below(seed)?;
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Bounded<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let seed = self.below(seed)?;
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.below(seed)?;
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<A> {
    type Error = A::Error;
    type Variant = Bounded<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        // Counted even where no array or map holds the variant: a chain of their names nests as well.
        let inside = self.below(())?;
        let (value, variant) = self.inner.variant_seed(inside.beside(seed))?;
        Ok((value, inside.beside(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.beside(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.beside(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.beside(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use crate::Raw;
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Any {
        Number(u8),
        List(Vec<Any>),
        Map(BTreeMap<String, Any>),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Chain {
        End,
        Next(Box<Chain>),
        Pair(Box<Chain>, u8),
        Named { next: Option<Box<Chain>> },
    }

    /// Levels far beyond any stack, of every kind that a type can be made of itself by.
    #[test]
    fn a_value_nested_without_end_is_an_error_and_no_crash() {
        let links = |link: &[u8]| [&link.repeat(150_000 / link.len())[..], &[0xf6]].concat();
        for bytes in [links(&[0x81]), links(&[0x9f]), links(&[0xa1, 0x61, b'a'])] {
            let error = Raw::from_bytes(bytes).get::<Any>().unwrap_err().to_string();
            assert!(error.contains("more than 192 levels deep"), "{error}");
        }
        let next = b"\xa1\x64Next";
        let pair = b"\xa1\x64Pair\x82";
        let named = b"\xa1\x65Named\xa1\x64next";
        // The names alone, which are not what we would write.
        for link in [&next[..], pair, named, &next[1..]] {
            let error = Raw::from_bytes(links(link)).get::<Chain>().unwrap_err().to_string();
            assert!(error.contains("more than 192 levels deep"), "{error}");
        }
    }

    fn nested(levels: usize) -> Any {
        (0..levels).fold(Any::Number(7), |inner, _| Any::List(vec![inner]))
    }

    #[test]
    fn what_can_be_stored_can_be_read() {
        for levels in [0, 1, STORED - 1, STORED] {
            let value = nested(levels);
            assert_eq!(Raw::new(&value).unwrap().get::<Any>().unwrap(), value, "{levels}");
        }
        let deepest = [&[0x81; READ][..], &[7]].concat();
        assert_eq!(Raw::from_bytes(deepest).get::<Any>().unwrap(), nested(READ));
        let wide = Any::List((0..=255).map(|n| Any::List(vec![Any::Number(n)])).collect());
        assert_eq!(Raw::new(&wide).unwrap().get::<Any>().unwrap(), wide);
        let chain = Chain::Named { next: Some(Box::new(Chain::Pair(Box::new(Chain::End), 9))) };
        let chain = Chain::Next(Box::new(chain));
        assert_eq!(Raw::new(&chain).unwrap().get::<Chain>().unwrap(), chain);
    }

    #[test]
    fn what_could_not_be_read_is_not_stored() {
        let error = Raw::new(&nested(STORED + 1)).unwrap_err().to_string();
        assert!(error.contains("more than 128 levels deep"), "{error}");
        let maps = (0..=STORED).fold(Any::Number(7), |inner, n| {
            Any::Map(BTreeMap::from([("a".repeat(n % 3), inner)]))
        });
        assert!(Raw::new(&maps).is_err());
    }
}
