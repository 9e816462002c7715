//! Builds a question with its context on the device.

use crate::ids::RequestId;
use crate::limits;
use crate::time::UnixMillis;
use crate::wire::message::{
    Context, EscalationRequest, Knowledge, Preferences, Role, Tone, Turn, Verbosity,
};

/// A question being put together; [`Question::into_request`] makes it a message.
///
/// ```
/// use mesh_core::escalation::context::Question;
/// use mesh_core::ids::RequestId;
///
/// let request = Question::new("Which valve is it?")
///     .framing("a mechanic in a hurry")
///     .knowledge("manual.txt", "Valve B opens at 4 bar.", 1.0)
///     .constraint("answer in one sentence")
///     .max_tokens(200)
///     .into_request(RequestId::from_u128(7));
/// assert_eq!(request.model, "auto");
/// ```
#[derive(Clone, Debug)]
pub struct Question {
    request: EscalationRequest,
}

impl Question {
    /// A question with the defaults of the command line: model `auto`, 1 024 tokens, professional,
    /// normal verbosity, streamed.
    #[must_use]
    pub fn new(query: impl Into<String>) -> Self {
        Self {
            request: EscalationRequest {
                request_id: RequestId::from_u128(0),
                session_id: "default".to_owned(),
                query: query.into(),
                context: Context::default(),
                model: "auto".to_owned(),
                max_tokens: limits::MAX_TOKENS_DEFAULT,
                stream: true,
                project_id: None,
                system: None,
                lora_id: None,
                timeout_secs: None,
                retry_of: None,
                chat: None,
            },
        }
    }

    /// A short note on the user's intent.
    #[must_use]
    pub fn framing(mut self, note: impl Into<String>) -> Self {
        self.request.context.pathos_framing = note.into();
        self
    }

    /// Adds a passage from the device's own documents; `relevance` is 0.0–1.0.
    #[must_use]
    pub fn knowledge(
        mut self,
        source: impl Into<String>,
        content: impl Into<String>,
        relevance: f32,
    ) -> Self {
        let passage = Knowledge {
            source: source.into(),
            content: content.into(),
            relevance,
        };
        self.request.context.local_knowledge.push(passage);
        self
    }

    /// Adds a turn of the conversation so far, oldest first.
    #[must_use]
    pub fn turn(mut self, role: Role, content: impl Into<String>, timestamp: UnixMillis) -> Self {
        let turn = Turn {
            role,
            content: content.into(),
            timestamp,
        };
        self.request.context.conversation_history.push(turn);
        self
    }

    /// Adds something that the answer must keep to.
    #[must_use]
    pub fn constraint(mut self, constraint: impl Into<String>) -> Self {
        self.request.context.constraints.push(constraint.into());
        self
    }

    /// How the answer should sound. An empty language means the question's own.
    #[must_use]
    pub fn preferences(
        mut self,
        language: impl Into<String>,
        verbosity: Verbosity,
        tone: Tone,
    ) -> Self {
        self.request.context.user_preferences = Preferences {
            preferred_language: language.into(),
            verbosity,
            tone,
        };
        self
    }

    /// The model: `auto`, or a name in the gateway's model table.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.request.model = model.into();
        self
    }

    /// The longest answer, tokens.
    #[must_use]
    pub const fn max_tokens(mut self, tokens: u32) -> Self {
        self.request.max_tokens = tokens;
        self
    }

    /// Whether the answer is wanted piece by piece.
    #[must_use]
    pub const fn stream(mut self, stream: bool) -> Self {
        self.request.stream = stream;
        self
    }

    /// The conversation's name on the device.
    #[must_use]
    pub fn session(mut self, name: impl Into<String>) -> Self {
        self.request.session_id = name.into();
        self
    }

    /// A system prompt.
    #[must_use]
    pub fn system(mut self, prompt: impl Into<String>) -> Self {
        self.request.system = Some(prompt.into());
        self
    }

    /// The project charged.
    #[must_use]
    pub fn project(mut self, project: impl Into<String>) -> Self {
        self.request.project_id = Some(project.into());
        self
    }

    /// How long the first piece may take, seconds.
    #[must_use]
    pub const fn timeout_secs(mut self, secs: u32) -> Self {
        self.request.timeout_secs = Some(secs);
        self
    }

    /// The finished message under its id. Not yet checked: see
    /// [`validate`](super::request::validate).
    #[must_use]
    pub fn into_request(self, request_id: RequestId) -> EscalationRequest {
        EscalationRequest {
            request_id,
            ..self.request
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escalation::request::validate;

    #[test]
    fn a_built_question_carries_everything_it_was_given() {
        let request = Question::new("q")
            .framing("f")
            .turn(Role::User, "hello", UnixMillis(1))
            .turn(Role::Assistant, "hi", UnixMillis(2))
            .constraint("short")
            .preferences("de", Verbosity::Concise, Tone::Technical)
            .model("claude_sonnet")
            .session("work")
            .system("s")
            .project("p")
            .timeout_secs(5)
            .stream(false)
            .into_request(RequestId::from_u128(9));
        assert_eq!(validate(&request), Ok(()));
        assert_eq!(request.request_id, RequestId::from_u128(9));
        assert_eq!(request.context.conversation_history.len(), 2);
        assert_eq!(request.context.user_preferences.preferred_language, "de");
        assert_eq!((request.stream, request.timeout_secs), (false, Some(5)));
    }
}
