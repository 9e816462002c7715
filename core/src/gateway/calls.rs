//! Typed calls of devices: what the gateway knows itself, and what the outside world is asked for.

use serde_json::value::RawValue;

use super::asks::Pending;
use super::outside::Ask;
use super::streams::Lane;
use super::{Gateway, terms};
use crate::api;
use crate::limits;
use crate::time::Now;
use crate::transport::{ConnId, Priority, StreamId, Transport};
use crate::wire::message::{Call, ErrorMessage, Message, Reply};

impl<T: Transport> Gateway<T> {
    pub(super) fn call(&mut self, now: Now, conn: ConnId, stream: StreamId, call: &Call) {
        let Some((account, device)) = self.asker(conn) else {
            return;
        };
        self.transport.set_priority(conn, stream, Priority::Call);
        self.set_lane(conn, stream, Lane::Call);
        match api::Method::named(&call.method) {
            Some(api::Method::Ping) => {
                let result = api::Pong {
                    server_time: now.wall,
                };
                self.reply(now, conn, stream, call.id, api::encode(&result));
            }
            Some(api::Method::Models) => {
                let known = self.config.models.iter().map(|model| model.name.clone());
                let names = std::iter::once("auto".to_owned()).chain(known);
                let result = api::Models {
                    names: names.take(limits::MODELS_LISTED_MAX).collect(),
                };
                self.reply(now, conn, stream, call.id, api::encode(&result));
            }
            Some(api::Method::CountTokens) => self.count_tokens(now, conn, stream, call),
            Some(method) => {
                let pending = Pending::Service {
                    conn,
                    stream,
                    call: call.id,
                };
                let ask = Ask::Service {
                    account,
                    device,
                    method,
                    params: call.params.clone().into(),
                };
                self.ask_store(now, pending, ask);
            }
            None => {
                let error = terms::unknown_method(&call.method);
                self.reply(now, conn, stream, call.id, Err(error));
            }
        }
    }

    pub(super) fn served(
        &mut self,
        now: Now,
        conn: ConnId,
        stream: StreamId,
        call: u64,
        word: Result<Box<RawValue>, ErrorMessage>,
    ) {
        // The stream may have been refused meanwhile.
        if self.lane(conn, stream) != Some(Lane::Call) {
            return;
        }
        self.reply(now, conn, stream, call, word);
    }

    pub(super) fn reply(
        &mut self,
        now: Now,
        conn: ConnId,
        stream: StreamId,
        id: u64,
        result: Result<Box<RawValue>, ErrorMessage>,
    ) {
        let (result, error) = match result {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error)),
        };
        self.send(
            now,
            conn,
            stream,
            &Message::Reply(Reply { id, result, error }),
        );
        self.end_stream(conn, stream);
    }
}
