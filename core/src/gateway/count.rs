//! How many tokens a device's body would be: asked of the model's own server, free, and never of one
//! whose format has no such question. It is asked with the key that a question would go with, so that the
//! account's tier is looked up first, unless the model is free.

use serde_json::value::RawValue;

use super::asks::Pending;
use super::outside::{Ask, AskId, KeyOf, Progress};
use super::{Due, Gateway, Output, terms};
use crate::api::{self, CountTokens, Method, Params, TokenCount};
use crate::billing::account::Summary;
use crate::billing::price::Price;
use crate::dialect::chat::tokens::{self, Counting};
use crate::dialect::exchange::Broken;
use crate::dialect::{ModelRequest, Target};
use crate::ids::AccountId;
use crate::limits;
use crate::time::Now;
use crate::transport::{ConnId, StreamId, Transport};
use crate::wire::message::{Call, ErrorMessage};

/// A count under way.
#[derive(Debug)]
pub(super) struct Asked {
    conn: ConnId,
    stream: StreamId,
    call: u64,
    provider: String,
    counting: Counting,
}

/// A count to be asked for, once it is known with whose key.
#[derive(Debug)]
pub(super) struct Wanted {
    asked: Asked,
    request: ModelRequest,
    account: AccountId,
    price: Price,
}

impl<T: Transport> Gateway<T> {
    /// A device asks for a count.
    pub(super) fn count_tokens(&mut self, now: Now, conn: ConnId, stream: StreamId, call: &Call) {
        let params = Params::from(call.params.clone());
        if let Err(error) = self.begin_count(now, (conn, stream), call.id, &params) {
            self.reply(now, conn, stream, call.id, Err(error));
        }
    }

    fn begin_count(
        &mut self,
        now: Now,
        (conn, stream): (ConnId, StreamId),
        call: u64,
        params: &Params,
    ) -> Result<(), ErrorMessage> {
        let wanted: CountTokens = params.read()?;
        let model = self
            .model(&wanted.model)
            .ok_or_else(|| terms::unknown_model(&wanted.model, &self.config.models, None))?;
        let target = Target {
            dialect: model.dialect,
            model: &model.provider_model,
            max_tokens_field: model.max_tokens_field,
        };
        let asked = tokens::request(&target, wanted.body.get());
        let request = asked.map_err(|why| terms::uncounted(&why))?;
        let (provider, price) = (model.provider.clone(), model.price);
        self.take_a_turn(now, conn)?;
        let Some((account, device)) = self.asker(conn) else {
            return Ok(());
        };
        let asked = Asked {
            conn,
            stream,
            call,
            provider,
            counting: Counting::default(),
        };
        if price.is_free() {
            self.count_with(now, asked, KeyOf::Operator, request);
            return Ok(());
        }
        let wanted = Wanted {
            asked,
            request,
            account,
            price,
        };
        let ask = Ask::Service {
            account,
            device,
            method: Method::AccountSummary,
            params: Params::NONE,
        };
        self.ask_store(now, Pending::CountFor(Box::new(wanted)), ask);
        Ok(())
    }

    /// How the account stands is known: its tier says with whose key its provider is asked.
    pub(super) fn count_for(
        &mut self,
        now: Now,
        wanted: Wanted,
        word: Result<Box<RawValue>, ErrorMessage>,
    ) {
        let Wanted {
            asked,
            request,
            account,
            price,
        } = wanted;
        let summary = word.and_then(|told| {
            serde_json::from_str::<Summary>(told.get()).map_err(|_| terms::store_down())
        });
        match summary {
            Ok(summary) => {
                let key = KeyOf::of(account, Some(summary.tier), &price);
                self.count_with(now, asked, key, request);
            }
            Err(error) => self.served(now, asked.conn, asked.stream, asked.call, Err(error)),
        }
    }

    fn count_with(&mut self, now: Now, asked: Asked, key: KeyOf, call: ModelRequest) {
        let provider = asked.provider.clone();
        let ask = Ask::Call {
            provider,
            key,
            call,
        };
        let id = self.ask(Pending::Count(Box::new(asked)), ask);
        let by = now.instant + limits::COUNT_TIMEOUT;
        self.deadlines.set(Due::Ask(id), Some(by));
    }

    /// The server says something.
    pub(super) fn count_progress(&mut self, id: AskId, piece: Progress) {
        let Some(Pending::Count(asked)) = self.asks.get_mut(&id) else {
            return;
        };
        match piece {
            Progress::Head(head) => asked.counting.handle_head(head),
            Progress::Body(bytes) => {
                asked.counting.handle_body(&bytes);
                let bytes = bytes.len();
                self.outputs.push_back(Output::Credit { id, bytes });
            }
        }
    }

    /// It has said everything.
    pub(super) fn counted(&mut self, now: Now, asked: Asked, end: Result<(), Broken>) {
        let result = match asked.counting.finish(end) {
            Ok(input_tokens) => api::encode(&TokenCount { input_tokens }),
            Err(failure) => Err(terms::count_failed(&failure, &asked.provider)),
        };
        self.served(now, asked.conn, asked.stream, asked.call, result);
    }

    /// It says nothing.
    pub(super) fn count_overdue(&mut self, now: Now, id: AskId, asked: Asked) {
        self.outputs.push_back(Output::Abandon { id });
        self.counted(now, asked, Err(Broken::Timeout));
    }
}
