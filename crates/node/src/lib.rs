//! A running node: it opens replicas, runs sessions on links, remembers databases and peers in its home directory, and
//! tells everybody who watches what changed. Applications use the `anabranch` crate, which wraps this one.

mod claims;
mod committer;
pub mod config;
mod contents;
mod device;
mod drive;
mod engine;
mod error;
mod home;
mod indexes;
mod intent;
mod introduce;
mod key_file;
mod locked;
mod members;
mod node;
mod notice;
mod pace;
mod people;
mod replica;
mod requests;
mod rewrite;
mod runner;
mod sealing;
mod signal;
mod wants;
mod writer;

pub use committer::Committed;
pub use contents::{BlobReader, Collected, Collection, Keep, MARKS, Put, READ_WAIT};
pub use device::{Device, Environment, System};
pub use drive::{Act, Done, Drive, Job, Opening, Progress, Refusal, Report, Task, Until};
pub use engine::{
    Attempts, Ending, Fate, Kept, Replicas, Standing, State, SyncHandle, Target, Tell, Trouble,
    Visitor, Why,
};
pub use error::NodeError;
pub use home::{Home, INTENTS, PeerRecord, Record, default_dir};
pub use intent::{Intent, Priority};
pub use introduce::{Introduction, Wire};
pub use locked::{Cost, LockedKey, PASSPHRASE_BYTES, Passphrase};
pub use members::{Leave, Member, Revoked, who};
pub use node::{Control, NewDatabase, Node, Offer};
pub use notice::Notice;
pub use replica::{Bulk, Hold, Replica, ReplicaOptions};
pub use requests::{Asking, POLICY_DEVICES, Policy, RequestLimits};
pub use rewrite::Rewritten;
