//! A running node: it opens replicas, runs sessions on links, remembers databases and peers in its home directory, and
//! tells everybody who watches what changed. Applications use the `anabranch` crate, which wraps this one.

mod committer;
pub mod config;
mod device;
mod drive;
mod error;
mod home;
mod introduce;
mod keep;
mod node;
mod notice;
mod replica;
mod runner;
mod signal;
mod wants;
mod writer;

pub use committer::Committed;
pub use device::{Device, Environment, System};
pub use drive::{Act, Done, Drive, Job, Opening, Progress, Report, Task, Until};
pub use error::NodeError;
pub use home::{Home, PeerRecord, Record, default_dir};
pub use introduce::{Introduction, Wire};
pub use keep::{Kept, Target};
pub use node::{Control, Node, Offer};
pub use replica::{Bulk, Hold, Replica, ReplicaOptions};
pub use runner::run;
