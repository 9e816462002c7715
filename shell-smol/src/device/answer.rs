//! One answer as it comes.
//!
//! A reader that is slower than its answer has the gateway wait: past so many pieces the
//! host asks the machine to read no more, and the reader asks it to read on once it has caught up.
//! What was on its way meanwhile waits here, bounded by the transport's windows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mesh_core::device::control;
pub use mesh_core::device::control::Part;
use mesh_core::ids::RequestId;
use mesh_core::wire::message::StreamEnd;
use smol::channel::{self, Receiver, Sender};

use super::host::Order;
use crate::error::Error;

/// Pieces that may wait for the reader before the gateway has to.
pub(super) const PIECES_WAITING_MAX: usize = 64;

/// What the source of an answer has to tell.
pub(super) type News = control::News<Error>;

/// The host's end of an [`Answer`].
#[derive(Debug)]
pub(crate) struct Source {
    pub(super) news: Sender<News>,
    /// The gateway was asked to wait, and the reader will say when it has caught up.
    pub(super) paused: Arc<AtomicBool>,
}

/// An answer under way. Dropping it cancels it, at the provider too.
#[derive(Debug)]
pub struct Answer {
    request_id: RequestId,
    news: Receiver<News>,
    paused: Arc<AtomicBool>,
    orders: Sender<Order>,
    receipt: Option<Box<StreamEnd>>,
    over: bool,
}

impl Answer {
    /// An answer and the end that feeds it.
    pub(super) fn new(request_id: RequestId, orders: Sender<Order>) -> (Self, Source) {
        let (sender, news) = channel::unbounded();
        let paused = Arc::new(AtomicBool::new(false));
        let source = Source {
            news: sender,
            paused: Arc::clone(&paused),
        };
        let answer = Self {
            request_id,
            news,
            paused,
            orders,
            receipt: None,
            over: false,
        };
        (answer, source)
    }

    /// The next piece of the text, or what became of the tunnel that it comes through; `None` when
    /// the answer is whole and its [receipt] is there.
    ///
    /// Cancel safe: dropping the future loses nothing.
    ///
    /// [receipt]: Self::receipt
    ///
    /// # Errors
    ///
    /// When the answer fails; what came before is all there will be.
    pub async fn next(&mut self) -> Result<Option<Part>, Error> {
        if self.over {
            return Ok(None);
        }
        if self.news.is_empty() && self.paused.load(Ordering::Relaxed) {
            // The driver has ended: the channel says so below.
            let _ended = self.orders.send(Order::ReadOn(self.request_id)).await;
        }
        match self.news.recv().await {
            Ok(News::Part(part)) => Ok(Some(part)),
            Ok(News::Ended(receipt)) => {
                self.over = true;
                self.receipt = Some(receipt);
                Ok(None)
            }
            Ok(News::Failed(error)) => {
                self.over = true;
                Err(error)
            }
            Err(_) => {
                self.over = true;
                Err(Error::not_connected("waiting for an answer"))
            }
        }
    }

    /// Usage and charge; there once [`Self::next`] has returned `None`.
    #[must_use]
    pub fn receipt(&self) -> Option<&StreamEnd> {
        self.receipt.as_deref()
    }

    /// Asks for no more: the gateway stops the model and charges what was produced. Pieces already
    /// on their way, and the receipt, still come.
    pub async fn cancel(&self) {
        let _ended = self.orders.send(Order::Cancel(self.request_id)).await;
    }
}

/// Nobody wants more of it: it is cancelled, or its end was had and need be kept no longer.
impl Drop for Answer {
    fn drop(&mut self) {
        let order = if self.over {
            Order::Taken(self.request_id)
        } else {
            Order::Cancel(self.request_id)
        };
        let _full = self.orders.try_send(order);
    }
}
