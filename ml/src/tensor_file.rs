//! safetensors, read strictly and written the same way every time.
//!
//! The format (<https://github.com/huggingface/safetensors>) is eight bytes with the length of a JSON header, the header, and the arrays' bytes.
//! A file may come from anyone, so a reader must not believe it: lengths, offsets and products of shapes are checked against the bytes that are
//! there before anything is allocated, arrays neither overlap nor leave gaps, and a name that comes twice is an error. Ordinary JSON readers
//! take the last of two equal names, and two programs would see two models in one file. Nothing nests, so depth is no concern.
//!
//! Written files have their arrays in the order of their names and no other freedom: the same arrays are the same bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize as Derive, Serialize};

/// Longest header that is read. The largest network that can be built takes a tenth of it.
const MAX_HEADER_BYTES: usize = 8 << 20;

/// The entry of the header that is no array.
const METADATA: &str = "__metadata__";

/// What an array's numbers are, by the format's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Derive)]
#[allow(missing_docs)] // the names say it
pub(crate) enum Dtype {
    #[serde(rename = "BOOL")]
    Bool,
    U8,
    I8,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    F64,
    I64,
    U64,
}

impl Dtype {
    fn bytes(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::BF16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }
}

/// One array of a file: its bytes are those of its shape and type, little-endian and row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Array<'a> {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Cow<'a, [u8]>,
}

impl Array<'_> {
    /// The numbers of an F32 array.
    pub(crate) fn values(&self) -> Vec<f32> {
        let (numbers, _) = self.bytes.as_chunks::<4>();
        numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

/// A file, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TensorFile<'a> {
    /// The texts of the header.
    pub(crate) metadata: BTreeMap<String, String>,
    /// The arrays by name.
    pub(crate) arrays: BTreeMap<String, Array<'a>>,
}

impl<'a> TensorFile<'a> {
    /// Takes a file apart without copying its arrays. An error says what is wrong with the bytes.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let (length, rest) =
            bytes.split_first_chunk::<8>().ok_or("it is too short for a safetensors file")?;
        let length = usize::try_from(u64::from_le_bytes(*length))
            .ok()
            .filter(|length| *length <= rest.len())
            .ok_or("its header is longer than the file")?;
        if length > MAX_HEADER_BYTES {
            return Err(format!("its header of {length} bytes is longer than {MAX_HEADER_BYTES}"));
        }
        let (header, data) = rest.split_at(length);
        let header: Header = serde_json::from_slice(header)
            .map_err(|error| format!("its header cannot be read: {error}"))?;

        let mut placed: Vec<(&String, &Info)> =
            header.arrays.iter().map(|(name, info)| (name, info)).collect();
        placed.sort_by_key(|(_, info)| info.data_offsets);
        let mut end = 0;
        for (name, info) in placed {
            let (start, stop) = info.data_offsets;
            let size = info
                .shape
                .iter()
                .try_fold(info.dtype.bytes(), |product, length| product.checked_mul(*length));
            if start != end || stop > data.len() || stop.checked_sub(start) != size {
                return Err(format!("the place of \"{}\" does not fit its shape", shown(name)));
            }
            end = stop;
        }
        if end != data.len() {
            return Err("it holds bytes that belong to no array".to_owned());
        }
        let arrays = header
            .arrays
            .into_iter()
            .map(|(name, info)| {
                let bytes = Cow::Borrowed(&data[info.data_offsets.0..info.data_offsets.1]);
                (name, Array { dtype: info.dtype, shape: info.shape, bytes })
            })
            .collect();
        Ok(Self { metadata: header.metadata, arrays })
    }

    /// The bytes of a file.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        // Wider numbers first, so that each array lies at a multiple of its width.
        let mut order: Vec<_> = self.arrays.iter().collect();
        order.sort_by_key(|(_, array)| std::cmp::Reverse(array.dtype.bytes()));
        let mut header = serde_json::Map::new();
        if !self.metadata.is_empty() {
            header.insert(METADATA.to_owned(), value(&self.metadata)?);
        }
        let mut end = 0;
        for (name, array) in &order {
            let start = end;
            end += array.bytes.len();
            let info =
                Info { dtype: array.dtype, shape: array.shape.clone(), data_offsets: (start, end) };
            header.insert((*name).clone(), value(&info)?);
        }
        let mut header = serde_json::to_vec(&header).map_err(|error| error.to_string())?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = Vec::with_capacity(8 + header.len() + end);
        bytes.extend_from_slice(&(header.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&header);
        for (_, array) in order {
            bytes.extend_from_slice(&array.bytes);
        }
        Ok(bytes)
    }
}

fn value(part: &impl Serialize) -> Result<serde_json::Value, String> {
    serde_json::to_value(part).map_err(|error| error.to_string())
}

/// A name as an error shows it: a file's may be of any length.
pub(crate) fn shown(name: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() {
        shown.push('\u{2026}');
    }
    shown
}

#[derive(Serialize, Derive)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// The header with every name once.
struct Header {
    metadata: BTreeMap<String, String>,
    arrays: Vec<(String, Info)>,
}

