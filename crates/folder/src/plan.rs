//! The planner: a pure function of three sorted inputs: the base (what was last agreed), what is here, and the live values
//! of the database. It touches no disk, reads no clock, and can be run on paper.
//!
//! It has two halves because a database lies between them:
//!
//! 1. [`plan_records`] compares what is here with the base and says what the user did since: what to commit to the
//!    database ([`Record`]) and which rows of the base merely change. Once that is done, the base describes the disk, except
//!    for what is hidden.
//! 2. [`plan_actions`] compares the base with the database's tree and says what to do to the disk.
//!
//! One function over all three inputs would have to predict which values its own records will become. This way each half
//! compares two trees, commits may happen in between, and either half can be repeated after a crash at any point.
//!
//! **The tree** ([`Targets`]) is what every replica that holds the same values wants on its disk (I2). At each path the
//! values that agree in kind and content with the winner show; every other one shows as a *conflict copy* next to it,
//! under a name that depends on that value alone. A copy is never recorded: it is there as long as its value lives (I11).
//! A path with anything live below it is a directory, and files that claim its name become copies.
//!
//! **What a user does to a copy.** Deleting it drops the value it shows. Editing it makes it an ordinary file under its own
//! name and drops the value. So each way of tidying up resolves the conflict, on every replica.
//!
//! **What is never done.** Content whose value lives is not taken off the disk before it stands elsewhere on this disk: an
//! action that would is combined with the one that saves it, or put off ([`Plan::put_off`]). What is hidden is neither
//! recorded nor touched, nor is what may stand where something is hidden taken for gone.
//!
//! Unchanged paths stream by; memory grows with the changed ones only (I7).

mod actions;
mod copies;
mod moves;
mod order;
mod records;
mod shape;
mod targets;

pub use actions::{Action, Goal, Keep, Plan, PutOff, Was, plan_actions};
pub use copies::copy_name;
pub use records::{Change, LocalStep, Record, Records, SeenCopies, Undecided, plan_records};
pub use shape::{ConflictCopy, Shape};
pub use targets::{Group, Slot, Targets};
