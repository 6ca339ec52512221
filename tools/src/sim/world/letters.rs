//! Letters between members, and the connections that carry them.

use server::peer::letter::Letter;

use super::{Carried, Event, World};
use crate::sim::links::{self, Way};
use crate::sim::network::Place;
use crate::sim::witness::Wrong;

impl World {
    pub(super) fn post(&mut self, place: Place) -> Result<(), Wrong> {
        loop {
            let Some(running) = self.members[place].running.as_mut() else { return Ok(()) };
            let Some((to, letter)) = running.core.poll_letter() else { break };
            running.idle_turns = 0;
            let Some(target) = self.members.iter().position(|member| member.id == to) else {
                continue;
            };
            let way = (place, target);
            let is_answer = matches!(letter, Letter::SnapshotAcknowledged(_));
            let over = if is_answer { (target, place) } else { way };
            let link = self.links.entry(over).or_default();
            let is_up = link.is_up && (!is_answer || link.has_snapshot_lane);
            self.tell(|| links::describe(&letter, way, is_up));
            if !is_up {
                let running = self.members[place].running.as_mut().expect("it lives");
                if !is_answer {
                    running.core.handle_unreachable(to);
                }
                continue;
            }
            let link = self.links.entry(over).or_default();
            let sent = link.send(&letter, way, self.now, &mut self.network);
            if sent.is_empty() && !self.network.reaches(place, target) {
                let epoch = self.links[&over].epoch;
                self.later(3_000_000, Event::Notice(over, epoch));
            }
            for links::Sent { at, epoch, bytes } in sent {
                self.at(at, Event::Frame(Carried { way, over, epoch, bytes }));
            }
        }
        self.want_lanes(place);
        Ok(())
    }

    pub(super) fn want_lanes(&mut self, place: Place) {
        for target in (0..self.members.len()).filter(|target| *target != place) {
            let peer = self.members[target].id;
            let Some(running) = self.members[place].running.as_mut() else { return };
            let is_wanted = running.core.wants_snapshot_lane(peer);
            let link = self.links.entry((place, target)).or_default();
            if link.has_snapshot_lane && !is_wanted {
                running.core.handle_snapshot_lane(peer, false);
            }
            let is_new = is_wanted && link.is_up && !link.has_snapshot_lane;
            link.has_snapshot_lane = is_wanted && link.is_up;
            if is_new {
                let epoch = link.epoch;
                self.later(20_000, Event::SnapshotLane((place, target), epoch));
            }
        }
    }

    pub(super) fn open_snapshot_lane(&mut self, way: Way, epoch: u64) -> Result<(), Wrong> {
        let link = self.links.entry(way).or_default();
        if link.epoch == epoch && link.has_snapshot_lane {
            self.tell(|| format!("m{} > m{} the lane of stores is up", way.0 + 1, way.1 + 1));
            let peer = self.members[way.1].id;
            if let Some(running) = &mut self.members[way.0].running {
                running.core.handle_snapshot_lane(peer, true);
                self.soon(way.0);
            }
        }
        Ok(())
    }

    pub(super) fn deliver(&mut self, frame: Carried) -> Result<(), Wrong> {
        let (from, to) = frame.way;
        if self.links.get(&frame.over).is_none_or(|link| link.epoch != frame.epoch) {
            return Ok(());
        }
        if !self.network.reaches(from, to) {
            self.later(3_000_000, Event::Notice(frame.over, frame.epoch));
            return Ok(());
        }
        if self.members[to].running.is_none() {
            return Ok(());
        }
        let member = &self.members[to];
        let read_at = member.unread_until.get(&from).copied().unwrap_or(member.paused_until);
        if read_at > self.now {
            // It lies in the socket.
            self.at(read_at, Event::Frame(frame));
            return Ok(());
        }
        self.note(u64::from(crc32fast::hash(&frame.bytes)));
        let letter = links::decode(&frame.bytes)?;
        let from = self.members[from].id;
        let running = self.members[to].running.as_mut().expect("it lives");
        running.idle_turns = 0;
        match running.core.handle_letter(from, letter) {
            Ok(()) => self.soon(to),
            Err(failure) => self.fail_member(to, &failure)?,
        }
        Ok(())
    }

    /// Breaks a connection; who sends over it is told, and tries again.
    pub fn break_link(&mut self, way: Way) -> Result<(), Wrong> {
        let link = self.links.entry(way).or_default();
        if !link.is_up {
            return Ok(());
        }
        let had_lane = link.has_snapshot_lane;
        link.break_off();
        self.tell(|| format!("m{} > m{} breaks", way.0 + 1, way.1 + 1));
        let peer = self.members[way.1].id;
        if let Some(running) = &mut self.members[way.0].running {
            if had_lane {
                running.core.handle_snapshot_lane(peer, false);
            }
            running.core.handle_unreachable(peer);
            running.core.handle_peer(peer, false);
            self.soon(way.0);
        }
        self.later(500_000, Event::Dial(way));
        Ok(())
    }

    pub(super) fn dial(&mut self, way: Way) -> Result<(), Wrong> {
        let (from, to) = way;
        let link = self.links.entry(way).or_default();
        if link.is_up || self.members[from].running.is_none() {
            return Ok(());
        }
        let is_reached = self.network.reaches(from, to) && self.network.reaches(to, from);
        let is_awake = self.members[to].is_active(self.now);
        if !is_awake || !is_reached {
            // Its host says that the process is gone. A wall that has gone up may say the same.
            let is_gone = self.members[to].running.is_none();
            let refuses = if is_reached { is_gone } else { self.delays.once_in(4) };
            if refuses && self.links.get(&(to, from)).is_none_or(|link| !link.is_up) {
                let (peer, now) = (self.members[to].id, self.now);
                let running = self.members[from].running.as_mut().expect("it was there just now");
                running.core.handle_absent(peer, running.clock.at(now));
                self.soon(from);
            }
            // A member that starts dials and is dialled anew.
            if self.members[to].running.is_some() {
                self.later(500_000, Event::Dial(way));
            }
            return Ok(());
        }
        let id = self.members[from].id;
        let target = self.members[to].running.as_ref().expect("it lives");
        if target.core.removed().contains(&id) {
            return self.dismiss(from);
        }
        link.is_up = true;
        let peer = self.members[to].id;
        let running = self.members[from].running.as_mut().expect("it lives");
        running.core.handle_peer(peer, true);
        self.soon(from);
        Ok(())
    }
}
