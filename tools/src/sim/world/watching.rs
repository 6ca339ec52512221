//! The turns of those who watch.

use super::{Event, World};
use crate::sim::member::FRONTEND;
use crate::sim::network::Place;
use crate::sim::witness::Wrong;

/// A front-end core hears of events so much later than the log core, at most.
const LATE_MICROS: u64 = 3_000;

impl World {
    /// There is something for those who watch at a member.
    pub(super) fn want_watch(&mut self, place: Place) {
        if !std::mem::replace(&mut self.desks[place].is_due, true) {
            let boot = self.members[place].boots;
            self.later(LATE_MICROS, Event::Watch(place, boot));
        }
    }

    /// Those who watch at a member come again with it.
    pub(super) fn begin_watches(&mut self, place: Place) -> Result<(), Wrong> {
        let now = self.now;
        let Some(running) = self.members[place].running.as_mut() else { return Ok(()) };
        let local = running.clock.at(now);
        self.desks[place].begin(&running.reader.pin(), local)?;
        self.want_watch(place);
        Ok(())
    }

    /// A turn of a member's watches.
    pub(super) fn tell_watchers(&mut self, place: Place) -> Result<(), Wrong> {
        if self.is_held_up(place, |boot| Event::Watch(place, boot)) {
            return Ok(());
        }
        let now = self.now;
        let member = &mut self.members[place];
        let running = member.running.as_mut().expect("it lives");
        let desk = &mut self.desks[place];
        if let Some(wanted) = desk.poll_wanted(&running.reader.pin()) {
            // There is always somebody who wants events: the witness.
            running.interest.set(FRONTEND, true, wanted.prevs);
        }
        let turned = desk.turn(&mut running.reader, &self.witness, running.clock.at(now));
        match turned {
            Ok(true) => self.want_watch(place),
            Ok(false) => {}
            Err(wrong) if member.is_damaged => {
                self.tell(|| format!("m{} finds damage: {wrong}", place + 1));
                self.members[place].is_lost = true;
                return self.stop_member(place, wal::sim::Crash::KeepsAll, 1);
            }
            Err(wrong) => return Err(format!("m{}: {wrong}", place + 1)),
        }
        Ok(())
    }

    /// What those who watch at a member were not told, if anything.
    #[must_use]
    pub fn late_watch(&self, place: Place) -> Option<String> {
        self.desks[place].late(&self.witness)
    }
}
