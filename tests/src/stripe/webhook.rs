//! Webhooks: what Stripe would send, in the hands of the test.

use std::net::SocketAddr;

use mesh_core::billing::stripe::signature::{WebhookSecret, sign};
use mesh_core::time::UnixMillis;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{WEBHOOK_SECRET, wall};

/// One event, to be delivered as often, as late and as changed as a test likes.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// What the event is about.
    pub object: String,
    body: Vec<u8>,
    signed_at: Option<u64>,
    secret: &'static str,
}

impl Webhook {
    pub(super) fn new(id: &str, kind: &str, object: &Value, created: u64) -> Self {
        let name = object["id"].as_str().unwrap_or_default().to_owned();
        let body = json!({
            "id": id, "object": "event", "type": kind, "created": created, "livemode": false,
            "data": {"object": object},
        });
        Self {
            object: name,
            body: body.to_string().into_bytes(),
            signed_at: None,
            secret: WEBHOOK_SECRET,
        }
    }

    /// Signed so many seconds ago.
    #[must_use]
    pub fn signed_ago(mut self, secs: u64) -> Self {
        self.signed_at = Some(wall().saturating_sub(secs));
        self
    }

    /// Signed by somebody else.
    #[must_use]
    pub fn signed_with(mut self, secret: &'static str) -> Self {
        self.secret = secret;
        self
    }

    /// Delivers it to a gateway at `http://ADDRESS`: the answer's status.
    ///
    /// # Panics
    ///
    /// When there is no answer.
    pub async fn deliver(&self, gateway: &str) -> u16 {
        self.post(gateway, &self.body).await
    }

    /// The same with a piece of its body replaced after it was signed.
    ///
    /// # Panics
    ///
    /// When there is no answer, or nothing to replace.
    pub async fn deliver_changed(&self, gateway: &str, from: &str, to: &str) -> u16 {
        let text = String::from_utf8_lossy(&self.body);
        assert!(text.contains(from), "{from} is not in {text}");
        self.post(gateway, text.replace(from, to).as_bytes()).await
    }

    async fn post(&self, gateway: &str, body: &[u8]) -> u16 {
        let at = self.signed_at.unwrap_or_else(wall);
        let signature = WebhookSecret::new(self.secret)
            .map(|secret| sign(&secret, UnixMillis(at * 1000), &self.body))
            .unwrap_or_default();
        match post(gateway, &signature, body).await {
            Ok(status) => status,
            Err(e) => panic!("the gateway at {gateway} takes no webhook: {e}"),
        }
    }
}

/// A webhook, byte by byte: the answer's status.
///
/// # Errors
///
/// When there is no answer.
pub async fn post(gateway: &str, signature: &str, body: &[u8]) -> std::io::Result<u16> {
    let address: SocketAddr = gateway
        .trim_start_matches("http://")
        .parse()
        .map_err(|_| std::io::ErrorKind::InvalidInput)?;
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "POST /v2/webhooks/stripe HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Stripe-Signature: {signature}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    // A refusal may come before the body is read.
    let _refused = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer);
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}
