//! The home directory: the device's key, and `node.db` with what this device alone needs to know — which replicas it
//! has, where their peers are, its settings. Nothing in it is synced.

use crate::config::{Settings, setting};
use crate::device::random;
use crate::engine::Fate;
use crate::error::NodeError;
use crate::intent::Intent;
use crate::key_file::{load_key, plain, put_key, read_text, write_key};
use crate::locked::{Cost, LockedKey, Passphrase};
use anabranch_core::codec::{DecodeError, Reader, Writer};
use anabranch_core::id::{DatabaseId, NodeId, to_base32};
use anabranch_core::key::DeviceKey;
use anabranch_core::storage::{Durability, Order, Storage, StorageError, Table};
use anabranch_store::{Options, SqliteStorage};
use anabranch_sync::frame::Request;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const KEY: &str = "key";
const REPLICA: &[u8] = b"replica/";
const CONFIG: &[u8] = b"config/";
const PEER: &[u8] = b"peer/";
const FATE: &[u8] = b"fate/";
/// The most intents of one replica.
pub const INTENTS: usize = 64;

/// The rest of a key, and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// What is remembered of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which database.
    pub database: DatabaseId,
    /// What it is called here.
    pub name: String,
    /// Whether it is a folder; else a database.
    pub folder: bool,
    /// The database file, or the folder.
    pub path: PathBuf,
    /// With whom it is to be kept in step.
    pub intents: Vec<Intent>,
    /// Seed of the ticket by which it joins, until it has joined.
    pub ticket: Option<[u8; 32]>,
    /// By which it asks to be let in, until it is.
    pub request: Option<Request>,
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.array(6 + usize::from(self.request.is_some()));
        w.bytes(&self.database.0).text(&self.name).bool(self.folder);
        w.bytes(self.path.as_os_str().as_encoded_bytes()).array(self.intents.len());
        for intent in &self.intents {
            intent.encode(&mut w);
        }
        w.bytes(self.ticket.as_ref().map_or(&[][..], |t| t));
        if let Some(request) = &self.request {
            request.encode(&mut w);
        }
        w.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        use std::os::unix::ffi::OsStrExt;
        let mut r = Reader::new(bytes);
        let fields = r.array("replica", 7)?;
        if fields < 6 {
            return Err(DecodeError::Malformed { what: "replica", at: 0 });
        }
        let database = DatabaseId(r.array_of("database")?);
        let name = r.text("name", 4096)?.to_owned();
        let folder = r.bool("folder")?;
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(r.bytes("path", 65_536)?));
        let intents = (0..r.array("intents", INTENTS)?)
            .map(|_| Intent::decode(&mut r))
            .collect::<Result<_, DecodeError>>()?;
        let at = r.position();
        let ticket = match r.bytes("ticket", 32)? {
            [] => None,
            // A part of one is damage: without it the replica would never join, and nobody would know why.
            seed => {
                Some(seed.try_into().map_err(|_| DecodeError::Malformed { what: "ticket", at })?)
            }
        };
        let request = (fields == 7).then(|| Request::decode(&mut r)).transpose()?;
        r.finish()?;
        Ok(Self { database, name, folder, path, intents, ticket, request })
    }

    /// Where it can be synced with.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.intents.iter().map(|intent| intent.address.as_str())
    }
}

/// What is remembered of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// The device.
    pub device: NodeId,
    /// When it was last talked to, in microseconds since the Unix epoch.
    pub seen: u64,
    /// Where, or over what.
    pub address: String,
}

/// An opened home.
pub struct Home {
    dir: PathBuf,
    key: DeviceKey,
    registry: SqliteStorage,
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Home({})", self.dir.display())
    }
}

/// `~/.local/share/anabranch` or what the platform has in its place; `None` when there is no home directory.
#[must_use]
pub fn default_dir() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if cfg!(target_os = "macos") {
        return var("HOME").map(|home| home.join("Library/Application Support/anabranch"));
    }
    let data = var("XDG_DATA_HOME").filter(|dir| dir.is_absolute());
    data.or_else(|| var("HOME").map(|home| home.join(".local/share"))).map(|d| d.join("anabranch"))
}

