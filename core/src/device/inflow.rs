//! An answer on its way in: what was hidden in its question is put back, in text, in reasoning and in
//! the arguments of tools, and everything stays in order.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::AnswerEvent;
use super::unfinished::Open;
use crate::dialect::chat::Delta;
use crate::privacy::restore::{Form, Restorer};
use crate::privacy::{Mapping, json};
use crate::wire::message::EscalationResponse;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Inflow {
    hidden: Arc<Mapping>,
    open: Open,
    restorer: Restorer,
}

impl Inflow {
    pub(super) fn new(hidden: Mapping) -> Self {
        let hidden = Arc::new(hidden);
        Self {
            open: Open::Text,
            restorer: Restorer::new(Arc::clone(&hidden), Form::Text),
            hidden,
        }
    }

    /// In the middle of an answer.
    pub(super) fn going_on(hidden: Mapping, open: Open, held: String) -> Self {
        let hidden = Arc::new(hidden);
        Self {
            open,
            restorer: Restorer::going_on(Arc::clone(&hidden), form(open), held),
            hidden,
        }
    }

    /// How many values its question had hidden.
    pub(super) fn hidden_count(&self) -> u32 {
        u32::try_from(self.hidden.len()).unwrap_or(u32::MAX)
    }

    /// Puts what was hidden back into an answer that comes whole.
    pub(super) fn restore(&self, answer: &mut EscalationResponse) {
        answer.hidden = self.hidden_count();
        let hidden = &self.hidden;
        if hidden.is_empty() {
            return;
        }
        let restored = |text: &mut String| {
            *text = Restorer::whole(hidden, Form::Text, std::mem::take(text));
        };
        restored(&mut answer.content);
        answer.sources.iter_mut().for_each(restored);
        let body = answer.body.as_deref().map(RawValue::get);
        if let Some(body) = body.and_then(|body| restored_body(hidden, body)) {
            answer.body = Some(body);
        }
    }

    /// What its end so far is, and what is held back of it.
    pub(super) fn end_so_far(&self) -> (Open, &str) {
        (self.open, self.restorer.held())
    }

    pub(super) const fn hidden(&self) -> &Arc<Mapping> {
        &self.hidden
    }

    /// More text.
    pub(super) fn text(&mut self, text: String, events: &mut Vec<AnswerEvent>) {
        self.push(Open::Text, text, events);
    }

    /// More of what is no text.
    pub(super) fn delta(&mut self, delta: Delta, events: &mut Vec<AnswerEvent>) {
        match delta {
            Delta::Reasoning(text) => self.push(Open::Reasoning, text, events),
            Delta::Arguments { index, json } => self.push(Open::Arguments(index), json, events),
            whole @ (Delta::Signature(_) | Delta::ToolCall { .. }) => {
                self.finish(events);
                events.push(AnswerEvent::Delta(whole));
            }
        }
    }

    /// Hands out what was held back because it could have become a token.
    pub(super) fn finish(&mut self, events: &mut Vec<AnswerEvent>) {
        let held = self.restorer.finish();
        self.hand_out(held, events);
    }

    fn push(&mut self, open: Open, piece: String, events: &mut Vec<AnswerEvent>) {
        if self.open != open {
            self.finish(events);
            self.open = open;
            self.restorer = Restorer::new(Arc::clone(&self.hidden), form(open));
        }
        let restored = self.restorer.push(piece);
        self.hand_out(restored, events);
    }

    fn hand_out(&self, piece: String, events: &mut Vec<AnswerEvent>) {
        if piece.is_empty() {
            return;
        }
        events.push(match self.open {
            Open::Text => AnswerEvent::Chunk(piece),
            Open::Reasoning => AnswerEvent::Delta(Delta::Reasoning(piece)),
            Open::Arguments(index) => AnswerEvent::Delta(Delta::Arguments { index, json: piece }),
        });
    }
}

const fn form(open: Open) -> Form {
    match open {
        Open::Text | Open::Reasoning => Form::Text,
        Open::Arguments(_) => Form::Json,
    }
}

/// A client's own body of an answer; the arguments of tools in it are JSON inside of JSON.
fn restored_body(hidden: &Arc<Mapping>, body: &str) -> Option<Box<RawValue>> {
    let written = json::rewrite(body, |literal| {
        let form = match literal.of {
            Some("arguments") => Form::Json,
            Some(_) | None => Form::Text,
        };
        let text = literal.text.as_ref();
        let restored = Restorer::whole(hidden, form, text.to_owned());
        (restored != text).then_some(restored)
    });
    written
        .ok()
        .flatten()
        .and_then(|body| RawValue::from_string(body).ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_kind_is_restored_in_its_own_form_and_order_is_kept() {
        let values = [("[SECRET_1]", "a\"b"), ("[EMAIL_1]", "x@y.zz")];
        let values = values.map(|(token, value)| (token.to_owned(), value.to_owned()));
        let mut inflow = Inflow::new(Mapping::from(BTreeMap::from(values)));
        let mut events = Vec::new();
        inflow.text("to [EMA".to_owned(), &mut events);
        inflow.delta(Delta::Reasoning("hm [EMAIL_1] [S".to_owned()), &mut events);
        let call = Delta::ToolCall {
            index: 0,
            id: "c".to_owned(),
            name: "f".to_owned(),
        };
        inflow.delta(call, &mut events);
        for json in ["{\"p\":\"[SEC", "RET_1]\"}"] {
            let json = json.to_owned();
            inflow.delta(Delta::Arguments { index: 0, json }, &mut events);
        }
        inflow.text("done [".to_owned(), &mut events);
        inflow.finish(&mut events);
        let told: Vec<String> = events
            .iter()
            .map(|event| match event {
                AnswerEvent::Chunk(text) => format!("text {text}"),
                AnswerEvent::Delta(Delta::Reasoning(text)) => format!("reasoning {text}"),
                AnswerEvent::Delta(Delta::Arguments { json, .. }) => format!("arguments {json}"),
                other @ (AnswerEvent::Delta(_)
                | AnswerEvent::Ended(_)
                | AnswerEvent::Whole(_)
                | AnswerEvent::Failed(_)
                | AnswerEvent::Cut
                | AnswerEvent::Notice(_)
                | AnswerEvent::Resumed { .. }) => format!("{other:?}"),
            })
            .collect();
        assert_eq!(
            told,
            [
                "text to ",
                "text [EMA",
                "reasoning hm x@y.zz ",
                "reasoning [S",
                "Delta(ToolCall(0))",
                "arguments {\"p\":\"",
                "arguments a\\\"b\"}",
                "text done ",
                "text [",
            ]
        );
    }
}
