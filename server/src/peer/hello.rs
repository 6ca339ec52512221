//! How a connection between members begins.
//!
//! The side that dials sends [`PREFACE`], whose first byte no HTTP request can begin with, and then
//! a frame with its [`Hello`]. The other side answers with a [`Welcome`], which names the version
//! that both speak, or with a [`Refusal`] and the end of the connection.
//!
//! Layouts are little-endian. They are the one part of the protocol that never changes: members of
//! any two versions have to understand why they do not understand each other. So a longer body is
//! taken, and what it has more is skipped.
//!
//! ```text
//! Hello    version_min u16, version_max u16, lane u8, three zero bytes, cluster u64, from u64,
//!          to u64, boot nonce u64, length u16 and text of the server's version, count u16 of its
//!          peer URLs, of each length u16 and text
//! Welcome  version u16, six zero bytes, member u64, boot nonce u64, length u16 and text of the
//!          server's version
//! Refusal  reason u8, zero byte, version_min u16, version_max u16, two zero bytes, id u64
//! ```

use std::fmt;

use engine::ids::{ClusterId, MemberId};

use super::frame::{FrameKind, FrameWriter, HELLO_BODY_SIZE_BYTES_MAX, OutFrame};
use super::layout::Reader;

/// What opens a connection: not text, not TLS, not HTTP, and damaged by whatever turns line ends.
pub const PREFACE: [u8; 8] = *b"\x93RINGD\r\n";

/// The versions of the protocol that this program speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };

/// The longest text of a server's version that is sent or kept.
const SERVER_VERSION_SIZE_BYTES_MAX: usize = 64;

/// Peer URLs that are sent or kept of a sender.
const PEER_URLS_MAX: usize = 8;
/// The longest of them that is sent or kept.
const PEER_URL_SIZE_BYTES_MAX: usize = 256;

// A hello with all of it fits its frame.
const _: () = assert!(
    64 + SERVER_VERSION_SIZE_BYTES_MAX + PEER_URLS_MAX * (2 + PEER_URL_SIZE_BYTES_MAX)
        <= HELLO_BODY_SIZE_BYTES_MAX
);

/// Whose connection it is that begins with these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// A member's.
    Peer,
    /// Not a member's: HTTP, or nonsense that HTTP's parser will name.
    Http,
}

/// Tells a member's connection by what has come of its first bytes; `None` while nothing has.
#[must_use]
pub fn sniff(received: &[u8]) -> Option<Opening> {
    let first = received.first()?;
    Some(if *first == PREFACE[0] { Opening::Peer } else { Opening::Http })
}

/// A range of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest that is spoken.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl Versions {
    /// The newest version of both, if there is one.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// What a connection is for. What it is not for is refused on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Whatever is small and must not wait: heartbeats, votes, read rounds, append answers, leases.
    Control = 0,
    /// Appends and forwarded batches.
    Bulk = 1,
    /// A raft snapshot, and its acknowledgements the other way.
    Snapshot = 2,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 3] = [Self::Control, Self::Bulk, Self::Snapshot];

    /// The lane's place in tables.
    #[must_use]
    pub const fn place(self) -> usize {
        self as usize
    }
}

/// Something that is no hello, no welcome or no refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelloError {
    /// What is wrong with it.
    pub reason: &'static str,
}

impl fmt::Display for HelloError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.reason)
    }
}

impl std::error::Error for HelloError {}

/// Who dials whom, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// What the sender speaks.
    pub versions: Versions,
    /// What the connection is for.
    pub lane: Lane,
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sender.
    pub from: MemberId,
    /// Whom it means to speak to.
    pub to: MemberId,
    /// Drawn when the sender started.
    pub boot_nonce: u64,
    /// The sender's program, for logs and for cluster versions.
    pub server_version: String,
    /// Where the sender is reached: a member that has not heard yet that the sender is one, too,
    /// can answer it all the same.
    pub peer_urls: Vec<String>,
}

