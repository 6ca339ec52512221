//! A namespace for each member: its clients reach it over a wire of its own, its peers through the
//! switch.
//!
//! The wires stay as they are; trouble is in the switch alone. So clients see what a member says
//! that its peers no longer hear.
//!
//! Invariants:
//! - Names begin with the drill's own prefix and its process id; whatever is called so is gone when
//!   the network is dropped, or else a later drill removes it ([`super::leftovers`]).

use std::net::{Ipv4Addr, SocketAddr};

use super::shell::run_line;
use super::switch::{PORT, Switch, Weather, hardware_address};

/// What all namespaces of drills begin with.
pub const NAMESPACE_PREFIX: &str = "rdrill";
/// VXLAN takes 50 bytes of each frame of the wire.
const PEER_MTU: u32 = 1400;
const CLIENT_PORT: u16 = 24_379;
const PEER_PORT: u16 = 24_380;
/// Drills at the same time have different second bytes in their addresses, most likely.
const NETWORKS: u32 = 100;

/// The namespaces, and what joins them.
pub struct Network {
    names: Vec<String>,
    byte: u8,
    switch: Option<Switch>,
}

impl Network {
    /// Makes a namespace for each of so many members.
    ///
    /// # Errors
    /// That cannot be done here; what was made until then is gone again.
    pub fn make(members: usize, seed: u64) -> Result<Self, String> {
        let pid = std::process::id();
        let byte = u8::try_from(100 + pid % NETWORKS).expect("less than 200");
        let mut network = Self { names: Vec::new(), byte, switch: None };
        for place in 0..members {
            network.names.push(format!("{NAMESPACE_PREFIX}{pid}m{}", place + 1));
            network.add(place, members)?;
        }
        let ends: Vec<_> = (0..members)
            .map(|place| (network.wire_address(place, 1), network.wire_address(place, 2)))
            .collect();
        let switch = Switch::start(&ends, seed).map_err(|error| format!("switch: {error}"))?;
        network.switch = Some(switch);
        Ok(network)
    }

    fn add(&self, place: usize, members: usize) -> Result<(), String> {
        let name = &self.names[place];
        let (ours, theirs) = (self.wire_address(place, 1), self.wire_address(place, 2));
        // A device's name has at most 15 characters.
        let wire = format!("rd{}m{}", std::process::id(), place + 1);
        let address = hardware_address(place);
        let mut lines = vec![
            format!("ip netns add {name}"),
            format!("ip link add {wire} type veth peer name wire netns {name}"),
            format!("ip addr add {ours}/24 dev {wire}"),
            format!("ip link set {wire} up"),
            format!("ip -n {name} link set lo up"),
            format!("ip -n {name} addr add {theirs}/24 dev wire"),
            format!("ip -n {name} link set wire up"),
            format!(
                "ip -n {name} link add peers address {address} mtu {PEER_MTU} type vxlan id 1 \
                 remote {ours} local {theirs} dstport {PORT} nolearning"
            ),
            // The switch passes frames on as they come; nobody would cut a large one into many.
            format!("ip -n {name} link set peers gso_max_segs 1"),
            format!("ip -n {name} addr add {}/24 dev peers", self.peer_ip(place)),
            format!("ip -n {name} link set peers up"),
        ];
        for other in (0..members).filter(|&other| other != place) {
            let (ip, address) = (self.peer_ip(other), hardware_address(other));
            let kept = format!("ip -n {name} neigh add {ip} lladdr {address} dev peers");
            lines.push(format!("{kept} nud permanent"));
        }
        lines.iter().try_for_each(|line| run_line(line).map(drop))
    }

    /// An end of the wire between us (1) and a member (2).
    fn wire_address(&self, place: usize, end: u8) -> Ipv4Addr {
        let number = u8::try_from(place + 1).expect("a cluster is small");
        Ipv4Addr::new(10, self.byte, number, end)
    }

    fn peer_ip(&self, place: usize) -> Ipv4Addr {
        let number = u8::try_from(place + 1).expect("a cluster is small");
        Ipv4Addr::new(10, self.byte, 200, number)
    }

    /// The name of a member's namespace.
    #[must_use]
    pub fn namespace(&self, place: usize) -> &str {
        &self.names[place]
    }

    /// Where a member's clients connect, and where its peers do.
    #[must_use]
    pub fn addresses(&self, place: usize) -> [SocketAddr; 2] {
        let client = (self.wire_address(place, 2), CLIENT_PORT);
        [client.into(), (self.peer_ip(place), PEER_PORT).into()]
    }

    fn switch(&self) -> &Switch {
        self.switch.as_ref().expect("it is there from the end of `make` on")
    }

    /// Changes the weather.
    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.switch().weather());
    }

    /// Lets all pass again.
    pub fn clear(&self) {
        self.switch().clear();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            // Whoever has no right to remove it had none to make it either.
            let _ = run_line(&format!("ip netns del {name}"));
        }
    }
}
