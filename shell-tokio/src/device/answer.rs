//! One answer as it comes, from this process's own tunnel or through the agent.

use mesh_core::device::control;
pub use mesh_core::device::control::Part;
use mesh_core::ids::RequestId;
use mesh_core::wire::message::StreamEnd;
use tokio::sync::{mpsc, oneshot};

use super::client::Order;
use crate::error::Error;

/// Pieces that wait for whoever asked. Over it: the source waits, and the gateway with it.
pub(crate) const PIECES_WAITING_MAX: usize = 64;

/// What the source of an answer has to tell.
pub(crate) type News = control::News<Error>;

/// An answer under way. Dropping it cancels it, at the provider too.
#[derive(Debug)]
pub struct Answer {
    request_id: RequestId,
    news: mpsc::Receiver<News>,
    cancel: Option<oneshot::Sender<()>>,
    receipt: Option<Box<StreamEnd>>,
    over: bool,
    /// Who keeps it until it is taken.
    keeper: Option<mpsc::WeakSender<Order>>,
}

/// Nobody wants more of it: its end was had and it need be kept no longer, or it is cancelled, before
/// whatever its client is told next.
impl Drop for Answer {
    fn drop(&mut self) {
        let orders = self.keeper.take().and_then(|keeper| keeper.upgrade());
        let order = if self.over {
            Order::Taken(self.request_id)
        } else {
            Order::Cancel(self.request_id)
        };
        if let Some(orders) = orders {
            // With a full queue it stays kept until its time is over; a cancel is sent besides.
            let _full = orders.try_send(order);
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// The text.
    pub content: String,
    /// Usage and charge.
    pub receipt: StreamEnd,
}

/// The other end of an [`Answer`].
#[derive(Debug)]
pub(crate) struct Source {
    /// Where news goes; closed when the answer was dropped.
    pub(crate) news: mpsc::Sender<News>,
    /// Resolves when the answer is cancelled or dropped.
    pub(crate) cancelled: oneshot::Receiver<()>,
}

impl Answer {
    /// An answer and the end that feeds it.
    pub(crate) fn new(request_id: RequestId) -> (Self, Source) {
        let (sender, news) = mpsc::channel(PIECES_WAITING_MAX);
        let (cancel, cancelled) = oneshot::channel();
        let answer = Self {
            request_id,
            news,
            cancel: Some(cancel),
            receipt: None,
            over: false,
            keeper: None,
        };
        (
            answer,
            Source {
                news: sender,
                cancelled,
            },
        )
    }

    /// One whose end is kept until it was had.
    pub(crate) fn kept_by(mut self, orders: mpsc::WeakSender<Order>) -> Self {
        self.keeper = Some(orders);
        self
    }

    /// The question's id, which is on the ledger entry too.
    #[must_use]
    pub const fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// The next piece of the text, or what became of the tunnel that it comes through; `None` when
    /// the answer is whole and its [receipt](Self::receipt) is there.
    ///
    /// Cancel safe: dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// When the answer fails; what came before is all there will be.
    pub async fn recv(&mut self) -> Result<Option<Part>, Error> {
        if self.over {
            return Ok(None);
        }
        match self.news.recv().await {
            Some(News::Part(part)) => Ok(Some(part)),
            Some(News::Ended(receipt)) => {
                self.over = true;
                self.receipt = Some(receipt);
                Ok(None)
            }
            Some(News::Failed(error)) => {
                self.over = true;
                Err(error)
            }
            None => {
                self.over = true;
                Err(Error::NotConnected {
                    doing: "waiting for an answer",
                })
            }
        }
    }

    /// The next piece of the text, or `None` when the answer is whole and its [receipt] is there.
    ///
    /// Cancel safe: dropping the future loses nothing.
    ///
    /// [receipt]: Self::receipt
    ///
    /// # Errors
    ///
    /// When the answer fails; what came before is all there will be.
    pub async fn recv_chunk(&mut self) -> Result<Option<String>, Error> {
        loop {
            match self.recv().await? {
                Some(Part::Text(text)) => return Ok(Some(text)),
                Some(Part::Delta(_) | Part::Cut | Part::Resumed(_) | Part::Notice(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// Usage and charge; there once [`Self::recv_chunk`] has returned `None`.
    #[must_use]
    pub fn receipt(&self) -> Option<&StreamEnd> {
        self.receipt.as_deref()
    }

    /// Waits for the rest and puts it together.
    ///
    /// # Errors
    ///
    /// As [`Self::recv_chunk`].
    pub async fn collect(mut self) -> Result<Collected, Error> {
        let mut content = String::new();
        while let Some(piece) = self.recv_chunk().await? {
            content.push_str(&piece);
        }
        match self.receipt.take() {
            Some(receipt) => Ok(Collected {
                content,
                receipt: *receipt,
            }),
            None => Err(Error::NotConnected {
                doing: "waiting for an answer",
            }),
        }
    }

    /// Asks for no more: the gateway stops the model and charges what was produced. Pieces already
    /// on their way, and the receipt, still come.
    pub fn cancel(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            let _ = cancel.send(());
        }
    }
}