impl Hello {
    /// The frame that follows [`PREFACE`].
    #[must_use]
    pub fn encode(&self) -> OutFrame {
        let mut writer = FrameWriter::new(FrameKind::Hello);
        writer.put(&self.versions.min.to_le_bytes());
        writer.put(&self.versions.max.to_le_bytes());
        writer.put(&[self.lane as u8, 0, 0, 0]);
        for word in [self.cluster.0, self.from.0, self.to.0, self.boot_nonce] {
            writer.put(&word.to_le_bytes());
        }
        put_version(&mut writer, &self.server_version);
        // A URL that is longer than any that is dialed is of no use cut off.
        let is_short = |url: &&String| url.len() <= PEER_URL_SIZE_BYTES_MAX;
        let urls: Vec<_> = self.peer_urls.iter().filter(is_short).take(PEER_URLS_MAX).collect();
        let half = |len: usize| u16::try_from(len).expect("both bounds are small").to_le_bytes();
        writer.put(&half(urls.len()));
        for url in urls {
            writer.put(&half(url.len()));
            writer.put(url.as_bytes());
        }
        writer.finish()
    }

    /// Reads a hello.
    ///
    /// # Errors
    /// It is too short, or names a lane that there is not.
    pub fn decode(body: &[u8]) -> Result<Self, HelloError> {
        const SHORT: HelloError = HelloError { reason: "a hello is too short" };
        let mut reader = Reader::new(body);
        let min = reader.half().ok_or(SHORT)?;
        let max = reader.half().ok_or(SHORT)?;
        let lane = reader.byte().ok_or(SHORT)?;
        reader.take(3).ok_or(SHORT)?;
        let mut word = || reader.word().ok_or(SHORT);
        let (cluster, from, to, boot_nonce) = (word()?, word()?, word()?, word()?);
        let lane = Lane::ALL.into_iter().find(|known| *known as u8 == lane);
        let server_version = version(&mut reader).ok_or(SHORT)?;
        Ok(Self {
            versions: Versions { min, max },
            lane: lane.ok_or(HelloError { reason: "a hello for an unknown kind of connection" })?,
            cluster: ClusterId(cluster),
            from: MemberId(from),
            to: MemberId(to),
            boot_nonce,
            server_version,
            peer_urls: peer_urls(&mut reader).unwrap_or_default(),
        })
    }
}

/// The connection may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// What is spoken from now on.
    pub version: u16,
    /// Who answers.
    pub member: MemberId,
    /// Drawn when it started.
    pub boot_nonce: u64,
    /// Its program.
    pub server_version: String,
}

impl Welcome {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> OutFrame {
        let mut writer = FrameWriter::new(FrameKind::Welcome);
        writer.put(&self.version.to_le_bytes());
        writer.put(&[0; 6]);
        writer.put(&self.member.0.to_le_bytes());
        writer.put(&self.boot_nonce.to_le_bytes());
        put_version(&mut writer, &self.server_version);
        writer.finish()
    }

    /// Reads a welcome.
    ///
    /// # Errors
    /// It is too short.
    pub fn decode(body: &[u8]) -> Result<Self, HelloError> {
        const SHORT: HelloError = HelloError { reason: "a welcome is too short" };
        let mut reader = Reader::new(body);
        let version_spoken = reader.half().ok_or(SHORT)?;
        reader.take(6).ok_or(SHORT)?;
        let member = MemberId(reader.word().ok_or(SHORT)?);
        let boot_nonce = reader.word().ok_or(SHORT)?;
        let server_version = version(&mut reader).ok_or(SHORT)?;
        Ok(Self { version: version_spoken, member, boot_nonce, server_version })
    }
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No version is spoken by both.
    Version(Versions),
    /// The member belongs to another cluster, which it names.
    Cluster(ClusterId),
    /// Another member answers than was meant, which names itself.
    Recipient(MemberId),
    /// The sender is no member of the cluster, as far as the other side has come.
    Unknown,
    /// The sender was removed from the cluster, for good.
    Removed,
    /// The sender has the id of the one that answers.
    Oneself,
    /// A reason of a later version.
    Other(u8),
}

impl Refusal {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> OutFrame {
        let mut versions = Versions { min: 0, max: 0 };
        let mut id = 0;
        let reason = match self {
            Self::Version(spoken) => {
                versions = *spoken;
                1
            }
            Self::Cluster(cluster) => {
                id = cluster.0;
                2
            }
            Self::Recipient(member) => {
                id = member.0;
                3
            }
            Self::Unknown => 4,
            Self::Removed => 5,
            Self::Oneself => 6,
            Self::Other(reason) => *reason,
        };
        let mut writer = FrameWriter::new(FrameKind::Refusal);
        writer.put(&[reason, 0]);
        writer.put(&versions.min.to_le_bytes());
        writer.put(&versions.max.to_le_bytes());
        writer.put(&[0, 0]);
        writer.put(&id.to_le_bytes());
        writer.finish()
    }

