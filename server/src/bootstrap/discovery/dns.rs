//! DNS messages, as far as a question for SRV records needs them (RFC 1035, 2782, 6891).
//!
//! An own codec, because what there is for it brings a runtime or two dozen crates, and this is one
//! question and one kind of record.
//!
//! Invariants:
//! - Reading never panics and always ends: a compressed name only points backwards.
//! - An answer to another question is no answer.

/// The type of SRV records.
pub const TYPE_SRV: u16 = 33;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;
const HEAD_SIZE_BYTES: usize = 12;
const LABEL_BYTES_MAX: usize = 63;
/// A name's text without the dot at its end (RFC 1035, 2.3.4).
const NAME_BYTES_MAX: usize = 253;
/// What fits into one packet on any path, and what resolvers have agreed to send.
pub const ANSWER_BYTES_MAX: u16 = 1232;
/// Steps from pointer to pointer in one name.
const POINTERS_MAX: u32 = 64;

/// A name that cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError;

/// A server that offers a service (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SrvRecord {
    /// Lower comes first.
    pub priority: u16,
    /// Its share among those of one priority.
    pub weight: u16,
    /// The server's port.
    pub port: u16,
    /// The server's name, with the dot at its end.
    pub target: String,
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsAnswer {
    /// These; possibly none.
    Records(Vec<SrvRecord>),
    /// There is no such name.
    NoName,
    /// More than fits here: it has to be asked over TCP.
    Truncated,
    /// It does not understand the question's extension.
    NoExtension,
    /// It cannot answer, with this code.
    Refused(u8),
}

/// A question for the SRV records of a name, with or without the extension for longer answers.
///
/// # Errors
/// The name has an empty or too long part, or is too long.
pub fn question(id: u16, name: &str, has_extension: bool) -> Result<Vec<u8>, NameError> {
    let mut bytes = Vec::with_capacity(HEAD_SIZE_BYTES + name.len() + 17);
    bytes.extend(id.to_be_bytes());
    // A standard question; recursion is desired.
    bytes.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, u8::from(has_extension)]);
    put_name(&mut bytes, name)?;
    bytes.extend(TYPE_SRV.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    if has_extension {
        bytes.push(0);
        bytes.extend(TYPE_OPT.to_be_bytes());
        bytes.extend(ANSWER_BYTES_MAX.to_be_bytes());
        bytes.extend([0; 6]);
    }
    Ok(bytes)
}

fn put_name(bytes: &mut Vec<u8>, name: &str) -> Result<(), NameError> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(NameError);
    }
    for label in name.split('.') {
        let len = u8::try_from(label.len()).map_err(|_| NameError)?;
        if len == 0 || label.len() > LABEL_BYTES_MAX {
            return Err(NameError);
        }
        bytes.push(len);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    Ok(())
}

/// Reads the answer to a question. `None` if it is none to this question, or damaged.
#[must_use]
pub fn read_answer(message: &[u8], question: &[u8]) -> Option<DnsAnswer> {
    let mut reader = Reader { message, at: 0 };
    let id = reader.take(2)?;
    let [flags, code] = *reader.take(2)?.first_chunk::<2>()?;
    let [questions, answers] = [reader.half()?, reader.half()?];
    reader.take(4)?;
    let is_answer = flags & 0x80 != 0 && flags & 0x78 == 0;
    if id != question.get(..2)? || !is_answer {
        return None;
    }
    let (is_truncated, code) = (flags & 0x02 != 0, code & 0x0f);
    match code {
        0 => {}
        // Servers that know no extension leave even the question out.
        1 | 4 => return Some(DnsAnswer::NoExtension),
        3 if is_same_question(&mut reader, questions, question)? => return Some(DnsAnswer::NoName),
        3 => return None,
        _ => return Some(DnsAnswer::Refused(code)),
    }
    if !is_same_question(&mut reader, questions, question)? {
        return None;
    }
    if is_truncated {
        return Some(DnsAnswer::Truncated);
    }
    let mut records = Vec::new();
    for _ in 0..answers {
        reader.name()?;
        let (kind, class) = (reader.half()?, reader.half()?);
        reader.take(4)?;
        let len = usize::from(reader.half()?);
        let end = reader.at.checked_add(len).filter(|end| *end <= message.len())?;
        if (kind, class) == (TYPE_SRV, CLASS_IN) {
            let [priority, weight, port] = [reader.half()?, reader.half()?, reader.half()?];
            let target = reader.name()?;
            if reader.at != end {
                return None;
            }
            records.push(SrvRecord { priority, weight, port, target });
        }
        reader.at = end;
    }
    Some(DnsAnswer::Records(records))
}

