//! This machine's own model server: its list, its answers, its counts. What they mean, and when the
//! cloud is asked instead, is core's to say ([`mesh_core::device::route`], [`mesh_core::device::local`]).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mesh_core::device::local::{Input, LocalAnswer, Output};
use mesh_core::dialect::chat::tokens::{self, Counting, NotCounted};
use mesh_core::dialect::failure::{FailureKind, UpstreamFailure};
use mesh_core::dialect::{BuildError, MaxTokensField, ModelRequest, Target, build_request};
use mesh_core::error::ErrorCode;
use mesh_core::limits::COUNT_TIMEOUT;
use mesh_core::machine::Machine as _;
use mesh_core::time::{Now, UnixMillis};
use mesh_core::wire::message::{DialectName, EscalationRequest};
use tokio::sync::{mpsc, oneshot};

use super::refuse::Refuse;
use crate::device::answer::{Answer, News, Source};
use crate::device::settings::LocalServer;
use crate::error::Error;
use crate::gateway::upstream::{self, CallKey, Listed, Upstreams};

/// The server's name among the providers, of which it is the only one.
const NAME: &str = "local";
/// How long a list of models is taken for true.
const LIST_FOR: Duration = Duration::from_secs(5);
/// How long it may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(2);
/// News of the server that waits.
const NEWS_WAITING_MAX: usize = 16;

/// Why the server gave no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The question cannot be put into its format.
    Untranslatable(BuildError),
    /// It counts no tokens, by its format.
    Uncounted(NotCounted),
    /// It failed before the first piece.
    Failed(UpstreamFailure),
}

impl NoAnswer {
    /// As a failure of the server.
    pub(super) fn failure(&self) -> UpstreamFailure {
        match self {
            Self::Failed(failure) => failure.clone(),
            Self::Untranslatable(_) | Self::Uncounted(_) => {
                FailureKind::Rejected { status: 400 }.into()
            }
        }
    }
}

impl From<NoAnswer> for Refuse {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Untranslatable(BuildError::Chat(bad))
            | NoAnswer::Uncounted(NotCounted::Body(bad)) => Self::field(&bad),
            NoAnswer::Untranslatable(error) => Self::new(error.code(), error.to_string()),
            NoAnswer::Uncounted(why @ (NotCounted::Dialect | NotCounted::Server)) => {
                Self::new(ErrorCode::NotFound, why.to_string())
            }
            NoAnswer::Failed(failure) => Self::local(&failure),
        }
    }
}

/// The server.
#[derive(Debug)]
pub(super) struct Local {
    upstreams: Upstreams,
    dialect: DialectName,
    usual: Option<String>,
    patience: Duration,
    listed: Mutex<Option<(Instant, Listed)>>,
}

impl Local {
    /// Opens no connection.
    ///
    /// # Errors
    ///
    /// When the settings cannot be used.
    pub(super) fn new(server: &LocalServer) -> Result<Self, Error> {
        let mut provider = server.provider.clone();
        NAME.clone_into(&mut provider.name);
        Ok(Self {
            dialect: provider.dialect,
            upstreams: Upstreams::new([provider])
                .map_err(|error| Error::Validation(error.to_string()))?,
            usual: server.model.clone(),
            patience: server.patience,
            listed: Mutex::new(None),
        })
    }

    /// The model that `auto` means, if the settings say.
    pub(super) fn usual(&self) -> Option<&str> {
        self.usual.as_deref()
    }

