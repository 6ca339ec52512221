//! All keys of a range, read page by page at one revision.

use crate::client::blocking::Blocking;
use crate::failure::Failure;
use crate::proto::{self, KeyValue, RangeAnswer, RangeRequest};

const PAGE_KEYS: u64 = 1000;

/// Shows `visit` every page from a key on: the revision it came with, and its keys. All pages are
/// read at the first one's revision.
pub fn read_pages(
    client: &mut Blocking,
    mut key: Vec<u8>,
    range_end: &[u8],
    mut visit: impl FnMut(u64, &[KeyValue<'_>]),
) -> Result<(), Failure> {
    let malformed = |_| Failure::new("a page of the drill's keys is malformed");
    let mut revision = 0;
    loop {
        let mut request = Vec::new();
        let range =
            RangeRequest { key: &key, range_end, limit: PAGE_KEYS, revision, serializable: false };
        proto::write_range(&mut request, &range);
        let answer = client.call(proto::RANGE, &request)?;
        let page = RangeAnswer::read(&answer).map_err(malformed)?;
        if revision == 0 {
            revision = page.revision;
        }
        let kvs = page.kvs().collect::<Result<Vec<KeyValue<'_>>, _>>().map_err(malformed)?;
        visit(page.revision, &kvs);
        match kvs.last() {
            Some(last) if page.more => key = [last.key, &[0]].concat(),
            _ => return Ok(()),
        }
    }
}
