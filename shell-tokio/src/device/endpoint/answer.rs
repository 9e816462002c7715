//! An answer on its way to the client: whole, or as an event stream.
//!
//! The status waits for the answer's first part, so that a refusal has a status of its own; after
//! [`ENDPOINT_KEEP_ALIVE`] the stream begins all the same, with a comment as a sign of life.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::body::Frame;
use mesh_core::device::route::{Route, Why};
use mesh_core::dialect::chat::reply::{Composer, Heading, Writer};
use mesh_core::ids::RequestId;
use mesh_core::limits::ENDPOINT_KEEP_ALIVE;
use mesh_core::wire::message::StreamEnd;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::chat::Routed;
use super::refuse::{Refuse, label};
use crate::device::answer::{Answer, Part};
use crate::error::Error;

/// Parts that wait for a slow client. Over it: the answer is not read on, and the gateway waits.
const PARTS_WAITING_MAX: usize = 16;

/// A question that was asked.
pub(super) struct Asked {
    pub(super) routed: Routed,
    pub(super) heading: Heading,
    pub(super) id: RequestId,
    /// The answer goes on when the client has gone.
    pub(super) detached: bool,
}

/// Which way an answer comes, and why it does not come from here.
#[derive(Clone, Copy)]
pub(super) struct Way {
    route: Route,
    why: Option<Why>,
}

impl Way {
    pub(super) const LOCAL: Self = Self {
        route: Route::Local,
        why: None,
    };

    pub(super) const fn cloud(why: Option<Why>) -> Self {
        Self {
            route: Route::Cloud,
            why,
        }
    }

    pub(super) fn say(self, headers: &mut HeaderMap) {
        let route = HeaderValue::from_static(self.route.as_str());
        headers.insert("x-synesis-route", route);
        if let Some(why) = self.why {
            let why = HeaderValue::from_static(why.as_str());
            headers.insert("x-synesis-escalated", why);
        }
    }
}

fn head(response: &mut Response, id: RequestId, way: Way) {
    let headers = response.headers_mut();
    label(headers, &id.to_string());
    way.say(headers);
}

/// One body, once all of it is there.
pub(super) async fn whole(asked: Asked) -> Response {
    let (heading, id) = (asked.heading, asked.id);
    let Routed { answer, way } = asked.routed;
    let composed = if asked.detached {
        let collecting = tokio::spawn(collect(answer));
        collecting
            .await
            .unwrap_or_else(|error| Err(Error::Api(error.to_string())))
    } else {
        collect(answer).await
    };
    match composed {
        Ok((composer, end)) => {
            let body = composer.body(&heading, end.finish_reason, end.tokens_used);
            let mut response = axum::Json(body).into_response();
            head(&mut response, id, way);
            response
        }
        Err(error) => {
            let refuse = Refuse::from(error).of(id);
            let mut response = refuse.into_response(heading.dialect);
            way.say(response.headers_mut());
            response
        }
    }
}

async fn collect(mut answer: Answer) -> Result<(Composer, StreamEnd), Error> {
    let mut composer = Composer::default();
    while let Some(part) = answer.recv().await? {
        match part {
            Part::Text(text) => composer.text(&text),
            Part::Delta(delta) => composer.delta(&delta),
            Part::Cut | Part::Resumed(_) | Part::Notice(_) => {}
        }
    }
    match answer.receipt() {
        Some(end) => Ok((composer, end.clone())),
        None => Err(Error::NotConnected {
            doing: "waiting for an answer",
        }),
    }
}

/// An event stream.
pub(super) async fn streamed(asked: Asked, include_usage: bool) -> Response {
    let Asked {
        routed: Routed { mut answer, way },
        heading,
        id,
        detached,
    } = asked;
    let dialect = heading.dialect;
    let mut writer = Writer::new(heading, include_usage);
    let first = match timeout(ENDPOINT_KEEP_ALIVE, answer.recv()).await {
        Ok(Ok(part)) => written(&mut writer, &answer, part),
        Ok(Err(error)) => {
            let mut response = Refuse::from(error).of(id).into_response(dialect);
            way.say(response.headers_mut());
            return response;
        }
        Err(_) => (KEEP_ALIVE.to_owned(), false),
    };
    let (sender, receiver) = mpsc::channel(PARTS_WAITING_MAX);
    tokio::spawn(relay(answer, writer, first, sender, id, detached));
    let mut response = Body::new(Parts(receiver)).into_response();
    head(&mut response, id, way);
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A comment, which clients skip.
const KEEP_ALIVE: &str = ": keep-alive\n\n";

/// A part as events, and whether it was the last.
fn written(writer: &mut Writer, answer: &Answer, part: Option<Part>) -> (String, bool) {
    match (part, answer.receipt()) {
        (Some(Part::Text(text)), _) => (writer.text(&text), false),
        (Some(Part::Delta(delta)), _) => (writer.delta(&delta), false),
        // A sign of life, which clients skip.
        (Some(Part::Cut | Part::Resumed(_) | Part::Notice(_)), _) => (KEEP_ALIVE.to_owned(), false),
        (None, Some(end)) => (writer.end(end.finish_reason, end.tokens_used), true),
        (None, None) => (String::new(), true),
    }
}

/// Carries an answer to the client until either is over. Dropping the answer cancels it.
async fn relay(
    mut answer: Answer,
    mut writer: Writer,
    first: (String, bool),
    client: mpsc::Sender<Bytes>,
    id: RequestId,
    detached: bool,
) {
    let (mut events, mut last) = first;
    loop {
        let gone = client.send(events.into()).await.is_err();
        if gone && detached && !last {
            return drain(answer).await;
        }
        if gone || last {
            return;
        }
        let next = tokio::select! {
            next = timeout(ENDPOINT_KEEP_ALIVE, answer.recv()) => next,
            () = client.closed() => {
                if detached {
                    drain(answer).await;
                }
                return;
            }
        };
        (events, last) = match next {
            Ok(Ok(part)) => written(&mut writer, &answer, part),
            Ok(Err(error)) => {
                let refusal = Refuse::from(error).refusal;
                let body = refusal.body(writer.dialect(), &id.to_string());
                (writer.error(&body), true)
            }
            Err(_) => (KEEP_ALIVE.to_owned(), false),
        };
    }
}

/// Nobody reads any more, and the answer is to end by itself.
async fn drain(mut answer: Answer) {
    while let Ok(Some(_)) = answer.recv().await {}
}

/// The receiving end as a response's body.
struct Parts(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = self.0.poll_recv(context);
        polled.map(|part| part.map(|bytes| Ok(Frame::data(bytes))))
    }
}
