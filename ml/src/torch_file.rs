//! PyTorch's `.pth` files, as far as a table of weights needs them.
//!
//! `torch.save` writes a zip archive without compression: `data.pkl`, a pickle that says what there is, and `data/<key>`, the numbers. A pickle is
//! a program for a small stack machine whose instructions can call anything in Python. The machine here knows the instructions that a
//! state dict is written with and three calls: `OrderedDict()`, and the two that put a tensor together from a piece of storage. Any other
//! instruction or call is an error. Values live in one list and refer to each other by number, so neither cycles nor depth cost
//! anything, and each instruction does a bounded amount of work.
//!
//! Left out: the format from before PyTorch 1.6, archives of more than 4 GiB, quantised and sparse tensors.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::tensor_file::{Array, Dtype, shown};

/// Longest tuple that is looked into.
const MAX_TUPLE: usize = 16;

/// How a zip archive begins.
pub(crate) const MAGIC: &[u8] = b"PK\x03\x04";

/// The tensors of a saved state dict, by name. An error says what is wrong with the bytes.
pub(crate) fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Array<'_>>, String> {
    let files = entries(bytes)?;
    let (program, folder) = files
        .iter()
        .find_map(|(name, content)| Some((*content, name.strip_suffix("data.pkl")?)))
        .ok_or("the archive holds no data.pkl; save it with torch.save of PyTorch 1.6 or later")?;
    if files.get(&format!("{folder}byteorder")).is_some_and(|order| *order != b"little") {
        return Err("its numbers are not little-endian".to_owned());
    }
    let mut machine = Machine { code: program, ..Machine::default() };
    let result = machine.run()?;
    let mut arrays = BTreeMap::new();
    for (name, tensor) in machine.state_dict(&result)? {
        let content = files.get(&format!("{folder}data/{}", tensor.storage.key));
        let array = tensor
            .array(content.copied())
            .map_err(|error| format!("\"{}\" {error}", shown(&name)))?;
        if arrays.insert(name.to_string(), array).is_some() {
            return Err(format!("\"{}\" comes twice", shown(&name)));
        }
    }
    Ok(arrays)
}

