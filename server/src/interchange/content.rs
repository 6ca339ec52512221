//! What a database holds, taken over into a store.
//!
//! Leases come first, because keys are attached to them, then the history as it is, then how far it
//! was compacted. Users, roles and alarms are carried along as they are; a store whose users count
//! is refused, since without them everybody would read and write it.

use engine::bbolt::schema::{self, Alarm, Auth, Cluster, Member, Meta, RevisionKey};
use engine::engine::{ImportRule, Imported, ImportedChange};
use engine::lease::Lease;
use engine::{AlarmKind, Change, Engine, Record, Revision};

use super::Failure;
use super::input::Database;
use super::member::Bump;
use crate::node::start::{checkpoint, make_room};
use crate::runtime::files::EngineDisk;

/// Changes between two looks at what waits for the disk.
const CHANGES_BETWEEN: u64 = 4096;
/// What may wait for the disk: little enough for any machine, much enough that a page which several
/// changes touch is written once.
const DIRTY_BYTES_MAX: u64 = 128 << 20;

/// A store that is being filled.
pub struct Filling<'a> {
    engine: &'a mut Engine,
    disk: &'a mut EngineDisk,
    changes: u64,
}

/// What was found besides the store's content.
#[derive(Debug, Default)]
pub struct Found {
    /// How far the database had come.
    pub meta: Meta,
    /// The members.
    pub members: Vec<Member>,
    /// The raised alarms.
    pub alarms: Vec<Alarm>,
    /// Changes taken over.
    pub changes: u64,
    /// Leases taken over.
    pub leases: u64,
    /// Users and roles carried along.
    pub carried: u64,
}

impl<'a> Filling<'a> {
    /// Begins to fill an engine that was just created.
    pub fn new(engine: &'a mut Engine, disk: &'a mut EngineDisk) -> Self {
        Self { engine, disk, changes: 0 }
    }

    /// The engine and its disk.
    pub fn parts(&mut self) -> (&mut Engine, &mut EngineDisk) {
        (self.engine, self.disk)
    }

    /// Takes over all that a database holds.
    ///
    /// # Errors
    /// Damage, and what cannot be taken over.
    pub fn take_database(
        &mut self,
        database: &Database,
        bump: Option<Bump>,
    ) -> Result<Found, Failure> {
        let mut found = Found::default();
        let mut pairs = database.walk(schema::META)?;
        while let Some((key, value)) = pairs.next_pair().map_err(|cause| database.damage(cause))? {
            found.meta.read_pair(key, value).map_err(|cause| database.broken(cause))?;
        }
        refuse_auth(database)?;
        self.take_leases(database, &mut found)?;
        self.take_changes(database, &mut found)?;
        self.take_cluster(database, &mut found)?;
        self.take_carried(database, &mut found)?;
        self.take_compaction(database, bump, &found.meta)?;
        Ok(found)
    }

    fn take_leases(&mut self, database: &Database, found: &mut Found) -> Result<(), Failure> {
        let mut pairs = database.walk(schema::LEASE)?;
        while let Some((key, value)) = pairs.next_pair().map_err(|cause| database.damage(cause))? {
            let lease =
                schema::Lease::from_pair(key, value).map_err(|cause| database.broken(cause))?;
            let lease = Lease {
                id: lease.id,
                ttl_seconds: lease.ttl_seconds,
                remaining_seconds: lease.remaining_ttl_seconds,
            };
            self.add(|engine| engine.import_lease(lease))?.map_err(|rule| {
                Failure::Refused(format!("{}: lease {:x}: {rule}", path(database), lease.id.0))
            })?;
            found.leases += 1;
        }
        Ok(())
    }

    fn take_changes(&mut self, database: &Database, found: &mut Found) -> Result<(), Failure> {
        let mut pairs = database.walk(schema::KEY)?;
        while let Some((key, value)) = pairs.next_pair().map_err(|cause| database.damage(cause))? {
            let revision = RevisionKey::from_bytes(key).map_err(|cause| database.broken(cause))?;
            let record = schema::record_from(key, value).map_err(|cause| database.broken(cause))?;
            let imported = if revision.is_tombstone {
                ImportedChange::Delete(record.key)
            } else {
                ImportedChange::Put(record)
            };
            let change = revision.change;
            self.take_change(database, change, &imported)?;
            found.changes += 1;
        }
        Ok(())
    }

    fn take_change(
        &mut self,
        database: &Database,
        change: Change,
        imported: &ImportedChange<'_>,
    ) -> Result<(), Failure> {
        let added = self.add(|engine| engine.import_change(change, imported))?;
        let path = database.path().to_owned();
        added.map_err(|rule| Failure::History { path, change, rule })
    }

