//! The sync session as a state machine: two nodes greet each other, compare what they hold, stream what the other lacks
//! both ways at once, and stay in step while the link is open.
//!
//! Pure (I8): a [`session::Session`] is fed frames, storage answers and word of local commits; it emits frames, storage
//! work and events. It owns no socket, thread or clock. [`work`] does the storage work against
//! [`anabranch_core::storage::Storage`] wherever the caller wants it done.

pub mod channel;
mod forks;
pub mod frame;
mod incoming;
pub mod pending;
pub mod rights;
pub mod session;
pub mod summed;
pub mod trial;
mod wanted;
pub mod work;
