//! Trouble: what strikes, whom, and how it is mended.
//!
//! Invariants:
//! - Disks are damaged of so few members that the others are a quorum: what the others acknowledged
//!   must survive.
//! - When the run calms down, everything that can be mended is.

use server::node::start::Origin;
use wal::DiskErrorKind;
use wal::sim::{Crash, Fault};

use super::network::Place;
use super::plan::Trouble;
use super::witness::Wrong;
use super::world::{Change, Event, Mend, World};

/// A member that is started again is so after this at most.
const RESTART_MICROS: u64 = 3_000_000;
/// Operations before one of them fails, at most.
const FAIL_AFTER_MAX: u64 = 30;
/// A member that was held up has come to all of its sockets after this: before anybody can answer
/// what it sends meanwhile, as a rule.
pub const SOCKETS_READ_MICROS: u64 = 300;
/// A peer that takes nothing for so long is held to be gone.
const STALL_MICROS: u64 = 5_000_000;

/// Members at a time, and over a run.
const MEMBERS_MAX: usize = 5;
const MACHINES_MAX: usize = 9;

/// Whether a start may be cut off by a failure of power: some of them are.
pub fn crashes_in_start(world: &mut World) -> bool {
    world.plan.troubles.contains(&Trouble::CrashInStart) && world.trouble.once_in(2)
}

/// Something goes wrong, and the next thing is planned.
///
/// # Errors
/// What a member should not have done about it.
pub fn strike(world: &mut World) -> Result<(), Wrong> {
    if world.is_calm {
        return Ok(());
    }
    let trouble = *world.trouble.pick(&world.plan.troubles);
    let place = victim(world);
    let gap = world.plan.trouble_gap_micros;
    world.later(gap, Event::Trouble);
    world.tell(|| format!("trouble: {trouble:?} m{}", place + 1));
    match trouble {
        Trouble::Kill => return stop(world, place, Crash::KeepsAll),
        Trouble::Crash | Trouble::CrashInStart => {
            let crash = *world.trouble.pick(&[Crash::LosesAll, Crash::Tears, Crash::Tears]);
            return stop(world, place, crash);
        }
        Trouble::PowerCut => {
            for place in 0..world.members.len() {
                let crash = *world.trouble.pick(&[Crash::LosesAll, Crash::Tears]);
                stop(world, place, crash)?;
            }
        }
        Trouble::Break => {
            let other = world.trouble.place(world.members.len());
            if other != place {
                world.break_link((place, other))?;
                if world.trouble.once_in(2) {
                    world.break_link((other, place))?;
                }
            }
        }
        Trouble::Divide | Trouble::OneWay => divide(world, trouble == Trouble::OneWay),
        Trouble::Pause => {
            let most = if world.trouble.once_in(4) { 30_000_000 } else { 6_000_000 };
            let time = world.trouble.between(100_000, most);
            pause(world, place, time);
        }
        Trouble::DiskError | Trouble::StoreError => {
            fail_disk(world, place, trouble == Trouble::StoreError);
        }
        Trouble::Supplant => supplant(world, place),
        Trouble::DiskFull => {
            world.members[place].machine.set_full(true);
            world.later(10_000_000, Event::Mend(Mend::Room(place)));
        }
        Trouble::DiskSlow => {
            world.members[place].disk_slowness = world.trouble.between(2, 100);
            world.later(10_000_000, Event::Mend(Mend::Speed(place)));
        }
        Trouble::Damage => return damage(world, place),
        Trouble::Members => change_members(world, place),
        Trouble::Lead => {
            let other = world.trouble.place(world.members.len());
            if world.members[place].is_active(world.now) {
                world.put_change(place, Change::Lead(world.members[other].id));
            }
        }
    }
    Ok(())
}

/// Anybody; or the leader, to whom more can happen.
fn victim(world: &mut World) -> Place {
    let anybody = world.trouble.place(world.members.len());
    if world.trouble.once_in(3) { world.leader().unwrap_or(anybody) } else { anybody }
}

/// A member does nothing for so long.
fn pause(world: &mut World, place: Place, micros: u64) {
    let until = world.now + micros;
    // What waits for a member waits for one moment, or it would not keep its order.
    if world.is_calm || world.members[place].paused_until > world.now {
        return;
    }
    // Mostly the others go on.
    let active = world.members.iter().filter(|member| member.is_active(world.now)).count();
    if active <= world.members.len() / 2 + 1 && !world.trouble.once_in(4) {
        return;
    }
    world.tell(|| format!("m{} is held up for {micros}", place + 1));
    world.at(world.now + STALL_MICROS, Event::Stall(place));
    world.members[place].paused_until = until;
    for other in 0..world.members.len() {
        let read_at = until + world.trouble.below(SOCKETS_READ_MICROS);
        world.members[place].unread_until.insert(other, read_at);
    }
}

