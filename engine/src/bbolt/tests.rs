//! Files that are written and read back, and files that are damaged.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::backup::{DigestError, check_digest};
use super::check::{Summary, check};
use super::format::{ELEMENT_SIZE_BYTES, HEADER_SIZE_BYTES, INLINE_BYTES_MAX, PageHeader};
use super::*;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;
type Buckets = BTreeMap<Vec<u8>, Pairs>;

/// What is overwritten in a file, and where.
type Changes<'a> = &'a [(usize, &'a [u8])];

/// Numbers from a seed (xorshift64*), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// Buckets of every shape: none, small ones, some with long keys, some with values that overflow.
fn random_buckets(random: &mut Random) -> Buckets {
    let mut buckets = Buckets::new();
    for _ in 0..random.below(6) {
        let name_len = 1 + random.below(12);
        let count = [0, 1, 3, 40, 700][random.below(5)];
        let key_len_max = [3, 17, 400, 3000][random.below(4)];
        let value_len_max = [1, 60, 300, 2100, 9000][random.below(5)];
        let mut pairs = Pairs::new();
        for _ in 0..count {
            let (key_len, value_len) = (1 + random.below(key_len_max), random.below(value_len_max));
            pairs.insert(random.bytes(key_len), random.bytes(value_len));
        }
        buckets.insert(random.bytes(name_len), pairs);
    }
    buckets
}

/// The whole backup; measured and written must agree, or it panics.
fn backup(buckets: &Buckets) -> Vec<u8> {
    let mut measure = Measure::new();
    for (name, pairs) in buckets {
        measure.begin_bucket(name).unwrap();
        for (key, value) in pairs {
            measure.add(key.len(), value.len()).unwrap();
        }
    }
    let mut backup = Backup::new(measure.finish());
    let mut bytes = Vec::new();
    let mut drain = |backup: &mut Backup| {
        while let Some(chunk) = backup.poll_bytes() {
            bytes.extend_from_slice(&chunk);
        }
    };
    for (name, pairs) in buckets {
        backup.begin_bucket(name).unwrap();
        for (key, value) in pairs {
            backup.add(key, value).unwrap();
            drain(&mut backup);
        }
    }
    backup.finish();
    drain(&mut backup);
    assert_eq!(bytes.len() as u64, backup.size_bytes());
    bytes
}

fn read_back(file: &[u8]) -> Result<Buckets, ReadError> {
    let reader = Reader::open(file)?;
    let mut buckets = Buckets::new();
    let mut names = reader.buckets();
    while let Some((name, bucket)) = names.next_bucket()? {
        let mut pairs = Pairs::new();
        let mut walk = reader.walk(&bucket);
        while let Some((key, value)) = walk.next_pair()? {
            assert!(pairs.insert(key.to_vec(), value.to_vec()).is_none(), "key twice");
        }
        assert!(buckets.insert(name.to_vec(), pairs).is_none(), "bucket twice");
    }
    Ok(buckets)
}

/// The headers of all runs of pages, in the order of the file.
fn headers(file: &[u8]) -> Vec<PageHeader> {
    let mut headers = Vec::new();
    let mut page = 0;
    while (page + 1) * PAGE_SIZE_BYTES <= file.len() {
        let header = PageHeader::from_bytes(&file[page * PAGE_SIZE_BYTES..]);
        assert_eq!(header.page, page as u64);
        page += 1 + header.overflow as usize;
        headers.push(header);
    }
    headers
}

const BRANCH: u16 = format::PageKind::Branch as u16;

fn one_bucket(pairs: Pairs) -> Buckets {
    Buckets::from([(b"b".to_vec(), pairs)])
}

#[test]
fn whatever_is_written_is_read_and_sound() {
    for seed in 0..150 {
        let buckets = random_buckets(&mut Random::new(seed));
        let file = backup(&buckets);
        check_digest(&file.as_slice()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let found = read_back(&file).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(found == buckets, "seed {seed}: read something else");
        let summary = check(&Reader::open(file.as_slice()).unwrap()).unwrap();
        let pairs = buckets.values().map(|pairs| pairs.len() as u64).sum();
        let expected = Summary { buckets: buckets.len() as u64, pairs, pages_free: 0 };
        assert_eq!(summary, expected, "seed {seed}");
    }
}

/// bbolt panics when it merges below a branch that has one child only.
#[test]
fn no_branch_has_a_single_child() {
    let mut branches = 0;
    for key_len in [2, 100, 700, 1400, 2100, 5000, KEY_BYTES_MAX] {
        // Beside every count around where a level gets its second and third branch.
        for count in 1..60_u16 {
            let key = |index: u16| [&index.to_be_bytes()[..], &vec![7; key_len - 2]].concat();
            let pairs = (0..count).map(|index| (key(index), vec![1; 2000])).collect();
            let buckets = one_bucket(pairs);
            let file = backup(&buckets);
            let found = headers(&file);
            let few = found.iter().find(|header| header.kind_flags == BRANCH && header.count < 2);
            assert_eq!(few, None, "{count} keys of {key_len} bytes");
            branches += found.iter().filter(|header| header.kind_flags == BRANCH).count();
            assert!(read_back(&file).unwrap() == buckets, "{count} keys of {key_len} bytes");
            check(&Reader::open(file.as_slice()).unwrap()).unwrap();
        }
    }
    assert!(branches > 1000, "{branches} branches are too few to say");
}

#[test]
fn a_branch_that_waits_gives_one_child_to_a_neighbour_alone() {
    let element_bytes = ELEMENT_SIZE_BYTES + 17;
    let children_max = (PAGE_SIZE_BYTES - HEADER_SIZE_BYTES) / element_bytes;
    let branch_counts = |leaves: usize| -> Vec<usize> {
        let key = |index: usize| [&index.to_be_bytes()[..], &[b'_'; 9]].concat();
        // Four pairs fill a leaf.
        let pairs = (0..4 * leaves).map(|index| (key(index), vec![1; 950])).collect();
        let file = backup(&one_bucket(pairs));
        let found = headers(&file);
        let branches = found.iter().filter(|header| header.kind_flags == BRANCH);
        branches.map(|header| usize::from(header.count)).collect()
    };
    assert_eq!(branch_counts(children_max), [children_max]);
    assert_eq!(branch_counts(children_max + 1), [children_max - 1, 2, 2]);
    assert_eq!(branch_counts(children_max + 2), [children_max, 2, 2]);
}

/// Whatever the size of the pairs, little of the file is empty.
#[test]
fn pages_of_large_pairs_are_shared() {
    for value_len in [300, 1_000, 2_100, 3_000, 4_096, 4_200, 9_000, 30_000, 100_000] {
        let key = |index: u32| index.to_be_bytes().to_vec();
        let pairs: Pairs = (0..400).map(|index| (key(index), vec![1; value_len])).collect();
        let buckets = one_bucket(pairs);
        let file = backup(&buckets);
        let content = 400 * (value_len + 4 + ELEMENT_SIZE_BYTES);
        let size = file.len();
        assert!(size * 2 < content * 3, "{size} bytes for pairs of {value_len}, {content}");
        assert!(read_back(&file).unwrap() == buckets, "pairs of {value_len}");
        check(&Reader::open(file.as_slice()).unwrap()).unwrap();
    }
}

#[test]
fn a_bucket_moves_out_of_its_parent_beyond_a_quarter_page() {
    let value_len = INLINE_BYTES_MAX - HEADER_SIZE_BYTES - ELEMENT_SIZE_BYTES - 1;
    for (value_len, pages) in [(value_len, 4), (value_len + 1, 5)] {
        let buckets = one_bucket(Pairs::from([(b"k".to_vec(), vec![1; value_len])]));
        let file = backup(&buckets);
        assert_eq!(Reader::open(file.as_slice()).unwrap().page_count(), pages);
        assert!(read_back(&file).unwrap() == buckets);
    }
}

#[test]
fn a_page_is_filled_to_its_last_byte() {
    let value_len = PAGE_SIZE_BYTES - HEADER_SIZE_BYTES - ELEMENT_SIZE_BYTES - 1;
    for (value_len, overflow) in [(value_len, 0), (value_len + 1, 1)] {
        let file = backup(&one_bucket(Pairs::from([(b"k".to_vec(), vec![1; value_len])])));
        assert_eq!(headers(&file)[3].overflow, overflow);
    }
}

#[test]
fn lengths_that_bbolt_refuses_are_refused() {
    let mut measure = Measure::new();
    assert_eq!(measure.begin_bucket(b""), Err(LengthError::KeyEmpty));
    measure.begin_bucket(b"b").unwrap();
    let (key_max, value_max) = (KEY_BYTES_MAX, VALUE_BYTES_MAX);
    assert_eq!(measure.add(0, 1), Err(LengthError::KeyEmpty));
    assert_eq!(measure.add(key_max + 1, 1), Err(LengthError::KeyTooLong(key_max + 1)));
    assert_eq!(measure.add(1, value_max + 1), Err(LengthError::ValueTooLong(value_max + 1)));
    assert_eq!(measure.add(key_max, value_max), Ok(()));
    let mut writer = Writer::new();
    writer.begin_bucket(b"b").unwrap();
    assert_eq!(writer.add(b"", b"v"), Err(LengthError::KeyEmpty));
    let key = vec![1; key_max + 1];
    assert_eq!(writer.add(&key, b"v"), Err(LengthError::KeyTooLong(key_max + 1)));
}

#[test]
fn files_beyond_4_gib_are_measured() {
    let mut measure = Measure::new();
    measure.begin_bucket(b"key").unwrap();
    // One pair a leaf, of 257 pages.
    for _ in 0..20_000 {
        measure.add(17, 1 << 20).unwrap();
    }
    let totals = measure.finish();
    assert!(totals.size_bytes() > 20_000 << 20);
    // Leaves; then 123 children to a branch of 33 bytes each: 163 branches, 2 above, 1, the root.
    assert_eq!(totals.page_count, 3 + 20_000 * 257 + 163 + 2 + 1 + 1);
    assert_eq!(totals.root, totals.page_count - 1);
}

#[test]
fn the_newer_whole_meta_page_counts() {
    let file = backup(&one_bucket(Pairs::from([(b"k".to_vec(), b"v".to_vec())])));
    let open = |file: &[u8]| Reader::open(file).map(|reader| reader.transaction());
    assert_eq!(open(&file).unwrap(), 2);
    let mut torn = file.clone();
    torn[20] ^= 1;
    assert_eq!(open(&torn).unwrap(), 1, "page 0 is torn, page 1 is found without it");
    torn[PAGE_SIZE_BYTES + 70] ^= 1;
    let error = open(&torn).unwrap_err().to_string();
    assert_eq!(error, "page 0: the format's version is not 2");
    let short = &file[..file.len() - DIGEST_SIZE_BYTES - 1];
    let error = open(short).unwrap_err().to_string();
    assert_eq!(error, "page 0: it counts more pages than the file has");
    assert_eq!(
        open(&[]).unwrap_err().to_string(),
        "page 0: the file is too short for two meta pages"
    );
    let garbage = vec![0x5a; 3 * PAGE_SIZE_BYTES];
    let error = open(&garbage).unwrap_err().to_string();
    assert_eq!(error, "page 0: it does not begin with bbolt's magic number");
}

/// A file with branches, overflow and buckets in place, and the rule that one change breaks.
#[test]
fn each_kind_of_damage_is_named() {
    let key = |index: u32| index.to_be_bytes().to_vec();
    let pairs: Pairs =
        (0..500).map(|index| (key(index), vec![index.to_le_bytes()[0]; 50])).collect();
    let small = Pairs::from([(b"k".to_vec(), b"v".to_vec())]);
    let large = Pairs::from([(b"k".to_vec(), vec![1; 3 * PAGE_SIZE_BYTES])]);
    let buckets = Buckets::from([
        (b"large".to_vec(), large),
        (b"many".to_vec(), pairs),
        (b"small".to_vec(), small),
    ]);
    let file = backup(&buckets);
    let found = headers(&file);
    let (large, leaf) = (3 * PAGE_SIZE_BYTES, 7 * PAGE_SIZE_BYTES);
    let branch = found.iter().find(|header| header.kind_flags == BRANCH).unwrap();
    let (branch, [children, _]) = (branch.page, branch.count.to_le_bytes());
    let branch_at = usize::try_from(branch).unwrap() * PAGE_SIZE_BYTES;
    let free_list = 2 * PAGE_SIZE_BYTES;
    let second_leaf = leaf + PAGE_SIZE_BYTES;
    let second_key = second_leaf
        + HEADER_SIZE_BYTES
        + file[second_leaf + 20] as usize
        + 256 * file[second_leaf + 21] as usize;
    let named = |changes: Changes<'_>| {
        let mut bad = file.clone();
        for (at, bytes) in changes {
            bad[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        let result = Reader::open(bad.as_slice()).and_then(|reader| check(&reader));
        result.map(|_| ()).map_err(|error| error.to_string())
    };
    let cases: &[(Changes<'_>, String)] = &[
        (&[(leaf, &[9])], "page 7: another page's number is in the header".to_owned()),
        (&[(leaf + 8, &[4])], "page 7: the page is of a kind that does not belong here".to_owned()),
        (&[(leaf + 10, &[0xff, 0xff])], "page 7: the elements do not fit into the page".to_owned()),
        (&[(leaf + 12, &[200])], "page 7: the page overflows beyond the pages in use".to_owned()),
        (&[(leaf + 12, &[1])], "page 8: the page is reached twice".to_owned()),
        (
            &[(large + 12, &[1])],
            "page 3, element 0: a key or a value lies outside the page".to_owned(),
        ),
        (
            &[(branch_at + 10, &[children - 1])],
            format!("page {}: the page is neither in use nor on the free list", branch - 1),
        ),
        (&[(leaf + 16, &[2])], "page 7, element 0: an element's flags are unknown".to_owned()),
        (&[(leaf + 16, &[1])], "page 7, element 0: a bucket stands in a bucket".to_owned()),
        (
            &[(leaf + 20, &[1])],
            "page 7, element 0: a key or a value lies outside the page".to_owned(),
        ),
        (&[(leaf + 24, &[0])], "page 7, element 0: a key is empty".to_owned()),
        (
            &[(leaf + 24, &[0xff; 4])],
            "page 7, element 0: a key or a value lies outside the page".to_owned(),
        ),
        (&[(branch_at + 10, &[0, 0])], format!("page {branch}: a branch has no children")),
        (
            &[(branch_at + 24, &branch.to_le_bytes())],
            format!("page {branch}: the page is reached twice"),
        ),
        (
            &[(branch_at + 24, &[0xff; 8])],
            format!("page {}: the number lies outside the pages in use", u64::MAX),
        ),
        (
            &[(branch_at + 24, &[8])],
            "page 8, element 0: a key is not below the next one in a branch above".to_owned(),
        ),
        (
            &[(second_key, &[0; 4])],
            "page 8, element 0: a key is below the page's own in the branch above".to_owned(),
        ),
        (
            &[(second_key, &[0xff; 4])],
            "page 8, element 0: a key is not below the next one in a branch above".to_owned(),
        ),
        (
            &[(second_key + 50 + 4, &[0; 4])],
            "page 8, element 1: a key is not above the one before it".to_owned(),
        ),
        (
            &[(free_list + 8, &[2])],
            "page 2: the page is of a kind that does not belong here".to_owned(),
        ),
        (
            &[(free_list + 10, &[0xff, 0xff, 0, 0, 0, 0, 1, 2])],
            "page 2: the elements do not fit into the page".to_owned(),
        ),
        (
            &[(free_list + 10, &[1, 0, 0, 0, 0, 0, 7])],
            "page 7: the page is in use and on the free list".to_owned(),
        ),
        (
            &[(free_list + 10, &[1, 0, 0, 0, 0, 0, 0, 1])],
            "page 256: the number lies outside the pages in use".to_owned(),
        ),
    ];
    assert_eq!(named(&[]), Ok(()));
    let mut circle = file.clone();
    // With more than one child the bounds find it sooner.
    circle[branch_at + 10] = 1;
    circle[branch_at + 24..branch_at + 32].copy_from_slice(&branch.to_le_bytes());
    let error = read_back(&circle).unwrap_err().to_string();
    assert_eq!(error, format!("page {branch}: the tree leads in a circle"), "without the proof");
    for (changes, expected) in cases {
        assert_eq!(named(changes), Err(expected.clone()), "{changes:?}");
    }
}

/// Whatever the damage, reading ends without a panic; what it costs is an error, or pairs that
/// differ, never pairs out of order.
#[test]
fn no_damage_makes_the_reader_panic() {
    let (mut refused, mut read) = (0, 0);
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let good = backup(&random_buckets(&mut random));
        for round in 0..60 {
            let mut bad = good.clone();
            for _ in 0..=random.below(4) {
                // Mostly where a page begins: the rest is keys and values.
                let page = random.below(bad.len() / PAGE_SIZE_BYTES) * PAGE_SIZE_BYTES;
                let reach = [80, 80, PAGE_SIZE_BYTES][random.below(3)];
                let at = page + random.below(reach);
                bad[at] = match random.below(3) {
                    0 => bad[at] ^ 1 << random.below(8),
                    1 => 0xff,
                    _ => random.next().to_le_bytes()[0],
                };
            }
            if random.below(8) == 0 {
                bad.truncate(random.below(bad.len()));
            }
            let result = catch_unwind(AssertUnwindSafe(|| {
                let checked = Reader::open(bad.as_slice()).and_then(|reader| check(&reader));
                (read_back(&bad).is_err(), checked.is_err())
            }));
            let (is_refused, fails_check) =
                result.unwrap_or_else(|_| panic!("seed {seed}, round {round}: a panic"));
            assert!(
                fails_check || !is_refused,
                "seed {seed}, round {round}: the proof is too mild"
            );
            if fails_check {
                refused += 1;
            } else {
                read += 1;
            }
            if bad != good {
                let is_vouched_for = check_digest(&bad.as_slice()).is_ok();
                assert!(!is_vouched_for, "seed {seed}, round {round}: the digest covers less");
            }
        }
    }
    assert!(refused > 500 && read > 100, "{refused} refused, {read} read: the damage is one-sided");
}

/// A file of which only some pages were thought of; the rest is zeros.
struct Sparse {
    page_count: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Source for Sparse {
    fn size_bytes(&self) -> u64 {
        self.page_count * PAGE_SIZE_BYTES as u64
    }

    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let first = offset_bytes / PAGE_SIZE_BYTES as u64;
        for (page, part) in (first..).zip(buffer.chunks_mut(PAGE_SIZE_BYTES)) {
            match self.pages.get(&page) {
                Some(bytes) => part.copy_from_slice(&bytes[..part.len()]),
                None => part.fill(0),
            }
        }
        Ok(())
    }
}

#[test]
fn pages_beyond_4_gib_are_read_and_runs_beyond_1_gib_are_not() {
    // 16 GiB and some; the root is the last page.
    let root = 1 << 22;
    let page_count = root + 1;
    let front = front(Totals { page_count, root });
    let mut pages: BTreeMap<u64, Vec<u8>> =
        (0..).zip(front.chunks(PAGE_SIZE_BYTES).map(<[u8]>::to_vec)).collect();
    let small = backup(&one_bucket(Pairs::from([(b"k".to_vec(), b"v".to_vec())])));
    let mut root_page = small[3 * PAGE_SIZE_BYTES..][..PAGE_SIZE_BYTES].to_vec();
    root_page[..8].copy_from_slice(&root.to_le_bytes());
    pages.insert(root, root_page);
    let reader = Reader::open(Sparse { page_count, pages: pages.clone() }).unwrap();
    let bucket = reader.bucket(b"b").unwrap().unwrap();
    assert_eq!(reader.walk(&bucket).next_pair().unwrap(), Some((&b"k"[..], &b"v"[..])));
    // A header in the middle that says the page goes on for 1 GiB.
    let long = PageHeader { page: 9, kind_flags: 2, count: 0, overflow: 1 << 18 };
    let mut long_page = long.to_bytes().to_vec();
    long_page.resize(PAGE_SIZE_BYTES, 0);
    pages.insert(9, long_page);
    let bucket = Bucket { place: reader::Place::Root(9), sequence: 0 };
    let reader = Reader::open(Sparse { page_count, pages }).unwrap();
    let error = reader.walk(&bucket).next_pair().unwrap_err().to_string();
    assert_eq!(error, "page 9: the page overflows further than any pair needs");
}

/// A free list so long that its count does not fit into the header.
#[test]
fn a_long_free_list_is_read() {
    let free_count: u64 = 70_000;
    let list_pages = (16 + 8 + free_count * 8).div_ceil(PAGE_SIZE_BYTES as u64);
    let root = 2 + list_pages;
    let page_count = root + 1 + free_count;
    let overflow = u32::try_from(list_pages - 1).unwrap();
    let header = PageHeader { page: 2, kind_flags: 0x10, count: 0xffff, overflow };
    let mut list = header.to_bytes().to_vec();
    list.extend_from_slice(&free_count.to_le_bytes());
    for page in root + 1..page_count {
        list.extend_from_slice(&page.to_le_bytes());
    }
    list.resize(list.len().next_multiple_of(PAGE_SIZE_BYTES), 0);
    let summary = |list: &[u8]| {
        let mut root_page =
            PageHeader { page: root, kind_flags: 2, count: 0, overflow: 0 }.to_bytes().to_vec();
        root_page.resize(PAGE_SIZE_BYTES, 0);
        let front = front(Totals { page_count, root });
        let front = front.chunks(PAGE_SIZE_BYTES).take(2);
        let run = front.chain(list.chunks(PAGE_SIZE_BYTES)).chain([root_page.as_slice()]);
        let pages = (0..).zip(run.map(<[u8]>::to_vec)).collect();
        check(&Reader::open(Sparse { page_count, pages }).unwrap()).map_err(|e| e.to_string())
    };
    assert_eq!(summary(&list), Ok(Summary { buckets: 0, pairs: 0, pages_free: free_count }));
    list[24] += 1;
    let twice = format!("page {}: the page is on the free list twice", root + 2);
    assert_eq!(summary(&list), Err(twice));
}

#[test]
fn the_front_may_be_written_last() {
    let buckets = random_buckets(&mut Random::new(4));
    let mut writer = Writer::new();
    for (name, pairs) in &buckets {
        writer.begin_bucket(name).unwrap();
        for (key, value) in pairs {
            writer.add(key, value).unwrap();
        }
    }
    let totals = writer.finish();
    let mut pages = Vec::new();
    while let Some(more) = writer.poll_pages() {
        pages.extend_from_slice(&more);
    }
    let backup = backup(&buckets);
    let (file, _) = backup.split_at(backup.len() - DIGEST_SIZE_BYTES);
    assert!([front(totals), pages].concat() == file);
}

#[test]
fn a_digest_is_told_from_a_file_without_one() {
    let mut file = backup(&Buckets::new());
    assert_eq!(Envelope::of(file.len() as u64).file_bytes, 4 * PAGE_SIZE_BYTES as u64);
    file.truncate(4 * PAGE_SIZE_BYTES);
    assert!(matches!(check_digest(&file.as_slice()), Err(DigestError::Missing)));
    assert!(read_back(&file).unwrap().is_empty(), "a copy without a digest is read all the same");
}

#[test]
#[should_panic(expected = "differs from the one that measured")]
fn a_second_walk_that_differs_is_our_mistake() {
    let mut backup = Backup::new(Measure::new().finish());
    backup.begin_bucket(b"b").unwrap();
    backup.add(b"k", &[0; 5000]).unwrap();
    backup.finish();
}
