//! The port to whoever takes payments: requests go out, bodies come back.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use mesh_core::billing::stripe::object::read;
use mesh_core::billing::stripe::request::{Failure, Request};
use serde::de::DeserializeOwned;

/// An answer that is on its way.
pub type Exchange<'a> = Pin<Box<dyn Future<Output = Result<Bytes, Failure>> + Send + 'a>>;

/// Whoever takes payments.
pub trait PaymentProvider: std::fmt::Debug + Send + Sync {
    /// One attempt at a request: the body of an answer that says yes.
    fn exchange<'a>(&'a self, request: &'a Request) -> Exchange<'a>;
}

/// Asks until there is a word, as often as the rules allow.
///
/// # Errors
///
/// [`Failure`].
pub(super) async fn ask<T: DeserializeOwned>(
    provider: &dyn PaymentProvider,
    request: &Request,
) -> Result<T, Failure> {
    let mut tries = 0;
    loop {
        tries += 1;
        match provider.exchange(request).await {
            Ok(body) => return read(&body),
            Err(failure) => {
                let Some(wait) = failure.again_after(tries) else {
                    return Err(failure);
                };
                tracing::debug!(path = request.path, %failure, tries, "asking Stripe again");
                tokio::time::sleep(wait).await;
            }
        }
    }
}
