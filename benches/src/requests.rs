//! Requests as a client encodes them, fields in ascending order. Only what the kernels ask.

/// A `PutRequest` of a key and a value.
#[must_use]
pub fn put(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    push_bytes(&mut request, 1, key);
    push_bytes(&mut request, 2, value);
    request
}

/// A `WatchRequest` that creates a watcher of a key, or of a range if `range_end` is not empty.
#[must_use]
pub fn watch(key: &[u8], range_end: &[u8]) -> Vec<u8> {
    let mut create = Vec::new();
    push_bytes(&mut create, 1, key);
    if !range_end.is_empty() {
        push_bytes(&mut create, 2, range_end);
    }
    let mut request = Vec::new();
    push_bytes(&mut request, 1, &create);
    request
}

fn push_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    const LENGTH_DELIMITED: u8 = 2;
    out.push(field << 3 | LENGTH_DELIMITED);
    let mut rest = bytes.len();
    while rest >= 0x80 {
        out.push(0x80 | low_seven_bits(rest));
        rest >>= 7;
    }
    out.push(low_seven_bits(rest));
    out.extend_from_slice(bytes);
}

fn low_seven_bits(number: usize) -> u8 {
    u8::try_from(number & 0x7f).expect("seven bits fit a byte")
}