    fn take_cluster(&mut self, database: &Database, found: &mut Found) -> Result<(), Failure> {
        let mut cluster = Cluster::default();
        let mut pairs = database.walk(schema::CLUSTER)?;
        while let Some((key, value)) = pairs.next_pair().map_err(|cause| database.damage(cause))? {
            cluster.read_pair(key, value).map_err(|cause| database.broken(cause))?;
        }
        if let Some(version) = cluster.version {
            self.add_own(|engine| engine.import_cluster_version(&version))?;
        }
        if let Some(downgrade) = cluster.downgrade.filter(|downgrade| downgrade.enabled) {
            self.add_own(|engine| engine.import_downgrade(&downgrade.target_version))?;
        }
        let mut pairs = database.walk(schema::MEMBERS)?;
        while let Some((key, value)) = pairs.next_pair().map_err(|cause| database.damage(cause))? {
            let member = Member::from_pair(key, value).map_err(|cause| database.broken(cause))?;
            found.members.push(member);
        }
        Ok(())
    }

    fn take_carried(&mut self, database: &Database, found: &mut Found) -> Result<(), Failure> {
        let mut pairs = database.walk(schema::ALARM)?;
        while let Some((key, value)) = pairs.next_pair().map_err(|cause| database.damage(cause))? {
            found
                .alarms
                .push(Alarm::from_pair(key, value).map_err(|cause| database.broken(cause))?);
        }
        for bucket in [schema::AUTH, schema::AUTH_ROLES, schema::AUTH_USERS] {
            let mut pairs = database.walk(bucket)?;
            while let Some((key, value)) =
                pairs.next_pair().map_err(|cause| database.damage(cause))?
            {
                self.add_own(|engine| engine.import_carried(bucket, key, value))?;
                found.carried += u64::from(bucket != schema::AUTH);
            }
        }
        Ok(())
    }

    /// Keeps the alarms that are raised at the end.
    ///
    /// # Errors
    /// The store has no room.
    pub fn take_alarms(&mut self, alarms: &[Alarm]) -> Result<(), Failure> {
        for alarm in alarms {
            let kind = match alarm.kind {
                schema::AlarmKind::NoSpace => AlarmKind::NO_SPACE,
                schema::AlarmKind::Corrupt => AlarmKind::CORRUPT,
            };
            let alarm = engine::Alarm { kind, member: alarm.member };
            self.add_own(|engine| engine.import_alarm(alarm))?;
        }
        Ok(())
    }

    /// A restore may step over revisions, and then all before them are compacted.
    fn take_compaction(
        &mut self,
        database: &Database,
        bump: Option<Bump>,
        meta: &Meta,
    ) -> Result<(), Failure> {
        let never = Revision::NEVER_COMPACTED;
        let finished = meta.compact_finished.unwrap_or(never);
        let mut target = meta.compact_scheduled.unwrap_or(never).max(finished);
        if let Some(Bump(amount)) = bump {
            let newest = self.engine.revision().0;
            let main = i64::try_from(amount).ok().and_then(|amount| newest.checked_add(amount));
            let main = main.ok_or_else(|| {
                Failure::Refused(format!("revision {newest} cannot be increased by {amount}"))
            })?;
            let change = Change { main: Revision(main), sub: 0 };
            self.take_change(database, change, &ImportedChange::Put(Record::default()))?;
            target = change.main;
        }
        if target == never {
            return Ok(());
        }
        self.add(|engine| engine.import_compaction(target, finished))?.map_err(|rule| {
            Failure::Refused(format!("{}: compaction to {target}: {rule}", path(database)))
        })
    }

    fn add_own(
        &mut self,
        step: impl FnMut(&mut Engine) -> Result<Imported, engine::Failure>,
    ) -> Result<(), Failure> {
        let added = self.add(step)?;
        added.map_err(|rule| Failure::Refused(format!("the store's own facts: {rule}")))
    }

    /// Adds a piece, making room for it first if it has to be.
    fn add(
        &mut self,
        mut step: impl FnMut(&mut Engine) -> Result<Imported, engine::Failure>,
    ) -> Result<Result<(), ImportRule>, Failure> {
        self.changes += 1;
        if self.changes.is_multiple_of(CHANGES_BETWEEN) {
            self.engine.publish();
            if self.engine.dirty_bytes() > DIRTY_BYTES_MAX {
                checkpoint(self.engine, self.disk)?;
                self.engine.drop_copies(u32::MAX, u32::MAX)?;
            }
        }
        loop {
            match step(self.engine)? {
                Imported::Done => return Ok(Ok(())),
                Imported::Refused(rule) => return Ok(Err(rule)),
                Imported::Starved => make_room(self.engine, self.disk)?,
            }
        }
    }
}

fn path(database: &Database) -> std::path::Display<'_> {
    database.path().display()
}

fn refuse_auth(database: &Database) -> Result<(), Failure> {
    let mut auth = Auth::default();
    let mut pairs = database.walk(schema::AUTH)?;
    while let Some((key, value)) = pairs.next_pair().map_err(|cause| database.damage(cause))? {
        auth.read_pair(key, value).map_err(|cause| database.broken(cause))?;
    }
    if auth.enabled == Some(true) {
        let path = path(database);
        return Err(Failure::Refused(format!(
            "{path}: authentication is enabled in it, and ringd does not serve that yet: everybody \
             could read and write what is in it. Disable it in etcd first"
        )));
    }
    Ok(())
}