/// Servers repeat the question; its name may come back in other letters' cases.
fn is_same_question(reader: &mut Reader<'_>, count: u16, question: &[u8]) -> Option<bool> {
    let mut asked = Reader { message: question, at: HEAD_SIZE_BYTES };
    if count != 1 {
        return Some(false);
    }
    let same_name = asked.name()?.eq_ignore_ascii_case(&reader.name()?);
    Some(same_name && asked.take(4)? == reader.take(4)?)
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.message.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn half(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// A name, with the dot at its end.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut at = self.at;
        let mut after = None;
        let mut pointers = 0;
        loop {
            let len = usize::from(*self.message.get(at)?);
            match len {
                0 => {
                    self.at = after.unwrap_or(at + 1);
                    return Some(if name.is_empty() { ".".to_owned() } else { name });
                }
                1..=LABEL_BYTES_MAX => {
                    let label = self.message.get(at + 1..at + 1 + len)?;
                    // A dot inside of a label, or what is no text, would make another name of it.
                    let is_plain =
                        label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
                    if !is_plain || name.len() + len > NAME_BYTES_MAX {
                        return None;
                    }
                    name.push_str(str::from_utf8(label).ok()?);
                    name.push('.');
                    at += 1 + len;
                }
                0xc0.. => {
                    let low = usize::from(*self.message.get(at + 1)?);
                    let target = (len & 0x3f) << 8 | low;
                    after = after.or(Some(at + 2));
                    pointers += 1;
                    if target >= at || pointers > POINTERS_MAX {
                        return None;
                    }
                    at = target;
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "_etcd-server._tcp.example.com";

    fn answer_to(question: &[u8], flags: [u8; 2], records: &[u8], count: u8) -> Vec<u8> {
        // Everything up to the end of the question, without its extension.
        let end = HEAD_SIZE_BYTES + NAME.len() + 2 + 4;
        let mut bytes = question[..end].to_vec();
        bytes[2..4].copy_from_slice(&flags);
        bytes[7] = count;
        bytes[11] = 0;
        bytes.extend_from_slice(records);
        bytes
    }

    /// A record of the question's name: the target is `label` in front of `example.com`.
    fn record(priority: u8, port: u8, label: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0];
        let len = 6 + 1 + label.len() + 2;
        bytes.push(u8::try_from(len).unwrap());
        bytes.extend([0, priority, 0, 5, 0, port, u8::try_from(label.len()).unwrap()]);
        bytes.extend_from_slice(label);
        // Behind "_etcd-server" and "_tcp".
        bytes.extend([0xc0, 12 + 13 + 5]);
        bytes
    }

    #[test]
    fn golden_bytes_of_the_question() {
        let mut golden = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01".to_vec();
        golden.extend(b"\x0c_etcd-server\x04_tcp\x07example\x03com\x00\x00\x21\x00\x01");
        golden.extend(b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00");
        assert_eq!(question(0x1234, NAME, true), Ok(golden.clone()));
        assert_eq!(question(0x1234, &format!("{NAME}."), true), Ok(golden));
        let long = "a.".repeat(127);
        let label = "a".repeat(64);
        let names = [label.as_str(), "a..b", "", ".", &long, ".a"];
        for name in names {
            let expected = if name.len() == 254 { Ok(()) } else { Err(NameError) };
            assert_eq!(question(1, name, false).map(drop), expected, "{name}");
        }
    }

    #[test]
    fn records_are_read_with_their_compressed_names() {
        let question = question(7, NAME, true).unwrap();
        let mut records = record(1, 80, b"infra0");
        // A record of another type is skipped.
        records.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 12]);
        records.extend(record(2, 81, b"infra1"));
        let answer = answer_to(&question, [0x81, 0x80], &records, 3);
        let expected = |priority, port, target: &str| SrvRecord {
            priority,
            weight: 5,
            port,
            target: target.to_owned(),
        };
        assert_eq!(
            read_answer(&answer, &question),
            Some(DnsAnswer::Records(vec![
                expected(1, 80, "infra0.example.com."),
                expected(2, 81, "infra1.example.com."),
            ]))
        );
        for end in 0..answer.len() {
            assert_eq!(read_answer(&answer[..end], &question), None, "{end}");
        }
    }

    #[test]
    fn codes_and_other_answers() {
        let asked = question(7, NAME, false).unwrap();
        let read = |flags| read_answer(&answer_to(&asked, flags, &[], 0), &asked);
        assert_eq!(read([0x81, 0x80]), Some(DnsAnswer::Records(vec![])));
        assert_eq!(read([0x81, 0x83]), Some(DnsAnswer::NoName));
        assert_eq!(read([0x83, 0x80]), Some(DnsAnswer::Truncated));
        assert_eq!(read([0x81, 0x81]), Some(DnsAnswer::NoExtension));
        assert_eq!(read([0x81, 0x82]), Some(DnsAnswer::Refused(2)));
        // A question is no answer, nor is one to another id, or to another name.
        assert_eq!(read([0x01, 0x00]), None);
        let mut other = answer_to(&asked, [0x81, 0x80], &[], 0);
        other[1] ^= 1;
        assert_eq!(read_answer(&other, &asked), None);
        let mut other = answer_to(&asked, [0x81, 0x83], &[], 0);
        other[14] ^= 1;
        assert_eq!(read_answer(&other, &asked), None);
        let mut shouted = answer_to(&asked, [0x81, 0x80], &[], 0);
        shouted[14] = b'E';
        assert_eq!(read_answer(&shouted, &asked), Some(DnsAnswer::Records(vec![])));
    }

    #[test]
    fn hostile_answers_end() {
        let asked = question(7, NAME, false).unwrap();
        // A name that points to itself, and one that points ahead.
        for target in [47, 60] {
            let records = [0xc0, target, 0, 33, 0, 1, 0, 0, 0, 60, 0, 0];
            let answer = answer_to(&asked, [0x81, 0x80], &records, 1);
            assert_eq!(read_answer(&answer, &asked), None);
        }
        assert_eq!(
            read_answer(&answer_to(&asked, [0x81, 0x80], &record(1, 1, b"a.b"), 1), &asked),
            None
        );
        let sound = answer_to(&asked, [0x81, 0x80], &record(1, 1, b"ab"), 1);
        for at in 0..sound.len() {
            for bit in 0..8 {
                let mut flipped = sound.clone();
                flipped[at] ^= 1 << bit;
                drop(read_answer(&flipped, &asked));
            }
        }
    }
}