/// What the leader has taken stays with it, while others lead: it waits for the disk, and then for
/// a way to them.
fn supplant(world: &mut World, place: Place) {
    let place = world.leader().unwrap_or(place);
    world.members[place].disk_slowness = 100;
    world.later(10_000_000, Event::Mend(Mend::Speed(place)));
    let others: Vec<Place> = (0..world.members.len()).filter(|other| *other != place).collect();
    let is_one_way = world.trouble.once_in(3);
    world.network.divide(&[place], &others, is_one_way);
    let time = world.trouble.between(1_500_000, 6_000_000);
    world.at(world.now + time, Event::Mend(Mend::Network));
}

fn change_members(world: &mut World, place: Place) {
    let Some(running) = &world.members[place].running else { return };
    if !world.members[place].is_active(world.now) {
        return;
    }
    let members = running.core.members();
    let learner = members.iter().find(|member| member.is_learner).map(|member| member.id);
    let ids: Vec<_> = members.iter().map(|member| member.id).collect();
    if ids.is_empty() {
        return;
    }
    let change = match (learner, world.trouble.below(4)) {
        (Some(id), 0..3) => Change::Promote(id),
        (_, 0..2) if ids.len() > world.plan.members_min => {
            Change::Remove(*world.trouble.pick(&ids))
        }
        _ if ids.len() < MEMBERS_MAX && world.members.len() < MACHINES_MAX => {
            let is_learner = world.trouble.once_in(2);
            Change::Add { id: world.prepare_member(), is_learner }
        }
        _ => return,
    };
    world.put_change(place, change);
}

fn stop(world: &mut World, place: Place, crash: Crash) -> Result<(), Wrong> {
    let restart = world.trouble.between(1000, RESTART_MICROS);
    world.stop_member(place, crash, restart)
}

fn divide(world: &mut World, is_one_way: bool) {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for place in 0..world.members.len() {
        if world.trouble.once_in(2) { left.push(place) } else { right.push(place) }
    }
    world.network.divide(&left, &right, is_one_way);
    world.later(12_000_000, Event::Mend(Mend::Network));
}

fn fail_disk(world: &mut World, place: Place, is_store: bool) {
    if world.members[place].running.is_none() {
        return;
    }
    world.members[place].may_fail = true;
    let after = world.trouble.below(FAIL_AFTER_MAX);
    if is_store {
        return world.members[place].machine.fail_store_after(after);
    }
    let fault = *world.trouble.pick(&[
        Fault::Error(DiskErrorKind::Io),
        Fault::Error(DiskErrorKind::NoSpace),
        Fault::Short,
    ]);
    world.members[place].machine.fail_log_after(after, fault);
}

/// The disk of a member that does not run changes by itself.
fn damage(world: &mut World, place: Place) -> Result<(), Wrong> {
    let count = world.members.len();
    let others = world.members.iter().enumerate();
    let damaged = others.filter(|(other, member)| *other != place && member.is_damaged).count();
    if damaged + 1 > (count - 1) / 2 || !world.members[place].is_founded {
        return Ok(());
    }
    stop(world, place, Crash::Tears)?;
    world.members[place].is_damaged = true;
    let what = world.members[place].machine.damage();
    world.tell(|| format!("m{}: {what}", place + 1));
    Ok(())
}

/// Something is as before.
pub fn mend(world: &mut World, mend: Mend) {
    match mend {
        Mend::Network => world.network.join(),
        Mend::Room(place) => world.members[place].machine.set_full(false),
        Mend::Speed(place) => world.members[place].disk_slowness = 1,
    }
}

/// All trouble is over.
pub fn calm(world: &mut World) {
    world.is_calm = true;
    world.network.heal();
    world.lift_quota();
    for place in 0..world.members.len() {
        world.wake(place);
        let member = &mut world.members[place];
        member.machine.set_full(false);
        member.machine.forget_fault();
        member.disk_slowness = 1;
        if member.is_founded || member.origin != Origin::Joins {
            world.later(100_000, Event::Start(place));
        }
    }
}
