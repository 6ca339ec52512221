//! What the kernel tells about this process.

use std::fs;
use std::path::Path;

/// What a look brought. What cannot be read counts as nothing: statistics end no server.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessStats {
    /// Processor time, in user and system mode.
    pub cpu_seconds: f64,
    /// When it was started, since 1970.
    pub start_seconds: f64,
    /// Memory that it occupies.
    pub resident_bytes: u64,
    /// Addresses that it occupies.
    pub virtual_bytes: u64,
    /// Addresses that it may occupy.
    pub virtual_bytes_max: Option<u64>,
    /// Open descriptors.
    pub descriptors: u64,
    /// Descriptors that it may open.
    pub descriptors_max: u64,
    /// Bytes that its network namespace has received over IP.
    pub network_received_bytes: u64,
    /// Bytes that it has sent.
    pub network_sent_bytes: u64,
}

impl ProcessStats {
    /// Looks. Counting descriptors takes a microsecond each, so this is nothing for a core.
    #[must_use]
    pub fn read() -> Self {
        let mut stats = Self {
            descriptors: count_descriptors(),
            descriptors_max: limit(libc::RLIMIT_NOFILE).unwrap_or(u64::MAX),
            virtual_bytes_max: limit(libc::RLIMIT_AS),
            ..Self::default()
        };
        let ticks_per_second = positive(libc::_SC_CLK_TCK);
        let boot_seconds = field_behind(&read("/proc/stat"), "btime ").unwrap_or(0);
        stats.parse_stat(&read("/proc/self/stat"), ticks_per_second, boot_seconds);
        stats.parse_netstat(&read("/proc/self/net/netstat"));
        stats
    }

    /// The fields of `/proc/self/stat`, counted behind the name in parentheses, which may hold
    /// anything.
    fn parse_stat(&mut self, text: &str, ticks_per_second: u64, boot_seconds: u64) {
        let Some((_, behind)) = text.rsplit_once(')') else { return };
        let fields: Vec<&str> = behind.split_ascii_whitespace().collect();
        let number = |place: usize| -> u64 {
            fields.get(place).and_then(|field| field.parse().ok()).unwrap_or(0)
        };
        let seconds = |ticks: u64| float(ticks) / float(ticks_per_second);
        self.cpu_seconds = seconds(number(11) + number(12));
        self.start_seconds = float(boot_seconds) + seconds(number(19));
        self.virtual_bytes = number(20);
        self.resident_bytes = number(21) * positive(libc::_SC_PAGESIZE);
    }

    /// Two lines: names, then numbers.
    fn parse_netstat(&mut self, text: &str) {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt: "));
        let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else { return };
        let fields = names.split_ascii_whitespace().zip(numbers.split_ascii_whitespace());
        for (name, number) in fields {
            let number = number.parse().unwrap_or(0);
            match name {
                "InOctets" => self.network_received_bytes = number,
                "OutOctets" => self.network_sent_bytes = number,
                _ => {}
            }
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(path)).unwrap_or_default()
}

fn field_behind(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.trim().parse().ok())
}

/// Without the one that the directory is read through.
fn count_descriptors() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| (entries.count() as u64).saturating_sub(1))
}

fn limit(what: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is writable.
    let result = unsafe { libc::getrlimit(what, &raw mut limit) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

fn positive(what: libc::c_int) -> u64 {
    // SAFETY: asks for a number and touches no memory.
    let number = unsafe { libc::sysconf(what) };
    u64::try_from(number).unwrap_or(1).max(1)
}

#[allow(clippy::cast_precision_loss, reason = "ticks of centuries fit")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_may_look_like_fields() {
        let mut stats = ProcessStats::default();
        let text = "7 (a) R 1 (b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 3 0 1000 8192 2 0";
        stats.parse_stat(text, 100, 1_000_000);
        assert!((stats.cpu_seconds - 2.0).abs() < 1e-9);
        assert!((stats.start_seconds - 1_000_010.0).abs() < 1e-9);
        assert_eq!((stats.virtual_bytes, stats.resident_bytes % 2), (8192, 0));
        assert!(stats.resident_bytes > 0);
    }

    #[test]
    fn octets_are_found_by_their_names() {
        let mut stats = ProcessStats::default();
        stats.parse_netstat("TcpExt: A\nTcpExt: 1\nIpExt: A InOctets OutOctets\nIpExt: 1 20 30\n");
        assert_eq!((stats.network_received_bytes, stats.network_sent_bytes), (20, 30));
        stats.parse_netstat("nonsense");
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let stats = ProcessStats::read();
        assert!(stats.resident_bytes > 0 && stats.descriptors > 2 && stats.start_seconds > 1e9);
        assert!(stats.descriptors <= stats.descriptors_max);
    }
}
