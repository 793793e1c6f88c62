//! The table of crates, held against what they depend on: who may use which library, and that the four lower crates do
//! not know each other.

use std::collections::{BTreeMap, BTreeSet};

use thanosql_tests::cargo_metadata::{DependencyKind, MetadataCommand};

/// Libraries that one crate alone may use.
const OWNERS: &[(&str, &[&str])] = &[
    ("thanosql-config", &["clap", "toml"]),
    ("thanosql-protocol", &["pgwire"]),
    ("thanosql-storage", &["sled"]),
    ("thanosql-ml", &["burn", "burn-wgpu", "image"]),
    ("thanosql-server", &["datafusion", "parquet", "sqlparser", "ureq"]),
];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .expect("cargo metadata answers");
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let normal = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind == DependencyKind::Normal)
                .map(|dependency| dependency.name.to_string())
                .collect();
            (package.name.to_string(), normal)
        })
        .collect()
}

#[test]
fn each_library_has_one_owner() {
    let dependencies = dependencies();
    for (owner, libraries) in OWNERS {
        for library in *libraries {
            let users: Vec<&String> = dependencies
                .iter()
                .filter(|(_, uses)| uses.contains(*library))
                .map(|(name, _)| name)
                .collect();
            assert_eq!(users, [owner], "{library} belongs to {owner} alone");
        }
    }
}

#[test]
fn the_lower_crates_do_not_know_each_other() {
    let dependencies = dependencies();
    let members: BTreeSet<&String> =
        dependencies.keys().filter(|name| *name != "thanosql-tests").collect();
    assert_eq!(members.len(), OWNERS.len(), "a crate is missing from the table: {members:?}");
    for (name, uses) in &dependencies {
        if name == "thanosql-tests" {
            continue;
        }
        let own: Vec<&String> = uses.iter().filter(|used| members.contains(used)).collect();
        if name == "thanosql-server" {
            assert_eq!(own.len(), members.len() - 1);
        } else {
            assert!(own.is_empty(), "{name} must not know {own:?}");
        }
    }
}
