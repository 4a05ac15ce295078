//! People whose databases of devices are in this home: other databases that grant to them are told which devices they have, as soon
//! as that changes here or there.

use crate::error::NodeError;
use crate::node::Node;
use crate::replica::Replica;
use anabranch_core::id::DatabaseId;
use anabranch_core::person::Evidence;
use anabranch_core::storage::{Durability, Order, StorageError, Table};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Where the replica of a person keeps which databases grant to it, as far as they are here.
const GRANTS: &[u8] = b"person/granted-by/";

impl Replica {
    /// The membership changed, or may have. Blocking.
    pub(crate) fn members_changed(&self) {
        // The next session or change tries it again.
        if let Err(e) = self.close_tickets() {
            tracing::warn!("tickets that are used up could not be closed: {e}");
        }
        let Some(node) = self.node() else { return };
        if let Err(e) = node.tell_people(self) {
            tracing::warn!("which devices somebody has could not be told: {e}");
        }
    }
}

impl Node {
    /// What shows which devices a person has whose database is here. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NoDatabase`], [`NodeError::Core`] for a database that is used for something else as well.
    pub fn evidence_of(&self, person: DatabaseId) -> Result<Evidence, NodeError> {
        let Some(replica) = self.held(person)? else {
            return Err(NodeError::NoDatabase(person.to_string()));
        };
        evidence_of(&replica)
    }

    /// The membership of `replica` changed: if it grants to people whose databases are here, it is told which devices they have, and if
    /// it is such a database, those that grant to it are. Blocking; cost: a look-up or two where nobody is concerned.
    ///
    /// # Errors
    /// The first that stood in the way of one of them, such as [`NodeError::Core`] for a person's database that is used for something
    /// else as well; the others were told.
    pub fn tell_people(&self, replica: &Replica) -> Result<(), NodeError> {
        let mut outcome = Ok(());
        let mut note = |done: Result<(), NodeError>| {
            if outcome.is_ok() {
                outcome = done;
            }
        };
        for person in replica.look(|view| view.people())? {
            // One that grants to itself says nothing new.
            if person == replica.database() {
                continue;
            }
            note(self.held(person).and_then(|person| match person {
                Some(person) => {
                    note_grant(&person, replica.database())?;
                    tell(&evidence_of(&person)?, replica)
                }
                None => Ok(()),
            }));
        }
        let granted_by = granted_by(replica)?;
        if !granted_by.is_empty() {
            let evidence = evidence_of(replica)?;
            for database in granted_by {
                note(self.held(database).and_then(|told| match told {
                    Some(told) => tell(&evidence, &told),
                    None => Ok(()),
                }));
            }
        }
        outcome
    }

    /// As [`Self::tell_people`] for each of these, off the runtime's threads: at the start of a session, for the case that it could
    /// not be done when the membership changed.
    pub(crate) async fn tell_again(&self, replicas: Vec<Arc<Replica>>) {
        let told = tokio::task::spawn_blocking(move || {
            replicas.iter().for_each(|replica| replica.members_changed());
        });
        // It says itself what went wrong.
        _ = told.await;
    }

    /// The replica of that database in this home, opened; `None` where there is none.
    fn held(&self, database: DatabaseId) -> Result<Option<Arc<Replica>>, NodeError> {
        if let Some(replica) = self.used(database) {
            return Ok(Some(replica));
        }
        // A folder is told by whoever has it open, at its next session.
        let record = self.record_of(database)?.filter(|record| !record.folder);
        record.map(|record| self.open_record(&record)).transpose()
    }
}

fn evidence_of(person: &Replica) -> Result<Evidence, NodeError> {
    Ok(person.look(Evidence::of)?)
}

fn tell(evidence: &Evidence, replica: &Replica) -> Result<(), NodeError> {
    let told = replica.as_author(|ledger, author| ledger.embed(author, evidence))?;
    if told > 0 {
        replica.changed();
    }
    Ok(())
}

fn note_grant(person: &Replica, by: DatabaseId) -> Result<(), StorageError> {
    let key = [GRANTS, &by.0].concat();
    if person.storage().read()?.has(Table::Local, &key)? {
        return Ok(());
    }
    let mut tx = person.storage().write(Durability::Normal)?;
    tx.put(Table::Local, &key, &[])?;
    tx.commit()
}

fn granted_by(person: &Replica) -> Result<Vec<DatabaseId>, StorageError> {
    let mut list = Vec::new();
    let tx = person.storage().read()?;
    tx.scan(Table::Local, GRANTS, None, Order::Ascending, &mut |key, _| {
        let id = key.strip_prefix(GRANTS).and_then(|id| id.try_into().ok());
        list.extend(id.map(DatabaseId));
        if id.is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(list)
}
