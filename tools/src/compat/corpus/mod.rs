//! The scripted cases, by what they are about.
//!
//! A case is a name and a talk. It says what is asked, never what is answered: etcd says that. A
//! case that shares its pair of servers with others works on keys of its own prefix and does
//! nothing the others would notice; compaction, alarms and flags need a pair alone.

mod compact;
mod delete;
mod fragment;
mod http;
mod keep_alive;
mod lease;
mod lock;
mod maintenance;
mod put;
mod range;
mod stream;
mod transport;
mod txn;
mod txn_rules;
mod waiting;
mod watch;
mod watch_rules;

use super::conversation::Conversation;
use super::wire::etcdserverpb as pb;

/// Which servers a case talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The pair that most cases share.
    Shared,
    /// New servers with these arguments.
    Alone(&'static [&'static str]),
    /// New servers that are the only members of their clusters.
    Lone,
}

/// One scripted case.
pub struct Case {
    /// `subject/what-is-asked`, unique; also the prefix of its keys.
    pub name: String,
    /// Which servers it talks to.
    pub setting: Setting,
    /// What it says.
    pub talk: Box<dyn Fn(&mut Conversation<'_>)>,
}

/// Collects cases.
#[derive(Default)]
pub struct Corpus {
    cases: Vec<Case>,
}

impl Corpus {
    /// A case on the shared pair.
    fn case(&mut self, name: impl Into<String>, talk: impl Fn(&mut Conversation<'_>) + 'static) {
        self.push(name.into(), Setting::Shared, Box::new(talk));
    }

    /// A case on servers of its own.
    fn alone(
        &mut self,
        name: impl Into<String>,
        args: &'static [&'static str],
        talk: impl Fn(&mut Conversation<'_>) + 'static,
    ) {
        self.push(name.into(), Setting::Alone(args), Box::new(talk));
    }

    /// A case on servers of its own, which have no others beside them.
    fn lone(&mut self, name: impl Into<String>, talk: impl Fn(&mut Conversation<'_>) + 'static) {
        self.push(name.into(), Setting::Lone, Box::new(talk));
    }

    fn push(&mut self, name: String, setting: Setting, talk: Box<dyn Fn(&mut Conversation<'_>)>) {
        self.cases.push(Case { name, setting, talk });
    }
}

/// All cases. Those that need servers of their own come last.
pub fn corpus() -> Vec<Case> {
    let mut corpus = Corpus::default();
    range::add(&mut corpus);
    put::add(&mut corpus);
    delete::add(&mut corpus);
    txn::add(&mut corpus);
    txn_rules::add(&mut corpus);
    watch::add(&mut corpus);
    watch_rules::add(&mut corpus);
    fragment::add(&mut corpus);
    lease::add(&mut corpus);
    keep_alive::add(&mut corpus);
    lock::add(&mut corpus);
    waiting::add(&mut corpus);
    stream::add(&mut corpus);
    maintenance::add(&mut corpus);
    transport::add(&mut corpus);
    http::add(&mut corpus);
    compact::add(&mut corpus);
    corpus.cases.sort_by_key(|case| case.setting != Setting::Shared);
    corpus.cases
}

/// A put of a key of this case.
fn put(c: &Conversation<'_>, name: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: c.key(name), value: value.into(), ..Default::default() }
}

/// A range of one key of this case.
fn get(c: &Conversation<'_>, name: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: c.key(name), ..Default::default() }
}

/// A range of all keys of this case that begin with `name`.
fn list(c: &Conversation<'_>, name: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: c.key(name), range_end: c.end(name), ..Default::default() }
}

/// A deletion of one key of this case.
fn delete(c: &Conversation<'_>, name: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: c.key(name), ..Default::default() }
}

/// A deletion of all keys of this case that begin with `name`.
fn delete_all(c: &Conversation<'_>, name: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: c.key(name), range_end: c.end(name), prev_kv: false }
}

/// Operations of a transaction.
mod op {
    use super::pb::{self, request_op::Request};

    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    pub fn range(request: pb::RangeRequest) -> pb::RequestOp {
        op(Request::RequestRange(request))
    }

    pub fn put(request: pb::PutRequest) -> pb::RequestOp {
        op(Request::RequestPut(request))
    }

    pub fn delete(request: pb::DeleteRangeRequest) -> pb::RequestOp {
        op(Request::RequestDeleteRange(request))
    }

    pub fn txn(request: pb::TxnRequest) -> pb::RequestOp {
        op(Request::RequestTxn(request))
    }
}

/// A transaction that compares nothing.
fn then(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success, ..Default::default() }
}

/// A few keys with histories that differ in every field: `a` put once, `b` twice, `c` deleted and
/// made again, `d` empty, `e` put in a transaction with `f`, `g` deleted.
fn furnish(c: &mut Conversation<'_>) {
    let requests = [
        put(c, "a", "apple"),
        put(c, "b", "birch"),
        put(c, "c", "cedar"),
        put(c, "b", "beech"),
        put(c, "d", ""),
        put(c, "g", "gone"),
    ];
    for request in requests {
        c.put(request);
    }
    let request = delete(c, "c");
    c.delete(request);
    let request = put(c, "c", "anew");
    c.put(request);
    let (e, f) = (put(c, "e", "elm"), put(c, "f", "fir"));
    c.txn(then(vec![op::put(e), op::put(f)]));
    let request = delete(c, "g");
    c.delete(request);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let mut names: Vec<String> = corpus().into_iter().map(|case| case.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.iter().all(|name| name.contains('/') && !name.contains(' ')));
    }

    #[test]
    fn the_corpus_is_as_large_as_was_promised() {
        assert!(corpus().len() >= 600, "{} cases", corpus().len());
    }
}
