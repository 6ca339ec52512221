//! The gRPC health service. One name is known, the empty one: the server as a whole.

use prost::Message;

use super::proto::grpc::health::v1 as pb;
use super::proto::grpc::health::v1::health_check_response::ServingStatus;
use super::status::Refusal;
use super::wire;

/// Appends the answer to `Check`.
pub(super) fn put_check(out: &mut Vec<u8>, message: &[u8]) -> Result<(), Refusal> {
    if !is_whole_server(message)? {
        return Err(Refusal::UnknownHealthService);
    }
    put_status(out, ServingStatus::Serving);
    Ok(())
}

/// Appends the first message of `Watch`, which an unknown name gets too.
pub(super) fn put_watch(out: &mut Vec<u8>, message: &[u8]) -> Result<(), Refusal> {
    let known = is_whole_server(message).map_err(Refusal::in_stream)?;
    put_status(out, if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown });
    Ok(())
}

/// Appends the answer to `List`: a map with one entry, whose key is written although it is empty.
pub(super) fn put_list(out: &mut Vec<u8>) {
    wire::put_nested(out, 1, |out| {
        wire::put_len(out, 1, 0);
        wire::put_nested(out, 2, |out| put_status(out, ServingStatus::Serving));
    });
}

fn is_whole_server(message: &[u8]) -> Result<bool, Refusal> {
    let request = pb::HealthCheckRequest::decode(message).map_err(Refusal::from)?;
    Ok(request.service.is_empty())
}

fn put_status(out: &mut Vec<u8>, status: ServingStatus) {
    pb::HealthCheckResponse { status: status as i32 }.encode_raw(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_of_grpc() {
        let answer = |put: &dyn Fn(&mut Vec<u8>) -> Result<(), Refusal>| {
            let mut out = Vec::new();
            put(&mut out).map(|()| out)
        };
        let named = b"\x0a\x01a";
        assert_eq!(answer(&|out| put_check(out, b"")), Ok(vec![8, 1]));
        assert_eq!(answer(&|out| put_check(out, named)), Err(Refusal::UnknownHealthService));
        assert_eq!(answer(&|out| put_watch(out, b"")), Ok(vec![8, 1]));
        assert_eq!(answer(&|out| put_watch(out, named)), Ok(vec![8, 3]));
        assert_eq!(answer(&|out| put_check(out, b"\xff")), Err(Refusal::Malformed));
        assert_eq!(answer(&|out| put_watch(out, b"\xff")), Err(Refusal::MalformedInStream));

        let list = answer(&|out| {
            put_list(out);
            Ok(())
        });
        // As etcd 3.7.1 answers it.
        assert_eq!(list, Ok(vec![0x0a, 6, 0x0a, 0, 0x12, 2, 8, 1]));
        let decoded = pb::HealthListResponse::decode(&list.unwrap_or_default()[..]);
        assert_eq!(decoded.map(|list| list.statuses.len()), Ok(1));
    }
}