    /// The server's list, a few seconds old at most.
    pub(super) async fn listed(&self) -> Listed {
        {
            let known = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, listed)) = &*known
                && at.elapsed() < LIST_FOR
            {
                return listed.clone();
            }
        }
        let listed = self.upstreams.list(NAME, LIST_TIMEOUT).await;
        // What is silent now may be there in a moment, and is soon told of.
        if listed != Listed::Silent {
            let mut known = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
            *known = Some((Instant::now(), listed.clone()));
        }
        listed
    }

    const fn target<'a>(&self, model: &'a str) -> Target<'a> {
        Target {
            dialect: self.dialect,
            model,
            max_tokens_field: MaxTokensField::MaxTokens,
        }
    }

    /// Asks, and waits for the first piece. Dropping the answer hangs up on the server.
    pub(super) async fn ask(
        &self,
        question: &EscalationRequest,
        model: &str,
    ) -> Result<Answer, NoAnswer> {
        let request =
            build_request(&self.target(model), question).map_err(NoAnswer::Untranslatable)?;
        let id = question.request_id;
        let machine = LocalAnswer::new(now(), id, self.dialect, self.patience);
        let (answer, source) = Answer::new(id);
        let (begun, first) = oneshot::channel();
        let (call, news) = self.call(request);
        tokio::spawn(carry(machine, call, news, source, begun));
        match first.await {
            Ok(Ok(())) => Ok(answer),
            Ok(Err(failure)) => Err(NoAnswer::Failed(failure)),
            Err(_) => Err(NoAnswer::Failed(FailureKind::Truncated.into())),
        }
    }

    /// How many tokens a body would be.
    pub(super) async fn count(&self, model: &str, body: &str) -> Result<u64, NoAnswer> {
        let request = tokens::request(&self.target(model), body).map_err(NoAnswer::Uncounted)?;
        let (call, mut news) = self.call(request);
        let counting = async {
            let mut counting = Counting::default();
            while let Some(piece) = news.recv().await {
                match piece {
                    upstream::News::Head(head) => counting.handle_head(head),
                    upstream::News::Body(bytes) => {
                        counting.handle_body(&bytes);
                        call.credit(bytes.len());
                    }
                    upstream::News::End(end) => return counting.finish(end),
                }
            }
            Err(FailureKind::Truncated.into())
        };
        tokio::time::timeout(COUNT_TIMEOUT, counting)
            .await
            .unwrap_or_else(|_| Err(FailureKind::Timeout.into()))
            .map_err(|failure| match tokens::is_unknown(&failure) {
                true => NoAnswer::Uncounted(NotCounted::Server),
                false => NoAnswer::Failed(failure),
            })
    }

    fn call(&self, request: ModelRequest) -> (upstream::Call, mpsc::Receiver<upstream::News>) {
        let (sink, news) = mpsc::channel(NEWS_WAITING_MAX);
        let key = CallKey::Configured;
        (
            self.upstreams.call(NAME, key, request, sink, |news| news),
            news,
        )
    }
}

/// Carries the server's bytes into the machine, and what it makes of them to the reader.
async fn carry(
    mut machine: LocalAnswer,
    call: upstream::Call,
    mut news: mpsc::Receiver<upstream::News>,
    mut source: Source,
    begun: oneshot::Sender<Result<(), UpstreamFailure>>,
) {
    let mut begun = Some(begun);
    loop {
        let Some((due, _)) = machine.poll_timeout() else {
            return;
        };
        let piece = tokio::select! {
            piece = news.recv() => piece,
            () = tokio::time::sleep_until(due.into()) => None,
            // Nobody reads any more.
            _ = &mut source.cancelled => return,
        };
        let mut read = 0;
        let input = match &piece {
            Some(upstream::News::Head(head)) => Input::Head(head),
            Some(upstream::News::Body(bytes)) => {
                read = bytes.len();
                Input::Body(bytes)
            }
            Some(upstream::News::End(end)) => Input::Ended(*end),
            None => Input::Timeout,
        };
        let Ok(()) = machine.handle_input(now(), input);
        while let Some(output) = machine.poll_output() {
            if tell(output, &source, &mut begun).await.is_err() {
                return;
            }
        }
        call.credit(read);
    }
}

/// Nobody reads any more.
struct Gone;

async fn tell(
    output: Output,
    source: &Source,
    begun: &mut Option<oneshot::Sender<Result<(), UpstreamFailure>>>,
) -> Result<(), Gone> {
    let failed = |failure: &UpstreamFailure| News::Failed(Error::Api(failure.message.clone()));
    let said = match &output {
        Output::Part(_) | Output::Ended(_) => Ok(()),
        Output::Failed(failure) => Err(failure.clone()),
    };
    if let Some(begun) = begun.take() {
        let over = said.is_err();
        begun.send(said).map_err(|_| Gone)?;
        if over {
            return Err(Gone);
        }
    }
    let news = match output {
        Output::Part(part) => News::Part(part),
        Output::Ended(end) => News::Ended(end),
        Output::Failed(failure) => failed(&failure),
    };
    source.news.send(news).await.map_err(|_| Gone)
}

fn now() -> Now {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        instant: Instant::now(),
        wall: UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
    }
}