impl Home {
    /// Opens the home at `dir`, making it at the first start.
    ///
    /// # Errors
    /// [`NodeError`] when it cannot be made or read.
    pub fn open(dir: &Path) -> Result<Self, NodeError> {
        Self::open_with(dir, || Ok(None))
    }

    /// As [`Self::open`]; `passphrase` is called if the key is locked, and gives what unlocks it.
    ///
    /// # Errors
    /// [`NodeError::Locked`] when it gives nothing, [`NodeError::Passphrase`] when that is wrong, and as [`Self::open`].
    pub fn open_with(
        dir: &Path,
        passphrase: impl FnOnce() -> Result<Option<Passphrase>, NodeError>,
    ) -> Result<Self, NodeError> {
        let dir = make_dir(dir)?;
        let key = load_key(&dir.join(KEY), passphrase)?;
        let registry = open_or_create(&dir.join("node.db"))?;
        Ok(Self { dir, key, registry })
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The device's key.
    #[must_use]
    pub fn key(&self) -> &DeviceKey {
        &self.key
    }

    /// Locks the key on the disk by a passphrase, or leaves it there for whoever may read the file.
    ///
    /// # Errors
    /// [`NodeError`]; then the file is as before.
    pub fn lock_key(&self, passphrase: Option<&Passphrase>) -> Result<(), NodeError> {
        let path = self.dir.join(KEY);
        let text = match passphrase {
            Some(passphrase) => Zeroizing::new(self.locked_key(passphrase)?.to_string()),
            None => plain(&self.key),
        };
        write_key(&path, &text, |fresh| fs::rename(fresh, &path))
    }

    /// Writes the key to a new file, locked by a passphrase.
    ///
    /// # Errors
    /// [`NodeError::KeyTaken`] when there is such a file, [`NodeError::File`].
    pub fn export_key(&self, file: &Path, passphrase: &Passphrase) -> Result<(), NodeError> {
        match put_key(file, &self.locked_key(passphrase)?.to_string())? {
            true => Ok(()),
            false => Err(NodeError::KeyTaken(file.to_owned())),
        }
    }

    /// Makes `dir` the home of the device whose key was written to `file`; the key stays locked. Returns the device.
    ///
    /// # Errors
    /// [`NodeError::KeyTaken`] when there is a key already, [`NodeError::Key`] when the file holds none that is locked,
    /// [`NodeError::Passphrase`].
    pub fn import_key(
        dir: &Path,
        file: &Path,
        passphrase: impl FnOnce() -> Result<Option<Passphrase>, NodeError>,
    ) -> Result<NodeId, NodeError> {
        let text = fs::File::open(file).and_then(read_text);
        let text = text.map_err(|e| NodeError::file(file, e))?;
        let locked: LockedKey = text.parse().map_err(|_| NodeError::Key(file.to_owned()))?;
        let path = dir.join(KEY);
        // Before anybody is asked for a passphrase.
        if path.exists() {
            return Err(NodeError::KeyTaken(path));
        }
        let passphrase = passphrase()?.ok_or_else(|| NodeError::Locked(file.to_owned()))?;
        locked.unlock(&passphrase)?;
        let path = make_dir(dir)?.join(KEY);
        match put_key(&path, &locked.to_string())? {
            true => Ok(locked.device()),
            false => Err(NodeError::KeyTaken(path)),
        }
    }

    fn locked_key(&self, passphrase: &Passphrase) -> Result<LockedKey, NodeError> {
        LockedKey::lock(&self.key, passphrase, Cost::default(), random()?)
    }

    /// A path for a new database file.
    pub(crate) fn new_file(&self, name: &str) -> Result<PathBuf, NodeError> {
        let dir = self.dir.join("databases");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|e| NodeError::file(&dir, e))?;
        Ok(dir.join(format!("{name}-{}.db", to_base32(&random::<5>()?))))
    }

