//! Both back ends pass the same checks.

use std::cell::Cell;

use anabranch_core::storage::Storage;
use anabranch_store::conformance::{CHECKS, Make};
use anabranch_store::{MemoryStorage, Options, SqliteStorage};

fn run(make: Make<'_>) {
    for (name, check) in CHECKS {
        // Shown with a failure.
        println!("{name}");
        check(make).unwrap();
    }
}

#[test]
fn sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let made = Cell::new(0);
    run(&|| {
        made.set(made.get() + 1);
        let path = directory.path().join(format!("{}.db", made.get()));
        Box::new(SqliteStorage::create(path, Options::default()).unwrap())
    });
}

#[test]
fn memory() {
    run(&|| Box::new(MemoryStorage::new()));
}

#[test]
fn a_fork_of_memory_goes_its_own_way() {
    use anabranch_core::storage::{Durability, Table};
    let origin = MemoryStorage::with_instance([1; 32]);
    let put = |storage: &MemoryStorage, key: &[u8]| {
        let mut writer = storage.write(Durability::Full).unwrap();
        writer.put(Table::Cell, key, b"v").unwrap();
        writer.commit().unwrap();
    };
    let has = |storage: &MemoryStorage, key: &[u8]| {
        storage.read().unwrap().get(Table::Cell, key).unwrap().is_some()
    };
    put(&origin, b"shared");
    let fork = origin.fork([2; 32]);
    put(&origin, b"origin");
    put(&fork, b"fork");
    assert_eq!((origin.instance(), fork.instance()), ([1; 32], [2; 32]));
    assert!(has(&origin, b"shared") && has(&origin, b"origin") && !has(&origin, b"fork"));
    assert!(has(&fork, b"shared") && has(&fork, b"fork") && !has(&fork, b"origin"));
}
