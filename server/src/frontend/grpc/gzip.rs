//! Compressed requests: etcd's server understands gzip, so clients may use it.
//!
//! Answers are never compressed; a client that asks with gzip must understand plain ones too.
//!
//! Invariants:
//! - No more than the largest message is ever unpacked, whatever a few bytes claim to hold.

use std::io::{ErrorKind, Read};

use flate2::bufread::MultiGzDecoder;

use super::status::{Code, Status};

/// What every member of a file begins with.
const HEAD_BYTES: usize = 10;

/// Unpacks one message of at most `bytes_max`.
pub(super) fn unpack(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, Status> {
    if packed.is_empty() {
        return Err(Status::new(Code::Internal, "grpc: failed to decompress the message: EOF"));
    }
    if packed.len() < HEAD_BYTES {
        let text = "grpc: failed to decompress the message: unexpected EOF";
        return Err(Status::new(Code::Internal, text));
    }
    if packed[..3] != [0x1f, 0x8b, 8] {
        let text = "grpc: failed to decompress the message: gzip: invalid header";
        return Err(Status::new(Code::Internal, text));
    }
    let mut plain = Vec::new();
    // One byte more than allowed tells a message of exactly the limit from a larger one.
    let mut reader = MultiGzDecoder::new(packed).take(bytes_max as u64 + 1);
    if let Err(error) = reader.read_to_end(&mut plain) {
        let reason = match error.kind() {
            ErrorKind::UnexpectedEof => "unexpected EOF",
            _ => "gzip: invalid checksum",
        };
        let text = format!("grpc: failed to read decompressed data: {reason}");
        return Err(Status::new(Code::Internal, text));
    }
    if plain.len() > bytes_max {
        let text =
            format!("grpc: received message after decompression larger than max {bytes_max}");
        return Err(Status::new(Code::ResourceExhausted, text));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn pack(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn messages_are_unpacked_up_to_the_limit() {
        for length in [0, 1, 1000, 100_000] {
            let plain = vec![7; length];
            assert_eq!(unpack(&pack(&plain), 100_000), Ok(plain));
        }
        let status = unpack(&pack(&vec![0; 100_001]), 100_000).unwrap_err();
        assert_eq!(status.code, Code::ResourceExhausted);
    }

    #[test]
    fn broken_messages_are_refused_in_the_words_of_etcd() {
        let good = pack(b"key");
        let mut wrong_sum = good.clone();
        let sum_at = wrong_sum.len() - 6;
        wrong_sum[sum_at] ^= 1;
        // Each text was recorded from etcd 3.7.1.
        let cases: [(&[u8], &str); 5] = [
            (b"", "grpc: failed to decompress the message: EOF"),
            (&good[..7], "grpc: failed to decompress the message: unexpected EOF"),
            (b"junkjunkjunk", "grpc: failed to decompress the message: gzip: invalid header"),
            (&good[..good.len() - 4], "grpc: failed to read decompressed data: unexpected EOF"),
            (&wrong_sum, "grpc: failed to read decompressed data: gzip: invalid checksum"),
        ];
        for (packed, text) in cases {
            assert_eq!(unpack(packed, 1000), Err(Status::new(Code::Internal, text)));
        }
    }
}
