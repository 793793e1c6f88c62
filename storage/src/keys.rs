//! The keys of the store: every record that exists, and its bytes.
//!
//! Keys are fixed-width and big-endian, so that the engine's order is the natural one and a prefix names a family.
//! A record family lives in one of three rooms (engine trees). The rooms keep small, often rewritten records away
//! from large values: the engine rewrites up to 16 neighbours when it consolidates a page, and a manifest must not
//! carry a megabyte of vectors with it at every commit.
//!
//! | room | keys | values |
//! | --- | --- | --- |
//! | `meta` | everything but data | small records, postcard |
//! | `packs` | [`Key::Pack`] | all columns of a small row group, up to 64 KiB |
//! | `pieces` | [`Key::Piece`] | one piece of one part of a unit, up to 64 KiB |

/// A unit: an immutable set of pieces that is written once, by one transaction, and deleted as a whole.
pub(crate) type UnitId = u64;

/// The engine tree that a key lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Manifests, group records, models, jobs, counters.
    Meta,
    /// Small row groups in one value.
    Packs,
    /// Pieces of columns and of model parts.
    Pieces,
}

/// A counter that only goes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Object ids of tables, views and models.
    Oid,
    /// Ids of units; reserved in blocks.
    Unit,
    /// Ids of jobs.
    Job,
    /// Flushes; see [`crate::witness`].
    Flush,
}

/// Every key of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// The format version of the whole store.
    Format,
    /// The next value of a counter.
    Counter(Counter),
    /// A table's manifest, by the table's OID.
    Manifest(u32),
    /// One row group of a table: OID and group id.
    Group(u32, u32),
    /// The deleted rows of one row group: OID and group id.
    Deletions(u32, u32),
    /// A view, by its OID.
    View(u32),
    /// A model, by its OID.
    Model(u32),
    /// The last version that a model name has had; outlives the model.
    ModelVersion(String),
    /// A job's record.
    Job(u64),
    /// What a job has saved to go on from.
    Checkpoint(u64),
    /// What a job was asked for, kept until it ends.
    Request(u64),
    /// Where a sequence is, by its OID.
    Sequence(u32),
    /// What an index keeps besides its table's rows, by its OID.
    IndexData(u32),
    /// A mark: this unit's pieces belong to nothing durable and may be deleted. Set before a unit's first piece is
    /// written, taken away by the commit that refers to the unit, set again by the commit that lets it go.
    Garbage(UnitId),
    /// All columns of a small row group.
    Pack(UnitId),
    /// A piece: unit, part (a column or a model part), number.
    Piece(UnitId, u32, u32),
}

/// The family of a key, for scans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// All [`Key::Manifest`].
    Manifests,
    /// All [`Key::Group`].
    Groups,
    /// All [`Key::Deletions`].
    Deletions,
    /// All [`Key::View`].
    Views,
    /// All [`Key::Model`].
    Models,
    /// All [`Key::ModelVersion`].
    ModelVersions,
    /// All [`Key::Job`].
    Jobs,
    /// All [`Key::Checkpoint`].
    Checkpoints,
    /// All [`Key::Request`].
    Requests,
    /// All [`Key::Sequence`].
    Sequences,
    /// All [`Key::IndexData`].
    IndexData,
    /// All [`Key::Garbage`].
    Garbage,
    /// All [`Key::Piece`] of one unit.
    Pieces(UnitId),
}

const FORMAT: u8 = 0x00;
const COUNTER: u8 = 0x01;
const MANIFEST: u8 = 0x10;
const GROUP: u8 = 0x11;
const DELETIONS: u8 = 0x12;
const VIEW: u8 = 0x20;
const MODEL: u8 = 0x30;
const MODEL_VERSION: u8 = 0x31;
const JOB: u8 = 0x40;
const CHECKPOINT: u8 = 0x41;
const REQUEST: u8 = 0x42;
const GARBAGE: u8 = 0x50;
const SEQUENCE: u8 = 0x60;
const INDEX_DATA: u8 = 0x61;