    /// All replicas, by name.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn records(&self) -> Result<Vec<Record>, NodeError> {
        let mut records: Vec<Record> = self
            .list(REPLICA)?
            .iter()
            .map(|(_, value)| Record::decode(value))
            .collect::<Result<_, _>>()
            .map_err(damaged)?;
        records.sort_by(|a, b| a.name.cmp(&b.name).then(a.path.cmp(&b.path)));
        Ok(records)
    }

    fn list(&self, prefix: &[u8]) -> Result<Vec<Pair>, StorageError> {
        let mut found = Vec::new();
        let tx = self.registry.read()?;
        tx.scan(Table::Local, prefix, None, Order::Ascending, &mut |key, value| {
            match key.strip_prefix(prefix) {
                None => return ControlFlow::Break(()),
                Some(rest) => found.push((rest.to_vec(), value.to_vec())),
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Remembers a replica. A folder is told apart by its path, a database by its id.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn put_record(&self, record: &Record) -> Result<(), NodeError> {
        self.put(&record_key(record), &record.encode())
    }

    /// Changes what is remembered of the replica that `record` is about, as it is now: others may have changed it since that
    /// was read. `None` when it is not remembered any more; an error of `act` changes nothing.
    ///
    /// # Errors
    /// [`NodeError::Core`], and whatever `act` returns.
    pub fn change_record<T>(
        &self,
        record: &Record,
        act: impl FnOnce(&mut Record) -> Result<T, NodeError>,
    ) -> Result<Option<T>, NodeError> {
        let key = record_key(record);
        let mut tx = self.registry.write(Durability::Full)?;
        let Some(value) = tx.get(Table::Local, &key)? else { return Ok(None) };
        let mut now = Record::decode(&value).map_err(damaged)?;
        let result = act(&mut now)?;
        tx.put(Table::Local, &key, &now.encode())?;
        tx.commit()?;
        Ok(Some(result))
    }

    /// Forgets a replica; its files stay.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn remove_record(&self, record: &Record) -> Result<(), NodeError> {
        self.remove(&record_key(record))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), NodeError> {
        let mut tx = self.registry.write(Durability::Full)?;
        tx.put(Table::Local, key, value)?;
        Ok(tx.commit()?)
    }

    fn remove(&self, key: &[u8]) -> Result<(), NodeError> {
        let mut tx = self.registry.write(Durability::Full)?;
        tx.delete(Table::Local, key)?;
        Ok(tx.commit()?)
    }

    /// The value set for `key`, if one is.
    ///
    /// # Errors
    /// [`NodeError::Setting`] for an unknown key.
    pub fn configured(&self, key: &str) -> Result<Option<String>, NodeError> {
        let key = setting(key)?.key;
        let value = self.registry.read()?.get(Table::Local, &[CONFIG, key.as_bytes()].concat())?;
        Ok(value.and_then(|v| String::from_utf8(v).ok()))
    }

    /// Sets `key`; `None` returns to the default.
    ///
    /// # Errors
    /// [`NodeError::Setting`] for an unknown key or a value it does not take, alone or together with the others.
    pub fn configure(&self, key: &str, value: Option<&str>) -> Result<(), NodeError> {
        let setting = setting(key)?;
        if let Some(value) = value {
            setting.check(value)?;
        }
        Settings::load(|k| {
            if k == setting.key {
                value.map(str::to_owned)
            } else {
                self.configured(k).ok().flatten()
            }
        })?;
        let key = [CONFIG, setting.key.as_bytes()].concat();
        match value {
            Some(value) => self.put(&key, value.as_bytes()),
            None => self.remove(&key),
        }
    }

    /// The settings in force.
    ///
    /// # Errors
    /// [`NodeError::Setting`].
    pub fn settings(&self) -> Result<Settings, NodeError> {
        Settings::load(|key| self.configured(key).ok().flatten())
    }

    /// Writes down how a replica stands with whoever is at `address`.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn put_fate(
        &self,
        database: DatabaseId,
        address: &str,
        fate: &Fate,
    ) -> Result<(), NodeError> {
        self.put(&[FATE, &database.0, address.as_bytes()].concat(), &fate.encode())
    }

    /// What was written down last of how a replica stands with whoever is at `address`.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn fate(&self, database: DatabaseId, address: &str) -> Result<Option<Fate>, NodeError> {
        let key = [FATE, &database.0, address.as_bytes()].concat();
        let row = self.registry.read()?.get(Table::Local, &key)?;
        // It is only said; what cannot be read is as good as never written.
        Ok(row.and_then(|row| Fate::decode(&row).ok()))
    }

    /// Remembers that a peer was talked to.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn put_peer(&self, peer: &PeerRecord) -> Result<(), NodeError> {
        let mut w = Writer::new();
        w.array(2).u64(peer.seen).text(&peer.address);
        self.put(&[PEER, &peer.device.0[..]].concat(), &w.finish())
    }

    /// Peers talked to, the latest first.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn peers(&self) -> Result<Vec<PeerRecord>, NodeError> {
        let mut peers = Vec::new();
        for (key, value) in self.list(PEER)? {
            let mut r = Reader::new(&value);
            let read =
                r.tuple("peer", 2).and_then(|()| Ok((r.u64("seen")?, r.text("address", 65_536)?)));
            if let (Ok(device), Ok((seen, address))) = (key.try_into(), read) {
                peers.push(PeerRecord {
                    device: NodeId(device),
                    seen,
                    address: address.to_owned(),
                });
            }
        }
        peers.sort_by_key(|p| std::cmp::Reverse(p.seen));
        Ok(peers)
    }
}

