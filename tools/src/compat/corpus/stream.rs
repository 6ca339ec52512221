//! RangeStream, whose parts together are what Range answers.

use super::super::wire::etcdserverpb as pb;
use super::{Corpus, furnish, list, put};

/// Adds the cases.
pub fn add(corpus: &mut Corpus) {
    type Change = fn(&mut pb::RangeRequest);
    const CHANGES: [(&str, Change); 16] = [
        ("plain", |_| {}),
        ("limit", |request| request.limit = 3),
        ("limit-negative", |request| request.limit = -1),
        ("keys-only", |request| request.keys_only = true),
        ("count-only", |request| request.count_only = true),
        ("serializable", |request| request.serializable = true),
        ("one-key", |request| request.range_end.clear()),
        ("backward", |request| request.range_end = vec![1]),
        ("empty-key", |request| request.key.clear()),
        ("sort-key-ascending", |request| request.sort_order = 1),
        ("sort-key-descending", |request| request.sort_order = 2),
        ("sort-by-value", |request| request.sort_target = 4),
        ("sort-unknown", |request| request.sort_order = 9),
        ("min-mod", |request| request.min_mod_revision = 2),
        ("max-create", |request| request.max_create_revision = 2),
        ("future", |request| request.revision = 1 << 40),
    ];
    for (name, change) in CHANGES {
        corpus.case(format!("range-stream/{name}"), move |c| {
            furnish(c);
            let mut request = list(c, "");
            change(&mut request);
            c.range_stream(request);
        });
    }
    corpus.case("range-stream/in-the-past", |c| {
        furnish(c);
        for back in 0..9 {
            let revision = c.revision() - back;
            c.range_stream(pb::RangeRequest { revision, ..list(c, "") });
        }
    });
    corpus.case("range-stream/of-many-keys", |c| {
        for index in 0..700 {
            let request = put(c, &format!("{index:03}"), &"v".repeat(index));
            c.put(request);
        }
        c.range_stream(list(c, ""));
        c.range_stream(pb::RangeRequest { limit: 600, ..list(c, "") });
    });
    corpus.alone("range-stream/compacted", &[], |c| {
        furnish(c);
        let compacted = c.revision() - 3;
        c.compact(compacted, true);
        for revision in [compacted - 1, compacted, compacted + 1] {
            c.range_stream(pb::RangeRequest { revision, ..list(c, "") });
        }
    });
}