impl Key {
    /// The room that the key lives in.
    pub(crate) fn room(&self) -> Room {
        match self {
            Key::Pack(_) => Room::Packs,
            Key::Piece(..) => Room::Pieces,
            Key::Format
            | Key::Counter(_)
            | Key::Manifest(_)
            | Key::Group(..)
            | Key::Deletions(..)
            | Key::View(_)
            | Key::Model(_)
            | Key::ModelVersion(_)
            | Key::Job(_)
            | Key::Checkpoint(_)
            | Key::Request(_)
            | Key::Sequence(_)
            | Key::IndexData(_)
            | Key::Garbage(_) => Room::Meta,
        }
    }

    /// The key's bytes, without its room.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16);
        match self {
            Key::Format => bytes.push(FORMAT),
            Key::Counter(counter) => {
                bytes.push(COUNTER);
                bytes.push(match counter {
                    Counter::Oid => 0,
                    Counter::Unit => 1,
                    Counter::Job => 2,
                    Counter::Flush => 3,
                });
            }
            Key::Manifest(oid) => tagged(&mut bytes, MANIFEST, &oid.to_be_bytes()),
            Key::Group(oid, group) => {
                tagged(&mut bytes, GROUP, &oid.to_be_bytes());
                bytes.extend_from_slice(&group.to_be_bytes());
            }
            Key::Deletions(oid, group) => {
                tagged(&mut bytes, DELETIONS, &oid.to_be_bytes());
                bytes.extend_from_slice(&group.to_be_bytes());
            }
            Key::View(oid) => tagged(&mut bytes, VIEW, &oid.to_be_bytes()),
            Key::Model(oid) => tagged(&mut bytes, MODEL, &oid.to_be_bytes()),
            Key::ModelVersion(name) => tagged(&mut bytes, MODEL_VERSION, name.as_bytes()),
            Key::Job(id) => tagged(&mut bytes, JOB, &id.to_be_bytes()),
            Key::Checkpoint(job) => tagged(&mut bytes, CHECKPOINT, &job.to_be_bytes()),
            Key::Request(job) => tagged(&mut bytes, REQUEST, &job.to_be_bytes()),
            Key::Sequence(oid) => tagged(&mut bytes, SEQUENCE, &oid.to_be_bytes()),
            Key::IndexData(oid) => tagged(&mut bytes, INDEX_DATA, &oid.to_be_bytes()),
            Key::Garbage(unit) => tagged(&mut bytes, GARBAGE, &unit.to_be_bytes()),
            Key::Pack(unit) => bytes.extend_from_slice(&unit.to_be_bytes()),
            Key::Piece(unit, part, number) => {
                bytes.extend_from_slice(&unit.to_be_bytes());
                bytes.extend_from_slice(&part.to_be_bytes());
                bytes.extend_from_slice(&number.to_be_bytes());
            }
        }
        bytes
    }
}

impl Family {
    /// The room that the family lives in.
    pub(crate) fn room(self) -> Room {
        match self {
            Family::Pieces(_) => Room::Pieces,
            Family::Manifests
            | Family::Groups
            | Family::Deletions
            | Family::Views
            | Family::Models
            | Family::ModelVersions
            | Family::Jobs
            | Family::Checkpoints
            | Family::Requests
            | Family::Sequences
            | Family::IndexData
            | Family::Garbage => Room::Meta,
        }
    }

    /// What every key of the family starts with.
    pub(crate) fn prefix(self) -> Vec<u8> {
        match self {
            Family::Manifests => vec![MANIFEST],
            Family::Groups => vec![GROUP],
            Family::Deletions => vec![DELETIONS],
            Family::Views => vec![VIEW],
            Family::Models => vec![MODEL],
            Family::ModelVersions => vec![MODEL_VERSION],
            Family::Jobs => vec![JOB],
            Family::Checkpoints => vec![CHECKPOINT],
            Family::Requests => vec![REQUEST],
            Family::Sequences => vec![SEQUENCE],
            Family::IndexData => vec![INDEX_DATA],
            Family::Garbage => vec![GARBAGE],
            Family::Pieces(unit) => unit.to_be_bytes().to_vec(),
        }
    }

