//! Who may do what in a replica's database: what is granted and revoked here, and how that is shown.

use crate::error::NodeError;
use crate::key_file::{new_key, read_plain};
use crate::replica::Replica;
use anabranch_core::author::Draft;
use anabranch_core::equivocation::Proof;
use anabranch_core::id::NodeId;
use anabranch_core::membership::{Grant, Revocation};
use anabranch_core::ops::{Cut, MemberOp, Role, Subject, TicketTerms};
use anabranch_core::storage::StorageError;
use std::collections::BTreeSet;
use std::path::Path;

/// What of a device's work is left when its rights are revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Leave {
    /// What is held here now.
    #[default]
    Held,
    /// Nothing.
    Nothing,
}

/// What was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// Grants of whom it was about.
    pub rights: usize,
    /// Tickets by which it had come in, or which it had made.
    pub tickets: usize,
    /// Grants that it made to others, which still hold.
    pub made: usize,
}

/// A grant with what ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The grant.
    pub grant: Grant,
    /// Revocations of it that count.
    pub ended: Vec<Revocation>,
    /// Of a ticket: devices that came in by it.
    pub redeemed: u32,
}

impl Replica {
    /// Every grant there ever was, in the order of arrival. Cost: a step a grant and a revocation.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn members(&self) -> Result<Vec<Member>, StorageError> {
        let (grants, revocations) =
            self.look(|view| Ok::<_, StorageError>((view.grants()?, view.revocations()?)))?;
        let members = grants.iter().map(|grant| {
            let counted = revocations.iter().filter(|r| r.counts && r.grant == grant.id);
            let redeemed = match grant.subject {
                Subject::Ticket(_) => grants.iter().filter(|g| g.used == grant.id).count(),
                Subject::Person(_) => {
                    let its = grants.iter().filter(|g| g.holds && g.used == grant.id);
                    its.map(|g| g.subject).collect::<BTreeSet<_>>().len()
                }
                Subject::Device(_) | Subject::Anyone => 0,
            };
            Member {
                grant: grant.clone(),
                ended: counted.cloned().collect(),
                redeemed: u32::try_from(redeemed).unwrap_or(u32::MAX),
            }
        });
        Ok(members.collect())
    }

    /// Gives `subject` a role; what it may do more than that so far is revoked. `priority`: its rank, 0 the highest; that
    /// of the grant used unless given. False when it has just that role already. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Core`] when this device is no admin, or its grant does not rank above one that would have to be revoked.
    pub fn grant(
        &self,
        subject: Subject,
        role: Role,
        priority: Option<u32>,
    ) -> Result<bool, NodeError> {
        let grants = self.look(|view| view.grants())?;
        let tickets = self.tickets_of(&grants, subject, Some(role))?;
        let held = self.holding(grants, subject);
        let there = |grant: &Grant| {
            grant.role == role && priority.is_none_or(|priority| priority == grant.priority)
        };
        let beyond: Vec<&Grant> = held.iter().filter(|grant| grant.role > role).collect();
        if held.iter().any(there) && beyond.is_empty() {
            return Ok(false);
        }
        let mut members = Vec::new();
        if !held.iter().any(there) {
            let priority = match priority {
                Some(priority) => priority,
                None => self.own_priority()?,
            };
            let terms = TicketTerms::default();
            members.push(MemberOp::Grant { subject, role, priority, terms });
        }
        let end = |grant: &&Grant| MemberOp::Revoke { grant: grant.id, cut: Cut::Past };
        members.extend(beyond.iter().map(end));
        if !beyond.is_empty() {
            members.extend(tickets.iter().map(|grant| end(&grant)));
        }
        self.rule(members)?;
        Ok(true)
    }

    /// Ends every grant that `subject` has, and the tickets by which it came in or which it made, as far as this device ranks
    /// above them: with these it could come in again. Who else came in by them stays, as do other grants that it made. Of this device itself it gives its grants up. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NoMember`] when it has none. [`NodeError::Core`] when this device is no admin, its grant does not rank
    /// above one of them, or nobody would be left to let others in.
    pub fn revoke(&self, subject: Subject, leave: Leave) -> Result<Revoked, NodeError> {
        let grants = self.look(|view| view.grants())?;
        let tickets = self.tickets_of(&grants, subject, None)?;
        let held = self.holding(grants, subject);
        if held.is_empty() {
            return Err(NodeError::NoMember(who(&subject)));
        }
        let own = subject == Subject::Device(self.device().id());
        let cut = match leave {
            Leave::Nothing if !own => Cut::Tips(Vec::new()),
            _ => Cut::Past,
        };
        let end = |grant: &Grant| MemberOp::Revoke { grant: grant.id, cut: cut.clone() };
        if own {
            // Each by itself, and with itself.
            held.iter().try_for_each(|grant| self.rule(vec![end(grant)]))?;
        } else {
            let mut ops: Vec<MemberOp> = held.iter().map(end).collect();
            let close = |grant: &Grant| MemberOp::Revoke { grant: grant.id, cut: Cut::Past };
            ops.extend(tickets.iter().map(close));
            self.rule(ops)?;
        }
        let made = self.look(|view| view.grants())?;
        let made = made.iter().filter(|grant| {
            grant.holds && Subject::Device(grant.by) == subject && grant.subject != subject
        });
        Ok(Revoked { rights: held.len(), tickets: tickets.len(), made: made.count() })
    }

    /// Devices that wrote two histories of a log, of which both are held: their state was copied or restored without their
    /// noticing, or they lie.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn equivocators(&self) -> Result<BTreeSet<NodeId>, StorageError> {
        let logs = self.look(|view| view.forked_logs())?;
        Ok(logs.into_iter().map(|log| log.device).collect())
    }

    /// Proof that `device` did, to be shown to anybody; `None` where nothing proves it.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn equivocation(&self, device: &NodeId) -> Result<Option<Proof>, NodeError> {
        let proven = self.look(|view| {
            for log in view.forked_logs()?.iter().filter(|log| log.device == *device) {
                if let Some(proof) = view.equivocation(log)? {
                    return Ok(Some(proof));
                }
            }
            Ok::<_, anabranch_core::error::Error>(None)
        });
        Ok(proven?)
    }

    /// Makes a key for recovery, writes it to `file`, and makes it an admin: who has it can let others in should the admins be
    /// lost. It ranks below this device; one that ranks above is made with the database. Blocking.
    ///
    /// # Errors
    /// [`NodeError::KeyTaken`] when there is such a file; [`NodeError::Core`] when this device is no admin.
    pub fn make_recovery(&self, file: &Path) -> Result<NodeId, NodeError> {
        let device = self.device().id();
        // Before a file is made that is good for nothing.
        if self.look(|view| view.role_of(&device))? < Some(Role::Admin) {
            let (device, role) = (device.short(), "let others in");
            return Err(anabranch_core::error::Error::NotPermitted { device, role }.into());
        }
        let key = new_key(file)?.node_id();
        self.grant(Subject::Device(key), Role::Admin, None)?;
        Ok(key)
    }

    /// Makes this device an admin with the key for recovery in `file`, at that key's rank. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NoMember`] when the key has no right here; [`NodeError::Key`] and [`NodeError::File`] for the file;
    /// [`NodeError::Core`].
    pub fn recover(&self, file: &Path) -> Result<(), NodeError> {
        let key = read_plain(file)?;
        let recovery = key.node_id();
        let grant = self.look(|view| view.grant_of(&recovery))?;
        let grant = grant.filter(|grant| grant.role == Role::Admin);
        let grant = grant.ok_or_else(|| NodeError::NoMember(recovery.to_string()))?;
        let op = MemberOp::Grant {
            subject: Subject::Device(self.device().id()),
            role: Role::Admin,
            priority: grant.priority,
            terms: TicketTerms::default(),
        };
        // By itself: what it opens is built before anything is committed.
        self.unlock(&key)?;
        self.commit_as(&key, &Draft { members: vec![op], ..Draft::default() })
    }

    /// Tickets that `subject` could use to get more than `role`, or anything: by which it came in, and which it made. Not those
    /// that this device may not act on.
    fn tickets_of(
        &self,
        grants: &[Grant],
        subject: Subject,
        role: Option<Role>,
    ) -> Result<Vec<Grant>, StorageError> {
        let device = self.device().id();
        let Some(own) = self.look(|view| view.grant_of(&device))? else { return Ok(Vec::new()) };
        let came: Vec<_> =
            grants.iter().filter(|grant| grant.subject == subject).map(|g| g.used).collect();
        let ticket = |grant: &&Grant| {
            let ticket = matches!(grant.subject, Subject::Ticket(_)) && grant.subject != subject;
            let its = came.contains(&grant.id) || Subject::Device(grant.by) == subject;
            let more = role.is_none_or(|role| grant.role > role);
            ticket && grant.holds && its && more && own.outranks(grant)
        };
        Ok(grants.iter().filter(ticket).cloned().collect())
    }

    /// Closes the tickets that are used up or over, as far as this device may: who came in by them stays. Until then they let in
    /// whoever finds a node that has not heard of that, and open what is sealed to them. Blocking.
    pub(crate) fn close_tickets(&self) -> Result<(), NodeError> {
        let (device, now) = (self.device().id(), self.device().now());
        let over = self.look(|view| {
            let own = view.grant_of(&device)?.filter(|own| own.role == Role::Admin);
            let Some(own) = own else { return Ok(Vec::new()) };
            let mut over = view.tickets_over(now)?;
            over.retain(|ticket| own.outranks(ticket));
            Ok::<_, StorageError>(over)
        })?;
        // Each by itself: what is listed of the use of many would not fit into one entry.
        over.iter().try_for_each(|ticket| {
            self.rule(vec![MemberOp::Revoke { grant: ticket.id, cut: Cut::Past }])
        })
    }

    /// Commits it, signed.
    fn rule(&self, members: Vec<MemberOp>) -> Result<(), NodeError> {
        let draft = Draft { members, ..Draft::default() };
        self.commit_with_local(&draft, |_, _| Ok(())).map(|_| ())
    }

    /// The rank that what this device grants has at most.
    pub(crate) fn own_priority(&self) -> Result<u32, StorageError> {
        let device = self.device().id();
        Ok(self.look(|view| view.grant_of(&device))?.map_or(0, |grant| grant.priority))
    }

    fn holding(&self, grants: Vec<Grant>, subject: Subject) -> Vec<Grant> {
        grants.into_iter().filter(|grant| grant.holds && grant.subject == subject).collect()
    }
}

/// How a subject is named to people.
#[must_use]
pub fn who(subject: &Subject) -> String {
    let named = |key: &NodeId| key.to_string();
    match subject {
        Subject::Device(device) => named(device),
        Subject::Anyone => "anyone".to_owned(),
        Subject::Ticket(key) => format!("ticket {}", named(key)),
        Subject::Person(person) => format!("the devices of {person}"),
    }
}
