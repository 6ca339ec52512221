//! The gRPC health service. One name is known, the empty one: the server as a whole.

use prost::Message;

use super::proto::grpc::health::v1 as pb;
use super::proto::grpc::health::v1::health_check_response::ServingStatus;
use super::status::Refusal;

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
    let known = is_whole_server(message)?;
    put_status(out, if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown });
    Ok(())
}

/// Appends the answer to `List`.
pub(super) fn put_list(out: &mut Vec<u8>) {
    let serving = pb::HealthCheckResponse { status: ServingStatus::Serving as i32 };
    let statuses = [(String::new(), serving)].into_iter().collect();
    pb::HealthListResponse { statuses }.encode_raw(out);
}

fn is_whole_server(message: &[u8]) -> Result<bool, Refusal> {
    let request = pb::HealthCheckRequest::decode(message).map_err(Refusal::from)?;
    Ok(request.service.is_empty())
}

fn put_status(out: &mut Vec<u8>, status: ServingStatus) {
    pb::HealthCheckResponse { status: status as i32 }.encode_raw(out);
}
