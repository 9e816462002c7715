//! How many tokens a device's body would be: asked of the model's own server, free, and never of one
//! whose format has no such question.

use super::answers::Pending;
use super::outside::{Ask, AskId, KeyOf, Progress};
use super::{Due, Gateway, Output, terms};
use crate::api::{self, CountTokens, Params, TokenCount};
use crate::dialect::Target;
use crate::dialect::chat::tokens::{self, Counting};
use crate::dialect::exchange::Broken;
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
        let provider = model.provider.clone();
        self.take_a_turn(now, conn)?;
        let counting = Asked {
            conn,
            stream,
            call,
            provider: provider.clone(),
            counting: Counting::default(),
        };
        let ask = Ask::Call {
            provider,
            key: KeyOf::Operator,
            call: request,
        };
        let id = self.ask(Pending::Count(Box::new(counting)), ask);
        let by = now.instant + limits::COUNT_TIMEOUT;
        self.deadlines.set(Due::Ask(id), Some(by));
        Ok(())
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
