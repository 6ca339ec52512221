//! `/debug/vars`: what this process is and where raft stands, under the names of Go's expvar.
//!
//! Invariants:
//! - Found out when somebody asks, and only then.

use std::fmt::Write;

use super::Desk;
use crate::frontend::gateway::PageText;
use crate::frontend::gateway::json::{Escape, put_string};
use crate::runtime::sockets::descriptor_limit;

/// The page.
pub(super) fn page(desk: &Desk) -> PageText {
    let mut body = b"{\n\"cmdline\": [".to_vec();
    for (place, argument) in std::env::args_os().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        put_string(&mut body, &argument.to_string_lossy(), Escape::Html);
    }
    body.extend_from_slice(b"],\n");
    let limit = descriptor_limit().unwrap_or(0);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rest = format!(
        "\"file_descriptor_limit\": {limit},\n\"memstats\": {},\n\"raft.status\": {}\n}}\n",
        memory(&status),
        raft_status(desk)
    );
    body.extend_from_slice(rest.as_bytes());
    let fields = vec![("Content-Type", "application/json; charset=utf-8".to_owned())];
    PageText { status: 200, fields, body }
}

/// Of Go's numbers those that mean something here: what was allocated and is in memory, and what
/// the process has of it in all, files that are mapped included.
fn memory(status: &str) -> String {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let kilobytes = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        kilobytes.parse::<u64>().unwrap_or(0) * 1024
    };
    format!("{{\"Alloc\":{},\"Sys\":{}}}", bytes("RssAnon"), bytes("VmRSS"))
}

/// raft's own words. A member without peers has voted for itself or for nobody.
fn raft_status(desk: &Desk) -> String {
    let copy = desk.status.get();
    let member = desk.node.member_id.0;
    let leads = copy.leader == member;
    let state = if leads { "StateLeader" } else { "StateFollower" };
    let vote = if leads { member } else { 0 };
    let mut text = format!(
        "{{\"id\":\"{member:x}\",\"term\":{},\"vote\":\"{vote:x}\",\"commit\":{},\
         \"lead\":\"{:x}\",\"raftState\":\"{state}\",\"applied\":{},\"progress\":{{",
        copy.term, copy.committed, copy.leader, copy.applied
    );
    if leads {
        let (matched, next) = (copy.committed, copy.committed + 1);
        let progress = "\"state\":\"StateReplicate\"";
        write!(text, "\"{member:x}\":{{\"match\":{matched},\"next\":{next},{progress}}}")
            .expect("a string takes all");
    }
    text.push_str("},\"leadtransferee\":\"0\"}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_bytes() {
        let status = "Name:\tringd\nVmRSS:\t    2048 kB\nRssAnon:\t       8 kB\n";
        assert_eq!(memory(status), "{\"Alloc\":8192,\"Sys\":2097152}");
        assert_eq!(memory(""), "{\"Alloc\":0,\"Sys\":0}");
    }
}