fn damaged(error: DecodeError) -> StorageError {
    StorageError::Corrupt(format!("the list of replicas: {error}"))
}

fn record_key(record: &Record) -> Vec<u8> {
    if record.folder {
        [REPLICA, b"folder/", record.path.as_os_str().as_encoded_bytes()].concat()
    } else {
        [REPLICA, b"db/", &record.database.0].concat()
    }
}

fn make_dir(dir: &Path) -> Result<PathBuf, NodeError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).map_err(|e| NodeError::file(dir, e))?;
    fs::canonicalize(dir).map_err(|e| NodeError::file(dir, e))
}

/// Opens the registry, or makes it at the first start: as the key, under another name first, so that another process
/// never meets half of it.
fn open_or_create(path: &Path) -> Result<SqliteStorage, NodeError> {
    if !path.exists() {
        let fresh = fresh_name(path)?;
        drop(SqliteStorage::create(&fresh, Options::default())?);
        let linked = fs::hard_link(&fresh, path);
        for suffix in ["", "-wal", "-shm"] {
            let mut file = fresh.clone().into_os_string();
            file.push(suffix);
            let _ = fs::remove_file(file);
        }
        match linked {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(NodeError::file(path, e));
            }
            _ => {}
        }
    }
    Ok(SqliteStorage::open(path, Options::default())?)
}

pub(crate) fn fresh_name(path: &Path) -> Result<PathBuf, NodeError> {
    Ok(path.with_extension(format!("new-{}", to_base32(&random::<5>()?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ticket: Option<[u8; 32]>) -> Record {
        Record {
            database: DatabaseId([5; 32]),
            name: "notes".into(),
            folder: false,
            path: "/x".into(),
            intents: vec![
                Intent::new("host:x"),
                Intent {
                    every: Some(std::time::Duration::from_secs(900)),
                    direction: anabranch_sync::channel::Direction::PULL,
                    priority: crate::intent::Priority::Low,
                    ..Intent::new("http://y")
                },
            ],
            ticket,
            request: None,
        }
    }

    #[test]
    fn records_come_back() {
        for ticket in [None, Some([7; 32])] {
            let mut record = record(ticket);
            assert_eq!(Record::decode(&record.encode()).unwrap(), record);
            let text = "I am Ana's laptop".into();
            record.request =
                Some(Request { role: anabranch_core::ops::Role::Read, text, person: None });
            assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        }
    }

    #[test]
    fn a_part_of_a_ticket_is_damage() {
        let mut bytes = record(None).encode();
        assert_eq!(bytes.pop(), Some(0x40), "no ticket");
        bytes.extend([0x41, 7]);
        let refused = Record::decode(&bytes);
        assert!(
            matches!(refused, Err(DecodeError::Malformed { what: "ticket", .. })),
            "{refused:?}"
        );
    }
}
