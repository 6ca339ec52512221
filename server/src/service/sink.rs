//! Where an answer is put together.

/// Takes an answer's bytes. A plain vector is one; the front-end has another, which cuts the answer
/// into frames as it grows.
pub trait AnswerSink {
    /// Where the next piece is to be appended; what is there already is to be left alone.
    fn bytes(&mut self) -> &mut Vec<u8>;

    /// Notes that a piece is complete and will not be touched again.
    fn cut(&mut self) {}
}

impl AnswerSink for Vec<u8> {
    fn bytes(&mut self) -> &mut Vec<u8> {
        self
    }
}