    /// Reads a key of this family back; `None` when the bytes are not one.
    pub(crate) fn parse(self, bytes: &[u8]) -> Option<Key> {
        let rest = bytes.strip_prefix(self.prefix().as_slice())?;
        Some(match self {
            Family::Manifests => Key::Manifest(u32_at(rest, 0, 4)?),
            Family::Groups => Key::Group(u32_at(rest, 0, 8)?, u32_at(rest, 4, 8)?),
            Family::Deletions => Key::Deletions(u32_at(rest, 0, 8)?, u32_at(rest, 4, 8)?),
            Family::Views => Key::View(u32_at(rest, 0, 4)?),
            Family::Models => Key::Model(u32_at(rest, 0, 4)?),
            Family::ModelVersions => Key::ModelVersion(std::str::from_utf8(rest).ok()?.to_owned()),
            Family::Jobs => Key::Job(u64_of(rest)?),
            Family::Checkpoints => Key::Checkpoint(u64_of(rest)?),
            Family::Requests => Key::Request(u64_of(rest)?),
            Family::Sequences => Key::Sequence(u32_at(rest, 0, 4)?),
            Family::IndexData => Key::IndexData(u32_at(rest, 0, 4)?),
            Family::Garbage => Key::Garbage(u64_of(rest)?),
            Family::Pieces(unit) => Key::Piece(unit, u32_at(rest, 0, 8)?, u32_at(rest, 4, 8)?),
        })
    }
}

fn tagged(bytes: &mut Vec<u8>, tag: u8, rest: &[u8]) {
    bytes.push(tag);
    bytes.extend_from_slice(rest);
}

/// The big-endian number at `start` of bytes that must be `length` long.
fn u32_at(bytes: &[u8], start: usize, length: usize) -> Option<u32> {
    if bytes.len() != length {
        return None;
    }
    Some(u32::from_be_bytes(bytes.get(start..start + 4)?.try_into().ok()?))
}

fn u64_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_by_its_family_and_by_no_other() {
        assert_eq!(Family::Jobs.parse(&Key::Checkpoint(3).bytes()), None);
        let keys = [
            (Family::Manifests, Key::Manifest(16400)),
            (Family::Groups, Key::Group(16400, 7)),
            (Family::Deletions, Key::Deletions(16400, u32::MAX)),
            (Family::Views, Key::View(1)),
            (Family::Models, Key::Model(2)),
            (Family::ModelVersions, Key::ModelVersion("모델".to_owned())),
            (Family::Jobs, Key::Job(u64::MAX)),
            (Family::Checkpoints, Key::Checkpoint(5)),
            (Family::Requests, Key::Request(5)),
            (Family::Sequences, Key::Sequence(5)),
            (Family::IndexData, Key::IndexData(5)),
            (Family::Garbage, Key::Garbage(4)),
            (Family::Pieces(9), Key::Piece(9, 1, 2)),
        ];
        for (family, key) in &keys {
            assert_eq!(family.room(), key.room());
            for (other, _) in &keys {
                let read = other.parse(&key.bytes());
                if other == family {
                    assert_eq!(read.as_ref(), Some(key));
                } else if other.room() == key.room() {
                    assert_eq!(read, None, "{other:?} took {key:?}");
                }
            }
        }
    }

    #[test]
    fn byte_order_is_number_order() {
        let low = Key::Piece(1, 2, 255).bytes();
        let high = Key::Piece(1, 2, 256).bytes();
        assert!(low < high);
        assert!(Key::Group(1, u32::MAX).bytes() < Key::Group(2, 0).bytes());
    }
}
