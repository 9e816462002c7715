//! `Debug` of the messages that carry what people and models wrote: lengths instead of text.
//!
//! A log line, a panic or an error that prints a message must not give a prompt, an answer or a
//! parameter away.

use std::fmt;

use serde_json::value::RawValue;

use super::{
    Call, Chat, Context, ErrorMessage, EscalationRequest, EscalationResponse, Knowledge, Reply,
    StreamChunk, Turn,
};

/// How long something is that is not shown.
struct Hidden(usize);

impl Hidden {
    fn text(text: &str) -> Self {
        Self(text.len())
    }

    fn raw(raw: Option<&RawValue>) -> Option<Self> {
        raw.map(|raw| Self(raw.get().len()))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0)
    }
}

impl fmt::Debug for EscalationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EscalationRequest")
            .field("request_id", &self.request_id)
            .field("query", &Hidden::text(&self.query))
            .field("context", &self.context)
            .field("model", &self.model)
            .field("max_tokens", &self.max_tokens)
            .field("stream", &self.stream)
            .field("project_id", &self.project_id)
            .field("system", &self.system.as_deref().map(Hidden::text))
            .field("lora_id", &self.lora_id)
            .field("timeout_secs", &self.timeout_secs)
            .field("retry_of", &self.retry_of)
            .field("chat", &self.chat)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chat")
            .field("dialect", &self.dialect)
            .field("body", &Hidden::raw(Some(&self.body)))
            .finish()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("pathos_framing", &Hidden::text(&self.pathos_framing))
            .field("local_knowledge", &self.local_knowledge)
            .field("conversation_history", &self.conversation_history)
            .field("constraints", &self.constraints.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Knowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Knowledge({:?})", Hidden::text(&self.content))
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Turn({:?}, {:?})",
            self.role,
            Hidden::text(&self.content)
        )
    }
}

impl fmt::Debug for EscalationResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EscalationResponse")
            .field("request_id", &self.request_id)
            .field("content", &Hidden::text(&self.content))
            .field("model_used", &self.model_used)
            .field("tokens_used", &self.tokens_used)
            .field("cost_nanos", &self.cost_nanos)
            .field("base_nanos", &self.base_nanos)
            .field("latency_ms", &self.latency_ms)
            .field("finish_reason", &self.finish_reason)
            .field("estimated", &self.estimated)
            .field("body", &Hidden::raw(self.body.as_deref()))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for StreamChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamChunk")
            .field("request_id", &self.request_id)
            .field("content", &Hidden::text(&self.content))
            .field("sequence", &self.sequence)
            .field("is_final", &self.is_final)
            .field("delta", &Hidden::raw(self.delta.as_deref()))
            .finish()
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("id", &self.id)
            .field("method", &self.method)
            .field("params", &Hidden::raw(self.params.as_deref()))
            .finish()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("id", &self.id)
            .field("result", &Hidden::raw(self.result.as_deref()))
            .field("error", &self.error)
            .finish()
    }
}

impl fmt::Debug for ErrorMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorMessage")
            .field("code", &self.code)
            .field("message", &self.message)
            .field("details", &self.details.as_ref().map(|_| "<hidden>"))
            .field("retryable", &self.retryable)
            .field("retry_after_secs", &self.retry_after_secs)
            .field("request_id", &self.request_id)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::codec::decode;
    use crate::wire::frame::FrameType;

    #[test]
    fn what_people_and_models_wrote_is_in_no_debug_output() {
        let id = "req_000000000000000000000000000000ab";
        let usage = r#""tokens_used":{"prompt":1,"completion":1},"cost_cents":0,"cost_nanos":1,"base_nanos":1,"model_used":"m","finish_reason":"stop","latency_ms":1"#;
        let messages = [
            (
                FrameType::EscalationRequest,
                format!(
                    r#"{{"request_id":"{id}","session_id":"s","query":"CANARY","model":"auto","max_tokens":1,"stream":true,"system":"CANARY","context":{{"pathos_framing":"CANARY","local_knowledge":[{{"source":"CANARY","content":"CANARY","relevance":1}}],"conversation_history":[{{"role":"user","content":"CANARY"}}],"constraints":["CANARY"]}},"chat":{{"dialect":"openai","body":"CANARY"}}}}"#
                ),
            ),
            (
                FrameType::EscalationResponse,
                format!(r#"{{"request_id":"{id}","content":"CANARY","body":"CANARY",{usage}}}"#),
            ),
            (
                FrameType::StreamChunk,
                format!(
                    r#"{{"request_id":"{id}","content":"CANARY","sequence":0,"is_final":false,"delta":"CANARY"}}"#
                ),
            ),
            (
                FrameType::Call,
                r#"{"id":1,"method":"m","params":"CANARY"}"#.to_owned(),
            ),
            (
                FrameType::Reply,
                r#"{"id":1,"result":"CANARY","error":{"code":"INTERNAL","message":"m","retryable":true,"details":"CANARY"}}"#.to_owned(),
            ),
        ];
        for (frame_type, data) in messages {
            let json = format!(r#"{{"type":"{}","data":{data}}}"#, frame_type.name());
            let message = decode(frame_type, json.as_bytes()).unwrap();
            let shown = format!("{message:?} {message:#?}");
            assert!(!shown.contains("CANARY"), "{shown}");
        }
    }
}
