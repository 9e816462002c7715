//! Typed calls under way: each on a stream of its own, each answered once, and never asked again.

use std::time::Instant;

use serde_json::value::RawValue;

use super::asked::Lane;
use super::{AskError, Device, Output};
use crate::api::{CountTokens, Method, Params};
use crate::limits;
use crate::privacy;
use crate::time::Now;
use crate::transport::{ConnId, StreamId, Transport};
use crate::wire::codec;
use crate::wire::frame::FrameDecoder;
use crate::wire::message::{Call, Message};

/// A typed call under way. `Debug` shows nothing of its parameters.
pub(super) struct AskedCall {
    /// Encoded, until it is sent.
    frame: Vec<u8>,
    pub(super) place: Option<(ConnId, StreamId)>,
    pub(super) decoder: FrameDecoder,
    pub(super) overdue_at: Instant,
}

impl std::fmt::Debug for AskedCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AskedCall")
            .field("place", &self.place)
            .field("overdue_at", &self.overdue_at)
            .finish_non_exhaustive()
    }
}

impl<T: Transport> Device<T> {
    pub(super) fn call(
        &mut self,
        now: Now,
        id: u64,
        method: Method,
        params: Option<Box<RawValue>>,
    ) {
        let frame = match self.prepare_call(id, method, params) {
            Ok(frame) => frame,
            Err(error) => {
                let result = Err(error);
                return self.outputs.push_back(Output::Replied { id, result });
            }
        };
        let call = AskedCall {
            frame,
            place: None,
            decoder: FrameDecoder::new(),
            overdue_at: now.instant + limits::CALL_TIMEOUT,
        };
        self.calls.insert(id, call);
        self.waiting.push_back(Lane::Call(id));
        self.send_waiting(now);
    }

    fn prepare_call(
        &self,
        id: u64,
        method: Method,
        params: Option<Box<RawValue>>,
    ) -> Result<Vec<u8>, AskError> {
        self.may_wait()?;
        let params = match method {
            Method::CountTokens => self.hidden_body(params)?,
            Method::Ping
            | Method::AccountSummary
            | Method::AccountUsage
            | Method::AccountInvoice
            | Method::AccountTier
            | Method::AccountProviderKey
            | Method::PaymentsCheckout
            | Method::PaymentsStatus
            | Method::PaymentsPending
            | Method::Models => params,
        };
        let method = method.as_str().to_owned();
        let mut frame = Vec::new();
        codec::encode(&Message::Call(Call { id, method, params }), &mut frame)
            .map_err(|_| AskError::TooLarge)?;
        Ok(frame)
    }

    /// A body that is to be counted has what a question has, and nothing of it comes back.
    fn hidden_body(
        &self,
        params: Option<Box<RawValue>>,
    ) -> Result<Option<Box<RawValue>>, AskError> {
        let mut count: CountTokens = Params::from(params)
            .read()
            .map_err(|error| AskError::Remote(Box::new(error)))?;
        privacy::hide_in_body(&self.config.privacy, &mut count.body)?;
        let params = Params::new(&count).map_err(|error| AskError::Remote(Box::new(error)))?;
        Ok(params.into_raw())
    }

    pub(super) fn send_call(&mut self, id: u64, conn: ConnId, stream: StreamId) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        call.place = Some((conn, stream));
        let frame = std::mem::take(&mut call.frame);
        self.transport.send(conn, stream, &frame);
        self.transport.finish(conn, stream);
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every message that does not belong here is refused alike"
    )]
    pub(super) fn call_message(&mut self, id: u64, message: Message) {
        let result = match message {
            Message::Reply(reply) if reply.id == id => match (reply.result, reply.error) {
                (Some(result), None) => Ok(result),
                (_, Some(error)) => Err(AskError::Remote(Box::new(error))),
                (None, None) => Err(AskError::Protocol("an empty reply".to_owned())),
            },
            Message::Error(error) => Err(AskError::Remote(Box::new(error))),
            other => {
                let what = format!("{:?} that is not of this call", other.frame_type());
                Err(AskError::Protocol(what))
            }
        };
        self.end_call(id, result);
    }

    pub(super) fn end_call(&mut self, id: u64, result: Result<Box<RawValue>, AskError>) {
        if let Some(call) = self.calls.remove(&id) {
            self.leave(Lane::Call(id), call.place);
            self.outputs.push_back(Output::Replied { id, result });
        }
    }
}