/// Texts by name, each name once.
struct Texts(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of arrays")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut names = BTreeSet::new();
                let mut header = Header { metadata: BTreeMap::new(), arrays: Vec::new() };
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("\"{}\" comes twice", shown(&name))));
                    }
                    if name == METADATA {
                        header.metadata = map.next_value::<Texts>()?.0;
                    } else {
                        header.arrays.push((name, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let mut texts = BTreeMap::new();
                while let Some((name, text)) = map.next_entry::<String, String>()? {
                    let comes_twice = format!("\"{}\" comes twice", shown(&name));
                    if texts.insert(name, text).is_some() {
                        return Err(A::Error::custom(comes_twice));
                    }
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::tensor::{Dtype as PeerDtype, SafeTensors, TensorView};

    use super::*;

    fn example() -> TensorFile<'static> {
        let array = |dtype, shape: &[usize], bytes: Vec<u8>| Array {
            dtype,
            shape: shape.to_vec(),
            bytes: Cow::Owned(bytes),
        };
        TensorFile {
            metadata: BTreeMap::from([("a".to_owned(), "\u{d55c}".to_owned())]),
            arrays: BTreeMap::from([
                ("bytes".to_owned(), array(Dtype::U8, &[3], vec![1, 2, 3])),
                ("empty".to_owned(), array(Dtype::F32, &[0, 4], Vec::new())),
                ("one".to_owned(), array(Dtype::F32, &[], 1.5_f32.to_le_bytes().to_vec())),
                ("two".to_owned(), array(Dtype::I64, &[2], vec![7; 16])),
            ]),
        }
    }

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    #[test]
    fn what_is_written_is_read_here_and_by_the_reference_implementation() {
        let bytes = example().to_bytes().unwrap();
        assert_eq!(TensorFile::parse(&bytes).unwrap(), example());
        assert_eq!(TensorFile::parse(&bytes).unwrap().to_bytes().unwrap(), bytes);
        let peer = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(peer.len(), 4);
        assert_eq!(peer.tensor("one").unwrap().data(), 1.5_f32.to_le_bytes());
        assert_eq!(peer.tensor("two").unwrap().shape(), [2]);

        let view = TensorView::new(PeerDtype::F32, vec![2], &[0; 8]).unwrap();
        let metadata = HashMap::from([("k".to_owned(), "v".to_owned())]);
        let peers = safetensors::serialize([("x", view)], Some(metadata)).unwrap();
        let read = TensorFile::parse(&peers).unwrap();
        assert_eq!(
            (read.arrays["x"].values(), &read.metadata["k"]),
            (vec![0.0; 2], &"v".to_owned())
        );
    }

    #[test]
    fn files_that_lie_are_refused() {
        let info = |shape: &str, start: u64, end: u64| {
            format!(r#"{{"dtype":"F32","shape":[{shape}],"data_offsets":[{start},{end}]}}"#)
        };
        let (a, b) = (info("1", 0, 4), info("1", 4, 8));
        assert!(TensorFile::parse(&file(&format!(r#"{{"a":{a},"b":{b}}}"#), 8)).is_ok());
        let huge = u64::MAX;
        for (header, data) in [
            (format!(r#"{{"a":{a},"a":{b}}}"#), 8),
            (format!(r#"{{"a":{a},"a":{a}}}"#), 4),
            (format!(r#"{{"a":{a},"b":{a}}}"#), 4),
            (format!(r#"{{"a":{a}}}"#), 5),
            (format!(r#"{{"a":{a}}}"#), 3),
            (format!(r#"{{"b":{b}}}"#), 8),
            (format!(r#"{{"a":{}}}"#, info("2", 0, 4)), 4),
            (format!(r#"{{"a":{}}}"#, info("4294967296,4294967296,2", 0, 4)), 4),
            (format!(r#"{{"a":{}}}"#, info(&format!("{huge},2"), 0, 8)), 8),
            (format!(r#"{{"a":{}}}"#, info("1", 4, 0)), 4),
            (format!(r#"{{"a":{}}}"#, info("", huge - 3, huge)), 4),
            (r#"{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#.to_owned(), 4),
            (r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#.to_owned(), 4),
            (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}"#.to_owned(), 4),
            (format!(r#"{{"a":{a},"__metadata__":{{"k":"1","k":"2"}}}}"#), 4),
            (format!(r#"{{"a":{a},"__metadata__":{{"k":{{}}}}}}"#), 4),
            (format!(r#"{{"a":{}"#, "[".repeat(1 << 20)), 4),
            (r#"[]"#.to_owned(), 0),
            (String::new(), 0),
        ] {
            let bytes = file(&header, data);
            assert!(TensorFile::parse(&bytes).is_err(), "{}", &header[..header.len().min(200)]);
        }
        for bytes in [&b""[..], b"1234567", &huge.to_le_bytes(), &8_u64.to_le_bytes()] {
            assert!(TensorFile::parse(bytes).is_err());
        }
        let long = file(&format!("{{}}{}", " ".repeat(MAX_HEADER_BYTES)), 0);
        assert!(TensorFile::parse(&long).unwrap_err().contains("longer"));
    }
}