/// The files of a zip archive, none of them compressed.
fn entries(bytes: &[u8]) -> Result<BTreeMap<String, &[u8]>, String> {
    const END: &[u8] = b"PK\x05\x06";
    const END_BYTES: usize = 22;
    let damaged = || "the archive is damaged".to_owned();
    // The end record is last, but for a comment of at most 64 KiB.
    let earliest = bytes.len().saturating_sub(END_BYTES + 0xffff);
    let end = (earliest..=bytes.len().saturating_sub(END_BYTES))
        .rev()
        .find(|place| bytes[*place..].starts_with(END))
        .ok_or_else(damaged)?;
    let (count, start) = (u16_at(bytes, end + 10), u32_at(bytes, end + 16));
    let (count, mut at) = count.zip(start).ok_or_else(damaged)?;
    let mut files = BTreeMap::new();
    for _ in 0..count {
        let field = |offset| u32_at(bytes, at.checked_add(offset)?);
        let half = |offset| u16_at(bytes, at.checked_add(offset)?);
        let record = (|| {
            let (method, size, packed) = (half(10)?, field(24)?, field(20)?);
            let lengths = (half(28)?, half(30)?, half(32)?);
            Some((field(0)?, method, size, packed, lengths, field(42)?))
        })();
        let (signature, method, size, packed, lengths, local) = record.ok_or_else(damaged)?;
        let (name_length, extra_length, comment_length) = lengths;
        let name_at = at + 46;
        let name = bytes.get(name_at..name_at + name_length).ok_or_else(damaged)?;
        let name = std::str::from_utf8(name).map_err(|_| damaged())?;
        if signature != 0x0201_4b50 {
            return Err(damaged());
        }
        if method != 0 || size != packed {
            return Err(format!("\"{}\" in the archive is compressed", shown(name)));
        }
        // The local header has a name and an extra field of its own, of other lengths.
        let content = local
            .checked_add(26)
            .and_then(|place| Some((u16_at(bytes, place)?, u16_at(bytes, place + 2)?)))
            .and_then(|(name, extra)| bytes.get(local + 30 + name + extra..)?.get(..size))
            .ok_or_else(damaged)?;
        if files.insert(name.to_owned(), content).is_some() {
            return Err(format!("\"{}\" comes twice in the archive", shown(name)));
        }
        at = name_at + name_length + extra_length + comment_length;
    }
    Ok(files)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk::<2>()?;
    Some(usize::from(u16::from_le_bytes(*bytes)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

/// A piece of storage that tensors lie in.
#[derive(Clone, Debug)]
struct Storage {
    dtype: Dtype,
    key: Rc<str>,
    length: usize,
}

/// A tensor as the pickle describes it.
#[derive(Clone, Debug)]
struct Tensor {
    storage: Storage,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Tensor {
    fn array<'a>(&self, content: Option<&'a [u8]>) -> Result<Array<'a>, &'static str> {
        let content = content.ok_or("has no numbers in the archive")?;
        let dtype = self.storage.dtype;
        if dtype != Dtype::F32 && dtype != Dtype::I64 {
            return Err("is neither float32 nor int64");
        }
        let width = if dtype == Dtype::F32 { 4 } else { 8 };
        let mut expected = 1_usize;
        for (length, stride) in self.shape.iter().zip(&self.strides).rev() {
            if *length > 1 && *stride != expected {
                return Err("does not lie in one piece");
            }
            expected = expected.checked_mul(*length).ok_or("is too large")?;
        }
        let range = self.offset.checked_mul(width).zip(expected.checked_mul(width));
        let (start, size) = range.ok_or("is too large")?;
        let bytes = content
            .get(start..)
            .and_then(|rest| rest.get(..size))
            .filter(|_| self.storage.length.checked_mul(width) == Some(content.len()))
            .ok_or("does not fit its storage")?;
        Ok(Array {
            dtype: self.storage.dtype,
            shape: self.shape.clone(),
            bytes: Cow::Borrowed(bytes),
        })
    }
}

/// A value on the stack. Cloning is cheap.
#[derive(Clone, Debug)]
enum Value {
    Nothing,
    Bool,
    Number(i64),
    Text(Rc<str>),
    /// A tuple, list, dict, call or tensor, by its place in [`Machine::nodes`].
    Node(usize),
    /// Where a group begins.
    Mark,
}

/// What is made of values.
#[derive(Debug)]
enum Node {
    Tuple(Vec<Value>),
    List,
    Dict(Vec<(Value, Value)>),
    /// Something of Python's, by module and name.
    Global(String),
    Storage(Storage),
    Tensor(Tensor),
}

/// The stack machine.
#[derive(Default)]
struct Machine<'a> {
    code: &'a [u8],
    stack: Vec<Value>,
    memo: HashMap<usize, Value>,
    nodes: Vec<Node>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value, String> {
        loop {
            let instruction = self.take(1)?[0];
            match instruction {
                // PROTO, FRAME
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'.' => return self.pop(),
                b'(' => self.stack.push(Value::Mark),
                b'0' => drop(self.pop()?),
                b'N' => self.stack.push(Value::Nothing),
                // NEWTRUE, NEWFALSE
                0x88 | 0x89 => self.stack.push(Value::Bool),
                b'J' => {
                    let bytes = self.array::<4>()?;
                    self.stack.push(Value::Number(i64::from(i32::from_le_bytes(bytes))));
                }
                b'K' => {
                    let byte = self.take(1)?[0];
                    self.stack.push(Value::Number(i64::from(byte)));
                }
                b'M' => {
                    let bytes = self.array::<2>()?;
                    self.stack.push(Value::Number(i64::from(u16::from_le_bytes(bytes))));
                }
                // LONG1
                0x8a => {
                    let length = usize::from(self.take(1)?[0]);
                    let bytes = self.take(length)?;
                    if length > 8 {
                        return Err("its pickle holds a number that is too large".to_owned());
                    }
                    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
                    let mut number = [if negative { 0xff } else { 0 }; 8];
                    number[..length].copy_from_slice(bytes);
                    self.stack.push(Value::Number(i64::from_le_bytes(number)));
                }
                b'G' => {
                    self.take(8)?;
                    self.stack.push(Value::Nothing);
                }
                // BINUNICODE, SHORT_BINUNICODE
                b'X' | 0x8c => {
                    let length = match instruction {
                        b'X' => u32::from_le_bytes(self.array()?) as usize,
                        _ => usize::from(self.take(1)?[0]),
                    };
                    let text = std::str::from_utf8(self.take(length)?)
                        .map_err(|_| "its pickle holds a text that is not UTF-8")?;
                    self.stack.push(Value::Text(text.into()));
                }
                b'}' => self.push(Node::Dict(Vec::new())),
                b']' => self.push(Node::List),
                b')' => self.push(Node::Tuple(Vec::new())),
                b't' => {
                    let items = self.pop_group()?;
                    self.push(Node::Tuple(items));
                }
                // TUPLE1 to TUPLE3
                0x85..=0x87 => {
                    let length = usize::from(instruction - 0x84);
                    let start = self.stack.len().checked_sub(length).ok_or_else(underflow)?;
                    let items = self.stack.split_off(start);
                    self.push(Node::Tuple(items));
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Node::Global(format!("{module} {name}")));
                }
                // STACK_GLOBAL
                0x93 => {
                    let (name, module) = (self.pop_text()?, self.pop_text()?);
                    self.push(Node::Global(format!("{module} {name}")));
                }
                b'q' | b'r' | 0x94 => {
                    let place = match instruction {
                        b'q' => usize::from(self.take(1)?[0]),
                        b'r' => u32::from_le_bytes(self.array()?) as usize,
                        _ => self.memo.len(),
                    };
                    let top = self.stack.last().cloned().ok_or_else(underflow)?;
                    self.memo.insert(place, top);
                }
                b'h' | b'j' => {
                    let place = match instruction {
                        b'h' => usize::from(self.take(1)?[0]),
                        _ => u32::from_le_bytes(self.array()?) as usize,
                    };
                    let value = self.memo.get(&place).cloned();
                    self.stack.push(value.ok_or("its pickle names a value that it does not hold")?);
                }
                b'Q' => self.storage()?,
                b'R' => self.call()?,
                // BUILD: a state dict's own attributes, which hold versions of modules.
                b'b' => drop(self.pop()?),
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set_items(vec![key, value])?;
                }
                b'u' => {
                    let items = self.pop_group()?;
                    self.set_items(items)?;
                }
                // Lists hold nothing that is looked at.
                b'a' => drop(self.pop()?),
                b'e' => drop(self.pop_group()?),
                other => {
                    return Err(format!(
                        "its pickle holds the instruction 0x{other:02x}, which a table of weights has no use for"
                    ));
                }
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) =
            self.code.split_at_checked(length).ok_or_else(|| "its pickle is cut off".to_owned())?;
        self.code = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| "its pickle is cut off".to_owned())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let end = self.code.iter().position(|byte| *byte == b'\n');
        let line = self.take(end.ok_or("its pickle is cut off")?)?;
        self.take(1)?;
        std::str::from_utf8(line)
            .map_err(|_| "its pickle holds a name that is not UTF-8".to_owned())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(Value::Node(self.nodes.len()));
        self.nodes.push(node);
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.stack.pop().ok_or_else(underflow)
    }

    fn pop_text(&mut self) -> Result<Rc<str>, String> {
        let Value::Text(text) = self.pop()? else {
            return Err("its pickle has something else where a text must be".to_owned());
        };
        Ok(text)
    }

    /// What stands above the last mark.
    fn pop_group(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark));
        let items = self.stack.split_off(mark.ok_or_else(underflow)? + 1);
        self.stack.pop();
        Ok(items)
    }

    fn pop_tuple(&mut self) -> Result<Vec<Value>, String> {
        let value = self.pop()?;
        self.tuple(&value).map(<[Value]>::to_vec)
    }

    fn node(&self, value: &Value) -> Option<&Node> {
        let Value::Node(place) = value else { return None };
        self.nodes.get(*place)
    }

    fn tuple(&self, value: &Value) -> Result<&[Value], String> {
        match self.node(value) {
            // Longer ones are nothing that a tensor is made of, and copying them again and again would cost.
            Some(Node::Tuple(items)) if items.len() <= MAX_TUPLE => Ok(items),
            _ => Err("its pickle has something else where a tuple must be".to_owned()),
        }
    }

    fn set_items(&mut self, items: Vec<Value>) -> Result<(), String> {
        let target = match self.stack.last() {
            Some(Value::Node(place)) => self.nodes.get_mut(*place),
            _ => None,
        };
        let Some(Node::Dict(entries)) = target else {
            return Err("its pickle sets an entry of something that is no dict".to_owned());
        };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            entries.push((key, value));
        }
        Ok(())
    }

    /// A reference to storage: `('storage', type, key, location, length)`.
    fn storage(&mut self) -> Result<(), String> {
        let items = self.pop_tuple()?;
        let unknown = || "its pickle refers to something else than storage".to_owned();
        let [Value::Text(kind), class, Value::Text(key), _, Value::Number(length)] = &items[..]
        else {
            return Err(unknown());
        };
        let Some(Node::Global(class)) = self.node(class) else { return Err(unknown()) };
        let dtype = match class.as_str() {
            "torch FloatStorage" => Dtype::F32,
            "torch LongStorage" => Dtype::I64,
            "torch HalfStorage" => Dtype::F16,
            "torch BFloat16Storage" => Dtype::BF16,
            "torch DoubleStorage" => Dtype::F64,
            "torch IntStorage" => Dtype::I32,
            "torch ByteStorage" => Dtype::U8,
            "torch BoolStorage" => Dtype::Bool,
            other => return Err(format!("its pickle refers to \"{}\"", shown(other))),
        };
        if &**kind != "storage" {
            return Err(unknown());
        }
        let length = usize::try_from(*length).map_err(|_| unknown())?;
        let key = key.clone();
        self.push(Node::Storage(Storage { dtype, key, length }));
        Ok(())
    }

    fn call(&mut self) -> Result<(), String> {
        let arguments = self.pop_tuple()?;
        let function = self.pop()?;
        let Some(Node::Global(function)) = self.node(&function) else {
            return Err("its pickle calls something that is no function".to_owned());
        };
        match function.as_str() {
            "collections OrderedDict" if arguments.is_empty() => self.push(Node::Dict(Vec::new())),
            "torch._utils _rebuild_tensor_v2" => {
                let tensor = self.tensor(&arguments);
                self.push(Node::Tensor(tensor.ok_or("its pickle puts a tensor together wrongly")?));
            }
            "torch._utils _rebuild_parameter" => {
                let first = arguments.into_iter().next();
                self.stack.push(first.ok_or("its pickle makes a parameter of nothing")?);
            }
            other => {
                return Err(format!(
                    "its pickle calls \"{}\", which a table of weights has no use for",
                    shown(other)
                ));
            }
        }
        Ok(())
    }

    /// `(storage, offset, shape, strides, ...)`
    fn tensor(&self, arguments: &[Value]) -> Option<Tensor> {
        let [storage, Value::Number(offset), shape, strides, ..] = arguments else { return None };
        let Some(Node::Storage(storage)) = self.node(storage) else { return None };
        let numbers = |value| -> Option<Vec<usize>> {
            let items = self.tuple(value).ok()?;
            items
                .iter()
                .map(|item| {
                    let Value::Number(number) = item else { return None };
                    usize::try_from(*number).ok()
                })
                .collect()
        };
        let (shape, strides) = (numbers(shape)?, numbers(strides)?);
        let offset = usize::try_from(*offset).ok()?;
        (shape.len() == strides.len()).then(|| Tensor {
            storage: storage.clone(),
            offset,
            shape,
            strides,
        })
    }

    /// The tensors of the saved dict, or of its entry `state_dict`, as trainings save them.
    fn state_dict(&self, result: &Value) -> Result<Vec<(Rc<str>, Tensor)>, String> {
        let Some(Node::Dict(outer)) = self.node(result) else {
            return Err("it does not hold a dict of tensors".to_owned());
        };
        let mut entries = outer;
        let inner = entries.iter().find_map(|(key, value)| match (key, self.node(value)) {
            (Value::Text(key), Some(Node::Dict(inner))) if &**key == "state_dict" => Some(inner),
            _ => None,
        });
        if let Some(inner) = inner {
            entries = inner;
        }
        let mut tensors = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            match (key, self.node(value)) {
                (Value::Text(name), Some(Node::Tensor(tensor))) => {
                    tensors.push((name.clone(), tensor.clone()));
                }
                (Value::Text(name), _) => {
                    return Err(format!("\"{}\" is no tensor", shown(name)));
                }
                _ => return Err("a tensor has a name that is no text".to_owned()),
            }
        }
        Ok(tensors)
    }
}

