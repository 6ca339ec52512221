//! Stores that come near their quota, and whoever runs the cluster and does something about it.

use engine::quota::Quota;
use server::mail::{Ask, Slot};

use super::{Asked, Event, NOBODY, Pending, World};
use crate::sim::clients;
use crate::sim::member::FRONTEND;
use crate::sim::network::Place;
use crate::sim::witness::Wrong;

/// Between two looks at alarms, when all is calm.
const LOOK_MICROS: u64 = 1_000_000;

impl World {
    /// Looks at a member's store: where somebody has said that there is no room, it must be so.
    pub(super) fn look_at_quota(&mut self, place: Place) -> Result<(), Wrong> {
        let Some(quota_bytes) = self.plan.quota_bytes else { return Ok(()) };
        let member = &mut self.members[place];
        let Some(running) = member.running.as_mut() else { return Ok(()) };
        member.has_installed |= running.core.engine().installing().is_some();
        let view = running.reader.pin();
        let size_bytes = view.size_bytes;
        let alarms = view.alarms().map_err(|error| format!("alarms cannot be read: {error}"))?;
        drop(view);
        if !member.has_installed {
            self.size_bytes_max = self.size_bytes_max.max(size_bytes);
        }
        if alarms.is_empty() || self.has_alarm {
            return Ok(());
        }
        self.has_alarm = true;
        // Where every member was given a store once, none is left whose file says it: then it is
        // what the store holds where that is least.
        let running = self.members.iter_mut().filter_map(|member| member.running.as_mut());
        let held = running.map(|running| running.reader.pin().in_use_bytes).min();
        let known = match self.members.iter().all(|member| member.has_installed) {
            true => self.size_bytes_max.max(held.unwrap_or(0)),
            false => self.size_bytes_max,
        };
        self.tell(|| format!("an alarm: {alarms:?}; stores are of {known} bytes at most"));
        // All stores hold the same, give or take what checkpoints keep twice.
        if known < quota_bytes / 4 * 3 {
            return Err(format!(
                "an alarm of a quota of {quota_bytes} bytes, and no store built by its own member \
                 was ever of more than {known}: {alarms:?}"
            ));
        }
        Ok(())
    }

    /// Room is made, in that the quota is lifted, and alarms are ended as soon as there is somebody
    /// to ask.
    pub fn lift_quota(&mut self) {
        if self.plan.quota_bytes.take().is_some() {
            self.has_alarm = true;
        }
        if !self.has_alarm {
            return;
        }
        self.at(self.now + LOOK_MICROS, Event::Alarms);
        for member in &mut self.members {
            if let Some(running) = &mut member.running {
                running.core.set_quota(Quota::from_flag(-1));
            }
        }
        let Some(place) = self.leader() else { return };
        let now = self.now;
        let running = self.members[place].running.as_mut().expect("a leader runs");
        let alarms = running.reader.pin().alarms().unwrap_or_default();
        let mut ask = Ask::default();
        for alarm in alarms {
            self.slot_next += 1;
            let slot = Slot(self.slot_next);
            clients::push_disarm(alarm, &mut ask.frames);
            ask.slots.push(slot);
            let (asked_at, what) = (now, Asked::Change);
            let pending = Pending { client: NOBODY, question: 0, what, asked_at };
            self.pending[place].insert(slot, pending);
        }
        running.core.handle_ask(FRONTEND, &ask, running.clock.at(now));
        self.soon(place);
    }
}