    /// Reads a refusal.
    ///
    /// # Errors
    /// It is too short.
    pub fn decode(body: &[u8]) -> Result<Self, HelloError> {
        const SHORT: HelloError = HelloError { reason: "a refusal is too short" };
        let mut reader = Reader::new(body);
        let reason = reader.byte().ok_or(SHORT)?;
        reader.byte().ok_or(SHORT)?;
        let min = reader.half().ok_or(SHORT)?;
        let max = reader.half().ok_or(SHORT)?;
        reader.half().ok_or(SHORT)?;
        let id = reader.word().ok_or(SHORT)?;
        Ok(match reason {
            1 => Self::Version(Versions { min, max }),
            2 => Self::Cluster(ClusterId(id)),
            3 => Self::Recipient(MemberId(id)),
            4 => Self::Unknown,
            5 => Self::Removed,
            6 => Self::Oneself,
            _ => Self::Other(reason),
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(Versions { min, max }) => write!(
                formatter,
                "it speaks versions {min} to {max} of the peer protocol, this member {} to {}",
                VERSIONS.min, VERSIONS.max
            ),
            Self::Cluster(cluster) => write!(formatter, "it belongs to cluster {:x}", cluster.0),
            Self::Recipient(member) => write!(formatter, "it is member {:x}", member.0),
            Self::Unknown => formatter.write_str("it does not know this member"),
            Self::Removed => formatter.write_str("this member was removed from the cluster"),
            Self::Oneself => formatter.write_str("it has this member's own id"),
            Self::Other(reason) => write!(formatter, "for a reason of a later version ({reason})"),
        }
    }
}

/// A text that is too long is cut at a character: it is for people.
fn put_version(writer: &mut FrameWriter, text: &str) {
    let mut len = text.len().min(SERVER_VERSION_SIZE_BYTES_MAX);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    let size = u16::try_from(len).expect("it was cut far below");
    writer.put(&size.to_le_bytes());
    writer.put(&text.as_bytes()[..len]);
}

fn version(reader: &mut Reader<'_>) -> Option<String> {
    let len = usize::from(reader.half()?);
    let text = reader.take(len)?;
    let kept = &text[..len.min(SERVER_VERSION_SIZE_BYTES_MAX)];
    Some(String::from_utf8_lossy(kept).into_owned())
}

/// The sender's URLs; none from one that does not know that they belong there.
fn peer_urls(reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let count = usize::from(reader.half()?);
    let mut urls = Vec::new();
    for _ in 0..count.min(PEER_URLS_MAX) {
        let len = usize::from(reader.half()?);
        let text = reader.take(len)?;
        if len <= PEER_URL_SIZE_BYTES_MAX {
            urls.push(str::from_utf8(text).ok()?.to_owned());
        }
    }
    Some(urls)
}

#[cfg(test)]
mod tests {
    use super::super::frame::HEAD_SIZE_BYTES;
    use super::super::random::Random;
    use super::*;

    fn hello() -> Hello {
        Hello {
            versions: Versions { min: 1, max: 0x0203 },
            lane: Lane::Bulk,
            cluster: ClusterId(0x1122),
            from: MemberId(3),
            to: MemberId(4),
            boot_nonce: u64::MAX,
            server_version: "3.7.1".to_owned(),
            peer_urls: vec!["http://a:1".to_owned(), "unix:///b".to_owned()],
        }
    }

    fn body(frame: &OutFrame) -> Vec<u8> {
        frame.to_vec()[HEAD_SIZE_BYTES..].to_vec()
    }

