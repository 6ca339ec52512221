//! Trouble: what strikes, whom, who must go on meanwhile, and how it is mended.
//!
//! Invariants:
//! - What strikes is mended by [`Scene::mend`], which leaves every member started.

use std::time::Duration;

use clap::ValueEnum;

use super::cluster::Cluster;
use super::disk::Disk;
use super::member::Member;
use super::network::Network;
use crate::sim::random::Random;

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Trouble {
    /// `kill -9` of the leader.
    KillLeader,
    /// `kill -9` of a follower.
    KillFollower,
    /// `kill -9` of all members at once.
    KillAll,
    /// SIGTERM to the leader, which hands over.
    EndLeader,
    /// SIGSTOP of the leader.
    StopLeader,
    /// SIGSTOP of a follower.
    StopFollower,
    /// The leader hears nobody and is heard by nobody.
    CutLeader,
    /// The same of a follower.
    CutFollower,
    /// The members in two parts, or three where there are enough.
    Split,
    /// A member is not heard, or does not hear.
    OneWay,
    /// Everything between members takes long.
    Delay,
    /// Something of everything between members is lost.
    Loss,
    /// A member's disk is full.
    DiskFull,
    /// A member's disk is slow.
    DiskSlow,
    /// A member's disk does nothing at all.
    DiskStall,
}

/// What a kind of trouble is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// Signals.
    Processes,
    /// Namespaces and the switch.
    Network,
    /// Disks of the drill's own.
    Disks,
    /// Such disks, and the kernel's limits on them.
    SlowDisks,
}

impl Trouble {
    /// What it is made with.
    #[must_use]
    pub const fn means(self) -> Means {
        match self {
            Self::KillLeader
            | Self::KillFollower
            | Self::KillAll
            | Self::EndLeader
            | Self::StopLeader
            | Self::StopFollower => Means::Processes,
            Self::CutLeader
            | Self::CutFollower
            | Self::Split
            | Self::OneWay
            | Self::Delay
            | Self::Loss => Means::Network,
            Self::DiskFull | Self::DiskStall => Means::Disks,
            Self::DiskSlow => Means::SlowDisks,
        }
    }

    /// Whether a member does nothing meanwhile.
    #[must_use]
    pub const fn is_stop(self) -> bool {
        matches!(self, Self::StopLeader | Self::StopFollower)
    }

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no kind is hidden");
        value.get_name().to_owned()
    }
}

/// Trouble that has struck.
#[derive(Debug, Clone)]
pub struct Struck {
    /// What.
    pub trouble: Trouble,
    /// Whom.
    pub victims: Vec<usize>,
    /// Who must take writes nevertheless.
    pub survivor: Option<usize>,
    /// More, for people.
    pub detail: String,
}

/// Where it strikes.
pub struct Scene {
    /// The members.
    pub cluster: Cluster,
    /// Where there are namespaces.
    pub network: Option<Network>,
    /// What is drawn.
    pub random: Random,
}

impl Scene {
    /// Lets trouble strike.
    ///
    /// # Errors
    /// It cannot be made, or nobody leads.
    pub fn strike(&mut self, trouble: Trouble) -> Result<Struck, String> {
        let leader = self.cluster.leader()?;
        let count = self.cluster.members.len();
        let others: Vec<usize> = (0..count).filter(|&place| place != leader).collect();
        let follower = *self.random.pick(&others);
        let any = self.random.place(count);
        match trouble {
            Trouble::KillLeader => Ok(self.kill(trouble, leader)),
            Trouble::KillFollower => Ok(self.kill(trouble, follower)),
            Trouble::KillAll => {
                self.cluster.members.iter_mut().for_each(Member::kill);
                Ok(struck(trouble, (0..count).collect(), None, String::new()))
            }
            Trouble::EndLeader => {
                if self.cluster.disks.get(leader).is_some_and(Disk::is_frozen) {
                    // It would wait for its disk, and so would we.
                    self.cluster.members[leader].kill();
                } else {
                    self.cluster.members[leader].stop()?;
                }
                Ok(self.of_one(trouble, leader, String::new()))
            }
            Trouble::StopLeader => Ok(self.stop(trouble, leader)),
            Trouble::StopFollower => Ok(self.stop(trouble, follower)),
            Trouble::CutLeader => Ok(self.cut_off(trouble, leader)),
            Trouble::CutFollower => Ok(self.cut_off(trouble, follower)),
            Trouble::Split => Ok(self.split(count)),
            Trouble::OneWay => Ok(self.cut_one_way(any)),
            Trouble::Delay | Trouble::Loss => Ok(self.worsen(trouble)),
            Trouble::DiskFull | Trouble::DiskSlow | Trouble::DiskStall => {
                self.harm_disk(trouble, any, leader)
            }
        }
    }

