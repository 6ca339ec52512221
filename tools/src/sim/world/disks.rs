//! What members have their disks do, and what they have walked beside themselves.

use super::{Event, World};
use crate::sim::network::Place;
use crate::sim::witness::Wrong;

impl World {
    pub(super) fn begin_ops(&mut self, place: Place) {
        let slowness = self.members[place].disk_slowness;
        let most = self.plan.disk_micros * slowness;
        loop {
            let boot = self.members[place].boots;
            let running = self.members[place].running.as_mut().expect("it lives");
            if let Some((id, op)) = running.core.poll_log_op() {
                running.log_ops.insert(id.0, (id, op));
                self.later(most, Event::LogOp(place, boot, id.0));
            } else if let Some(op) = running.core.poll_engine_op() {
                let token = op.token.0;
                running.store_ops.insert(token, op);
                self.later(most, Event::StoreOp(place, boot, token));
            } else if let Some(job) = running.core.poll_scan() {
                self.planned += 1;
                running.scans.insert(self.planned, job);
                self.later(most, Event::Scan(place, boot, self.planned));
            } else {
                return;
            }
        }
    }

    pub(super) fn end_log_op(&mut self, place: Place, op: u64) -> Result<(), Wrong> {
        if self.is_held_up(place, |boot| Event::LogOp(place, boot, op)) {
            return Ok(());
        }
        let member = &mut self.members[place];
        let running = member.running.as_mut().expect("it lives");
        let Some((id, op)) = running.log_ops.remove(&op) else { return Ok(()) };
        running.idle_turns = 0;
        let result = member.machine.perform_log(op);
        match running.core.handle_log_completion(id, result) {
            Ok(()) => self.soon(place),
            Err(failure) => self.fail_member(place, &failure)?,
        }
        Ok(())
    }

    pub(super) fn end_store_op(&mut self, place: Place, token: u64) -> Result<(), Wrong> {
        if self.is_held_up(place, |boot| Event::StoreOp(place, boot, token)) {
            return Ok(());
        }
        let member = &mut self.members[place];
        let running = member.running.as_mut().expect("it lives");
        let Some(op) = running.store_ops.remove(&token) else { return Ok(()) };
        running.idle_turns = 0;
        let completion = member.machine.perform_store(op);
        match running.core.handle_engine_completion(completion) {
            Ok(()) => self.soon(place),
            Err(failure) => self.fail_member(place, &failure)?,
        }
        Ok(())
    }

    pub(super) fn end_scan(&mut self, place: Place, scan: u64) -> Result<(), Wrong> {
        if self.is_held_up(place, |boot| Event::Scan(place, boot, scan)) {
            return Ok(());
        }
        let member = &mut self.members[place];
        let running = member.running.as_mut().expect("it lives");
        let Some(job) = running.scans.remove(&scan) else { return Ok(()) };
        running.idle_turns = 0;
        match running.core.handle_scanned(job.perform()) {
            Ok(()) => self.soon(place),
            Err(failure) => self.fail_member(place, &failure)?,
        }
        Ok(())
    }
}
