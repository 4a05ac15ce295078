//! A running node: it opens replicas, runs sessions on links, remembers databases and peers in its home directory, and
//! tells everybody who watches what changed. Applications use the `anabranch` crate, which wraps this one.

pub mod config;
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

pub use error::NodeError;
pub use home::{Home, PeerRecord, Record, default_dir};
pub use introduce::{Introduction, Wire};
pub use keep::{Kept, Target};
pub use node::{Control, Node, Offer};
pub use replica::{Hold, Replica, ReplicaOptions};
pub use runner::{Opening, Progress, Report, Task, Until, run};
