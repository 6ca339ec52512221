//! SETTINGS: what the client tells us about itself (RFC 9113, 6.5).
//!
//! Invariants:
//! - Values are checked before they are kept; an unknown identifier is skipped (6.5.2).

use super::flow::{WINDOW_DEFAULT, WINDOW_MAX};
use super::frame::ErrorCode;
use super::limits::{FRAME_BYTES_MAX, HEADER_TABLE_BYTES};

/// SETTINGS identifiers.
pub mod id {
    /// Size of the peer's decoding table.
    pub const HEADER_TABLE_SIZE: u16 = 0x1;
    /// Whether pushes are wanted.
    pub const ENABLE_PUSH: u16 = 0x2;
    /// Streams that the sender lets its peer open.
    pub const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    /// The window of new streams.
    pub const INITIAL_WINDOW_SIZE: u16 = 0x4;
    /// The largest payload the sender takes.
    pub const MAX_FRAME_SIZE: u16 = 0x5;
    /// The largest header list the sender takes.
    pub const MAX_HEADER_LIST_SIZE: u16 = 0x6;
}

/// The client's settings, as far as a server acts on them. Its `MAX_FRAME_SIZE` needs no place
/// here, since we never send more than the least that it can name; nor does
/// `MAX_CONCURRENT_STREAMS`, since we open none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// Bytes our encoder may use of the peer's table.
    pub header_table_bytes: u32,
    /// The send window of new streams.
    pub initial_window: u32,
    /// The largest header list that the client wants to see.
    pub header_list_bytes_max: u32,
}

impl PeerSettings {
    /// What holds before the first SETTINGS frame (RFC 9113, 6.5.2).
    pub const DEFAULT: Self = Self {
        header_table_bytes: HEADER_TABLE_BYTES,
        initial_window: WINDOW_DEFAULT,
        header_list_bytes_max: u32::MAX,
    };

    /// Takes one parameter.
    pub fn apply(&mut self, id: u16, value: u32) -> Result<(), (ErrorCode, &'static str)> {
        match id {
            id::HEADER_TABLE_SIZE => self.header_table_bytes = value,
            id::ENABLE_PUSH if value > 1 => {
                return Err((ErrorCode::ProtocolError, "ENABLE_PUSH is neither 0 nor 1"));
            }
            id::INITIAL_WINDOW_SIZE if value > WINDOW_MAX => {
                return Err((ErrorCode::FlowControlError, "INITIAL_WINDOW_SIZE above 2^31-1"));
            }
            id::INITIAL_WINDOW_SIZE => self.initial_window = value,
            id::MAX_FRAME_SIZE if !(FRAME_BYTES_MAX..1 << 24).contains(&(value as usize)) => {
                return Err((ErrorCode::ProtocolError, "MAX_FRAME_SIZE out of range"));
            }
            id::MAX_HEADER_LIST_SIZE => self.header_list_bytes_max = value,
            _ => {}
        }
        Ok(())
    }
}

/// Appends one parameter to the payload of a SETTINGS frame.
pub fn put_setting(out: &mut Vec<u8>, id: u16, value: u32) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&value.to_be_bytes());
}
