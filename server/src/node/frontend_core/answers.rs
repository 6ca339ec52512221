//! What came of commands, for the calls that asked for them.

use super::super::calls::{Call, Waiting};
use super::{FrontendCore, connection_at, status};
use crate::log_event;
use crate::mail::{Slot, Verdict};
use crate::service::status::Refusal;

impl FrontendCore {
    pub(super) fn finish_write(&mut self, slot: Slot, verdict: &Verdict) {
        // A call that timed out meanwhile has left its slot.
        let Some(call) = self.desk.calls.take(slot) else { return };
        let answer = match verdict {
            Verdict::Applied(answer) => answer,
            Verdict::Unavailable(reason) => return self.refuse(&call, Refusal::from(*reason)),
            Verdict::Defragmented | Verdict::Moved => {
                if matches!(verdict, Verdict::Defragmented) {
                    log_event!(Info, "finished defragment");
                }
                if let Some(connection) = connection_at(&mut self.clients, call.socket) {
                    connection.answer(call.stream, &[]);
                    self.touch(call.socket);
                }
                return;
            }
        };
        let Some(connection) = connection_at(&mut self.clients, call.socket) else { return };
        let desk = &mut self.desk;
        desk.answer.clear();
        let encoded = match call.waiting {
            Waiting::Change(method, id) => {
                let view = desk.views.pin();
                let change = (method, id);
                desk.service.encode_change(change, answer, &desk.node, &view, &mut desk.answer)
            }
            _ => desk.service.encode_answer(answer, &desk.node, &mut desk.answer),
        };
        if matches!(call.waiting, Waiting::ProcedureWrite) {
            let answer = std::mem::take(&mut desk.answer);
            let answered = encoded.map(|()| &answer[..]);
            return self.handle_procedure_answer((call.socket, call.stream), answered);
        }
        match encoded {
            Ok(()) => connection.answer(call.stream, &desk.answer),
            Err(refusal) => connection.finish(call.stream, &status(refusal)),
        }
        self.touch(call.socket);
    }

    pub(super) fn refuse(&mut self, call: &Call, refusal: Refusal) {
        if call.is_inner() {
            return self.handle_procedure_answer((call.socket, call.stream), Err(refusal));
        }
        if let Some(connection) = connection_at(&mut self.clients, call.socket) {
            connection.finish(call.stream, &status(refusal));
            self.touch(call.socket);
        }
    }
}