    /// Mends it.
    ///
    /// # Errors
    /// It cannot be mended.
    pub fn mend(&mut self, struck: &Struck) -> Result<(), String> {
        if let Some(network) = &self.network
            && struck.trouble.means() == Means::Network
        {
            network.clear();
        }
        for &victim in &struck.victims {
            match struck.trouble {
                Trouble::StopLeader | Trouble::StopFollower => {
                    self.cluster.members[victim].resume();
                }
                Trouble::DiskFull => {
                    self.cluster.shared.fill(false);
                    self.cluster.disks[victim].free()?;
                }
                Trouble::DiskSlow => self.cluster.disks[victim].limit_writes(None)?,
                Trouble::DiskStall => self.cluster.disks[victim].thaw()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn kill(&mut self, trouble: Trouble, victim: usize) -> Struck {
        self.cluster.members[victim].kill();
        self.of_one(trouble, victim, String::new())
    }

    fn stop(&mut self, trouble: Trouble, victim: usize) -> Struck {
        self.cluster.members[victim].pause();
        self.of_one(trouble, victim, String::new())
    }

    /// One member is lost; any other must go on.
    fn of_one(&mut self, trouble: Trouble, victim: usize, detail: String) -> Struck {
        let survivor = self.one_beside(&[victim]);
        struck(trouble, vec![victim], Some(survivor), detail)
    }

    fn one_beside(&mut self, victims: &[usize]) -> usize {
        let count = self.cluster.members.len();
        let left: Vec<usize> = (0..count).filter(|place| !victims.contains(place)).collect();
        *self.random.pick(&left)
    }

    fn network(&self) -> &Network {
        self.network.as_ref().expect("only what can be made is asked for")
    }

    fn cut_off(&mut self, trouble: Trouble, victim: usize) -> Struck {
        let others: Vec<usize> =
            (0..self.cluster.members.len()).filter(|&place| place != victim).collect();
        self.network().change(|weather| {
            weather.cut(&[victim], &others);
            weather.cut(&others, &[victim]);
        });
        self.of_one(trouble, victim, String::new())
    }

    fn split(&mut self, count: usize) -> Struck {
        let mut places: Vec<usize> = (0..count).collect();
        for place in (1..count).rev() {
            places.swap(place, self.random.place(place + 1));
        }
        // A minority, and of the rest sometimes another one: then nobody has a quorum.
        let minority_max = (count - 1) / 2;
        let (small, rest) = places.split_at(1 + self.random.place(minority_max));
        let has_three_parts = count - small.len() > minority_max + 1 && self.random.once_in(3);
        let cut = if has_three_parts { rest.len() / 2 } else { 0 };
        let (second, third) = rest.split_at(cut);
        let parts: Vec<&[usize]> =
            [small, second, third].into_iter().filter(|part| !part.is_empty()).collect();
        self.network().change(|weather| {
            for part in &parts {
                for other in parts.iter().filter(|other| *other != part) {
                    weather.cut(part, other);
                }
            }
        });
        let survivor = parts.iter().find(|part| part.len() > count / 2);
        let survivor = survivor.map(|part| part[self.random.place(part.len())]);
        let names = parts.iter().map(|part| names_of(part)).collect::<Vec<_>>().join(" | ");
        struck(Trouble::Split, Vec::new(), survivor, names)
    }

    fn cut_one_way(&mut self, victim: usize) -> Struck {
        let others: Vec<usize> =
            (0..self.cluster.members.len()).filter(|&place| place != victim).collect();
        let is_deaf = self.random.once_in(2);
        self.network().change(|weather| {
            if is_deaf {
                weather.cut(&others, &[victim]);
            } else {
                weather.cut(&[victim], &others);
            }
        });
        let detail = if is_deaf { "hears nobody" } else { "is not heard" };
        self.of_one(Trouble::OneWay, victim, detail.to_owned())
    }

    fn worsen(&mut self, trouble: Trouble) -> Struck {
        let millis = self.random.between(10, 120);
        let percent = u32::try_from(self.random.between(1, 10)).expect("a small number");
        let detail = if trouble == Trouble::Delay {
            // Up to twice as long: what is sent later may arrive sooner.
            let least = Duration::from_millis(millis);
            self.network().change(|weather| weather.delay = (least, least * 2));
            format!("{millis} to {} ms", 2 * millis)
        } else {
            self.network().change(|weather| weather.loss_per_million = percent * 10_000);
            format!("{percent} %")
        };
        let survivor = self.one_beside(&[]);
        struck(trouble, Vec::new(), Some(survivor), detail)
    }

    fn harm_disk(
        &mut self,
        trouble: Trouble,
        victim: usize,
        leader: usize,
    ) -> Result<Struck, String> {
        let disk = &mut self.cluster.disks[victim];
        let mut detail = String::new();
        match trouble {
            Trouble::DiskFull => {
                self.cluster.members[victim].may_end = true;
                disk.fill()?;
                self.cluster.shared.fill(true);
            }
            Trouble::DiskSlow => {
                let writes = self.random.between(8, 60);
                disk.limit_writes(Some(writes))?;
                detail = format!("{writes} writes a second");
            }
            _ => disk.freeze()?,
        }
        if victim == leader {
            detail.push_str(" (leads)");
        }
        // A leader whose disk fails may keep its place; then nobody promises anything.
        let is_of_follower = victim != leader;
        let survivor = is_of_follower.then(|| self.one_beside(&[victim]));
        Ok(struck(trouble, vec![victim], survivor, detail))
    }
}

fn struck(
    trouble: Trouble,
    victims: Vec<usize>,
    survivor: Option<usize>,
    detail: String,
) -> Struck {
    Struck { trouble, victims, survivor, detail }
}

/// Members as people read of them.
#[must_use]
pub fn names_of(places: &[usize]) -> String {
    places.iter().map(|place| format!("m{}", place + 1)).collect::<Vec<_>>().join(" ")
}