fn underflow() -> String {
    "its pickle takes more from its stack than there is".to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::random::Random;

    /// A zip archive without compression, as `torch.save` lays it out.
    pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut directory = Vec::new();
        for (name, content) in files {
            let local = bytes.len() as u32;
            let size = (content.len() as u32).to_le_bytes();
            let name_length = (name.len() as u16).to_le_bytes();
            bytes.extend_from_slice(MAGIC);
            bytes.extend_from_slice(&[0; 14]);
            bytes.extend_from_slice(&size);
            bytes.extend_from_slice(&size);
            bytes.extend_from_slice(&name_length);
            // PyTorch fills up with an extra field, so that numbers lie at multiples of 64.
            let extra = (64 - (bytes.len() + 2 + name.len()) % 64) % 64;
            bytes.extend_from_slice(&(extra as u16).to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.resize(bytes.len() + extra, b'Z');
            bytes.extend_from_slice(content);

            directory.extend_from_slice(b"PK\x01\x02");
            directory.extend_from_slice(&[0; 16]);
            directory.extend_from_slice(&size);
            directory.extend_from_slice(&size);
            directory.extend_from_slice(&name_length);
            directory.extend_from_slice(&[0; 12]);
            directory.extend_from_slice(&local.to_le_bytes());
            directory.extend_from_slice(name.as_bytes());
        }
        let (start, size) = (bytes.len() as u32, directory.len() as u32);
        let count = (files.len() as u16).to_le_bytes();
        bytes.extend_from_slice(&directory);
        bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        bytes.extend_from_slice(&count);
        bytes.extend_from_slice(&count);
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&start.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes
    }

    /// The bytes of `torch.save(OrderedDict(...))`: F32 tensors, and one count of batches (I64) for each name that ends so.
    pub(crate) fn saved(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
        let mut pickle = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(".to_vec();
        let text = |pickle: &mut Vec<u8>, text: &str| {
            pickle.push(b'X');
            pickle.extend_from_slice(&(text.len() as u32).to_le_bytes());
            pickle.extend_from_slice(text.as_bytes());
        };
        let number = |pickle: &mut Vec<u8>, number: usize| {
            pickle.push(b'J');
            pickle.extend_from_slice(&(number as i32).to_le_bytes());
        };
        let mut contents = Vec::new();
        for (index, (name, shape, values)) in tensors.iter().enumerate() {
            let counts = name.ends_with("num_batches_tracked");
            text(&mut pickle, name);
            pickle.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            text(&mut pickle, "storage");
            pickle.extend_from_slice(if counts {
                b"ctorch\nLongStorage\n"
            } else {
                b"ctorch\nFloatStorage\n"
            });
            text(&mut pickle, &index.to_string());
            text(&mut pickle, "cpu");
            number(&mut pickle, values.len());
            pickle.extend_from_slice(b"tQK\x00(");
            let mut stride = values.len();
            let strides = shape.iter().map(|length| {
                stride /= length;
                stride
            });
            let strides: Vec<usize> = strides.collect();
            shape.iter().for_each(|length| number(&mut pickle, *length));
            pickle.extend_from_slice(b"t(");
            strides.iter().for_each(|stride| number(&mut pickle, *stride));
            pickle.extend_from_slice(b"t\x89ccollections\nOrderedDict\n)RtR");
            let content: Vec<u8> = match counts {
                true => values.iter().flat_map(|value| (*value as i64).to_le_bytes()).collect(),
                false => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            };
            contents.push((format!("archive/data/{index}"), content));
        }
        // The state dict's own attribute `_metadata`.
        pickle.extend_from_slice(b"u}X\x09\x00\x00\x00_metadatah\x00)Rsb.");
        let mut files: Vec<(&str, &[u8])> =
            vec![("archive/data.pkl", &pickle), ("archive/byteorder", b"little")];
        files.extend(contents.iter().map(|(name, content)| (name.as_str(), &content[..])));
        archive(&files)
    }

    fn example() -> Vec<u8> {
        saved(&[
            ("a.weight".to_owned(), vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            ("a.num_batches_tracked".to_owned(), vec![], vec![9.0]),
            ("b".to_owned(), vec![1], vec![-0.5]),
        ])
    }

    fn pickled(pickle: &[u8]) -> Result<Vec<String>, String> {
        let bytes = archive(&[("x/data.pkl", pickle)]);
        parse(&bytes).map(|arrays| arrays.into_keys().collect())
    }

    #[test]
    fn a_saved_state_dict_is_read() {
        let bytes = example();
        let arrays = parse(&bytes).unwrap();
        assert_eq!(arrays.len(), 3);
        assert_eq!(arrays["a.weight"].shape, [2, 3]);
        assert_eq!(arrays["a.weight"].values(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(arrays["a.num_batches_tracked"].dtype, Dtype::I64);
        assert_eq!(arrays["b"].values(), [-0.5]);
    }

    #[test]
    fn programs_are_not_run() {
        for pickle in [
            &b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR."[..],
            b"\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
            b"\x80\x02(lp0\n.",
            b"h\x05.",
            b"R.",
            b"u.",
            b"}X\xff\xff\xff\xffa.",
            b"}",
            b"K\x01.",
            b"}(X\x01\x00\x00\x00aK\x01u.",
            b"}(K\x01K\x01u.",
        ] {
            assert!(pickled(pickle).is_err(), "{pickle:?}");
        }
        assert_eq!(pickled(b"}."), Ok(Vec::new()));
        // A million tuples in each other, and a dict that holds itself.
        let mut deep = vec![b')'];
        deep.resize(1_000_000, 0x85);
        deep.push(b'.');
        assert!(pickled(&deep).is_err());
        assert!(pickled(b"}q\x00X\x01\x00\x00\x00ah\x00s.").is_err());
    }

    #[test]
    fn damaged_archives_are_errors_or_tensors() {
        let good = example();
        for length in 0..good.len() {
            assert!(parse(&good[..length]).is_err(), "cut to {length}");
        }
        let mut random = Random::keyed(&[3]);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=random.below(2) {
                let place = random.below(bytes.len());
                bytes[place] = match random.chance(0.5) {
                    true => bytes[place] ^ (1 << random.below(8)),
                    false => b"(.}]tuRQqhNKJX\x85\x89"[random.below(16)],
                };
            }
            if let Ok(arrays) = parse(&bytes) {
                for array in arrays.values() {
                    let width = if array.dtype == Dtype::F32 { 4 } else { 8 };
                    assert_eq!(array.bytes.len(), width * array.shape.iter().product::<usize>());
                }
            }
        }
    }
}