    #[test]
    fn golden_bytes_freeze_the_greeting() {
        let mut golden = vec![1, 0, 3, 2, 1, 0, 0, 0, 0x22, 0x11, 0, 0, 0, 0, 0, 0];
        golden.extend([3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([0xff; 8]);
        golden.extend([5, 0]);
        golden.extend(b"3.7.1");
        let without_urls = Hello { peer_urls: Vec::new(), ..hello() };
        assert_eq!(Hello::decode(&golden), Ok(without_urls));
        golden.extend([2, 0, 10, 0]);
        golden.extend(b"http://a:1");
        golden.extend([9, 0]);
        golden.extend(b"unix:///b");
        assert_eq!(body(&hello().encode()), golden);
        assert_eq!(Hello::decode(&golden), Ok(hello()));

        let welcome = Welcome {
            version: 1,
            member: MemberId(2),
            boot_nonce: 3,
            server_version: "v".to_owned(),
        };
        let mut golden = vec![1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
        golden.extend([3, 0, 0, 0, 0, 0, 0, 0, 1, 0, b'v']);
        assert_eq!(body(&welcome.encode()), golden);
        assert_eq!(Welcome::decode(&golden), Ok(welcome));

        for (refusal, golden) in [
            (
                Refusal::Version(Versions { min: 2, max: 3 }),
                [1, 0, 2, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            (Refusal::Cluster(ClusterId(7)), [2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]),
            (Refusal::Recipient(MemberId(8)), [3, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]),
            (Refusal::Unknown, [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (Refusal::Removed, [5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (Refusal::Oneself, [6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (Refusal::Other(99), [99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(body(&refusal.encode()), golden);
            assert_eq!(Refusal::decode(&golden), Ok(refusal));
            assert!(!refusal.to_string().is_empty());
        }
    }

    #[test]
    fn a_later_versions_greeting_may_be_longer() {
        let mut longer = body(&hello().encode());
        longer.extend([1, 2, 3]);
        assert_eq!(Hello::decode(&longer), Ok(hello()));
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        let versions = |min, max| Versions { min, max };
        for (ours, theirs, expected) in [
            (versions(1, 1), versions(1, 1), Some(1)),
            (versions(1, 3), versions(2, 5), Some(3)),
            (versions(2, 5), versions(1, 3), Some(3)),
            (versions(1, 2), versions(3, 4), None),
            (versions(3, 4), versions(1, 2), None),
            // A range that is none fits nobody.
            (versions(1, 9), versions(5, 4), None),
        ] {
            assert_eq!(ours.common(theirs), expected, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn http_is_told_by_the_first_byte() {
        assert_eq!(sniff(b""), None);
        assert_eq!(sniff(&PREFACE[..1]), Some(Opening::Peer));
        for text in [&b"GET /members HTTP/1.1"[..], b"PRI * HTTP/2.0", b"\x16\x03\x01", b"\0"] {
            assert_eq!(sniff(text), Some(Opening::Http));
        }
    }

    #[test]
    fn no_bytes_panic() {
        for seed in 0..2000 {
            let bytes = Random(seed).bytes(80);
            drop(Hello::decode(&bytes));
            drop(Welcome::decode(&bytes));
            let _ = Refusal::decode(&bytes);
        }
        let whole = body(&Hello { peer_urls: Vec::new(), ..hello() }.encode());
        for len in 0..whole.len() - 2 {
            assert!(Hello::decode(&whole[..len]).is_err(), "{len}");
        }
        let mut unknown = whole;
        unknown[4] = 3;
        assert!(Hello::decode(&unknown).is_err());
    }

    #[test]
    fn more_urls_than_are_kept_still_fit() {
        let urls: Vec<String> = (0..20).map(|count| "u".repeat(240 + count)).collect();
        let long = Hello { server_version: "v".repeat(99), peer_urls: urls.clone(), ..hello() };
        let kept = body(&long.encode());
        assert!(kept.len() <= HELLO_BODY_SIZE_BYTES_MAX, "{}", kept.len());
        assert_eq!(Hello::decode(&kept).unwrap().peer_urls, urls[..PEER_URLS_MAX]);
        let odd = Hello { peer_urls: vec!["u".repeat(300), "v".to_owned()], ..hello() };
        assert_eq!(Hello::decode(&body(&odd.encode())).unwrap().peer_urls, ["v"]);
    }

    #[test]
    fn a_versions_text_is_cut_at_a_character() {
        let long = Hello { server_version: "\u{e9}".repeat(40), ..hello() };
        let kept = Hello::decode(&body(&long.encode())).unwrap().server_version;
        assert_eq!(kept, "\u{e9}".repeat(32));
        let odd = Hello { server_version: format!("x{}", "\u{e9}".repeat(40)), ..hello() };
        let kept = Hello::decode(&body(&odd.encode())).unwrap().server_version;
        assert_eq!(kept, format!("x{}", "\u{e9}".repeat(31)));
    }
}
