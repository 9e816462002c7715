//! The store: real accounts under the real rules, a real hash chain, and crash semantics.
//!
//! What a gateway has asked and was not carried out when it dies is gone, and so is every hold of
//! its: holds are void by a crash, charges are for ever. What answers said is kept by the store's own
//! clock, which is right.

mod books;

use std::collections::BTreeMap;

use mesh_core::api;
use mesh_core::billing::account::alert::Alert;
use mesh_core::billing::account::order::{self, Order, Refused};
use mesh_core::billing::account::{Command, Denied, Lose, Prior, Release};
use mesh_core::billing::ledger::Charge;
use mesh_core::billing::ledger::seal::{Head, Seal, SealKey};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::tier::Tier;
use mesh_core::gateway::{
    Admitted, Ask, Granted, HoldFailed, Keep, NotAdmitted, Recalled, SettleFailed, Settled, Told,
    Transcript, Unavailable,
};
use mesh_core::identity::Fingerprint;
use mesh_core::ids::{AccountId, DeviceId, RequestId};
use mesh_core::time::UnixMillis;

pub use self::books::{Books, Ordered};
use crate::recorder::Balance;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Store {
    books: BTreeMap<AccountId, Books>,
    devices: BTreeMap<DeviceId, (AccountId, Fingerprint, bool)>,
    epoch: u64,
    answers: BTreeMap<(AccountId, RequestId), Spoken>,
}

/// What a finished answer said.
#[derive(Clone, Debug)]
struct Spoken {
    transcript: Transcript,
    ends_at: UnixMillis,
}

/// What a failure of the books is called.
type Broken = String;

impl Store {
    /// Opens an account.
    ///
    /// # Errors
    ///
    /// When the ledger cannot hold it.
    pub fn open(&mut self, id: AccountId, ceiling: i64, now: UnixMillis) -> Result<(), Broken> {
        let (tier, ceiling) = (Tier::MANAGED, Nanos(ceiling));
        self.books.insert(id, Books::open(id, tier, ceiling, now)?);
        Ok(())
    }

    /// Enrols a device, or gives it a new certificate.
    pub fn enrol(&mut self, device: DeviceId, account: AccountId, certificate: Fingerprint) {
        self.devices.insert(device, (account, certificate, false));
    }

    /// Revokes a device.
    pub fn revoke(&mut self, device: DeviceId) {
        if let Some(entry) = self.devices.get_mut(&device) {
            entry.2 = true;
        }
    }

    /// Carries an ask out that a gateway made at `now` by its clock; `None` for a model call, which is none
    /// of the store's.
    ///
    /// # Errors
    ///
    /// When an entry could not be written that had been decided on: never, if the rules hold.
    pub fn carry_out(
        &mut self,
        now: UnixMillis,
        clock: UnixMillis,
        gateway: usize,
        ask: &Ask,
    ) -> Result<Option<Told>, Broken> {
        Ok(Some(match ask {
            Ask::Admit {
                device,
                certificate,
            } => Told::Admitted(self.admit(*device, *certificate)),
            Ask::Hold { account, hold } => {
                let command = Command::Hold(hold.clone());
                let word = self.command(now, gateway, *account, command)?;
                Told::Held(
                    word.map_err(HoldFailed::Denied)
                        .and_then(|_| self.granted(*account)),
                )
            }
            Ask::Settle {
                account,
                settle,
                keep,
            } => {
                let command = Command::Settle(settle.clone());
                let charged_before = self.charge(*account, settle.request).is_some();
                let word = self.command(now, gateway, *account, command)?;
                if let (Ok(_), Some(keep), false) = (&word, keep, charged_before) {
                    self.keep(clock, (*account, settle.request), keep);
                }
                let charge = self.charge(*account, settle.request).cloned().map(Box::new);
                Told::Settled(match (word, charge) {
                    (Ok(alert), Some(charge)) => Ok(Settled { charge, alert }),
                    (Err(denied @ Denied::Interrupted { .. }), _) => {
                        Err(SettleFailed::Denied(denied))
                    }
                    (Ok(_) | Err(_), _) => Err(SettleFailed::Unavailable),
                })
            }
            Ask::Lose { account, lose } => Told::Lost(self.cut_off(now, gateway, *account, lose)?),
            Ask::Checkpoint { account, lose } => {
                Told::Checkpointed(self.checkpoint(gateway, *account, lose))
            }
            Ask::Release { account, release } => {
                let word = self.release(now, gateway, *account, *release)?;
                Told::Released(word.map_err(|_| Unavailable))
            }
            Ask::Service { account, .. } => Told::Served(
                self.books
                    .get(account)
                    .and_then(|books| books.account.summary(now).ok())
                    .ok_or(Unavailable.in_words())
                    .and_then(|summary| api::encode(&summary)),
            ),
            Ask::Recall {
                account,
                device,
                request,
            } => Told::Recalled(Ok(self.recall(clock, *account, *device, *request))),
            Ask::Call { .. } => return Ok(None),
        }))
    }

    /// What is known of an answer that the asking gateway does not have.
    fn recall(
        &self,
        clock: UnixMillis,
        account: AccountId,
        device: DeviceId,
        request: RequestId,
    ) -> Recalled {
        let Some(books) = self.books.get(&account) else {
            return Recalled::Nothing;
        };
        let of_another = |whose: Option<DeviceId>| whose.is_some_and(|other| other != device);
        match (books.ended.get(&request), books.account.holds.get(&request)) {
            (Some(Prior::Charged(charge)), _) if of_another(charge.device) => Recalled::NotYours,
            (Some(Prior::Charged(charge)), _) => {
                let charge = Box::new(charge.clone());
                let spoken = self.answers.get(&(account, request));
                match spoken.filter(|spoken| clock < spoken.ends_at) {
                    Some(Spoken { transcript, .. }) => Recalled::Kept {
                        charge,
                        transcript: transcript.clone(),
                    },
                    None => Recalled::Charged(charge),
                }
            }
            (Some(Prior::Lost(loss)), _) if of_another(loss.device) => Recalled::NotYours,
            (Some(Prior::Lost(_)), _) => Recalled::Lost,
            (None, Some(held)) if of_another(held.device) => Recalled::NotYours,
            (None, Some(_)) => Recalled::Elsewhere,
            (None, None) => Recalled::Nothing,
        }
    }

    fn keep(&mut self, clock: UnixMillis, whose: (AccountId, RequestId), keep: &Keep) {
        let kept = u64::try_from(keep.kept.as_millis()).unwrap_or(u64::MAX);
        let spoken = Spoken {
            transcript: keep.transcript.clone(),
            ends_at: UnixMillis(clock.0.saturating_add(kept)),
        };
        self.answers.insert(whose, spoken);
    }

    /// Deletes what answers said that has been kept long enough.
    pub fn forget_answers(&mut self, clock: UnixMillis) {
        self.answers.retain(|_, spoken| clock < spoken.ends_at);
    }

    /// The answers whose text is kept.
    pub fn kept(&self) -> impl Iterator<Item = RequestId> {
        self.answers.keys().map(|&(_, request)| request)
    }

    fn admit(
        &mut self,
        device: DeviceId,
        certificate: Fingerprint,
    ) -> Result<Admitted, NotAdmitted> {
        match self.devices.get(&device) {
            None => Err(NotAdmitted::Unknown),
            Some((.., true)) => Err(NotAdmitted::Revoked),
            Some((_, known, _)) if *known != certificate => Err(NotAdmitted::Mismatched),
            Some(&(account, ..)) => {
                self.epoch += 1;
                Ok(Admitted {
                    account,
                    epoch: self.epoch,
                })
            }
        }
    }

    /// A hold's name is one gateway's: another gateway's hold of the same request is never meant.
    fn release(
        &mut self,
        now: UnixMillis,
        gateway: usize,
        account: AccountId,
        release: Release,
    ) -> Result<Result<(), Denied>, Broken> {
        let books = self.books.get(&account);
        let holder = books.and_then(|books| books.holders.get(&release.request));
        if holder.is_some_and(|&holder| holder != gateway) {
            return Ok(Ok(()));
        }
        let command = Command::Release(release);
        Ok(self.command(now, gateway, account, command)?.map(drop))
    }

    fn granted(&self, account: AccountId) -> Result<Granted, HoldFailed> {
        let books = self.books.get(&account).ok_or(HoldFailed::Unavailable)?;
        Ok(Granted {
            tier: books.account.tier,
        })
    }

    /// Books what an answer has used that its own gateway cuts off.
    fn cut_off(
        &mut self,
        now: UnixMillis,
        gateway: usize,
        account: AccountId,
        lose: &Lose,
    ) -> Result<Result<(), Unavailable>, Broken> {
        let books = self.books.get(&account);
        let holder = books.and_then(|books| books.holders.get(&lose.request));
        if holder.is_some_and(|&holder| holder != gateway) {
            return Ok(Ok(()));
        }
        let command = Command::Lose(lose.clone());
        let word = self.command(now, gateway, account, command)?;
        Ok(word.map(drop).map_err(|_| Unavailable))
    }

    /// Remembers what would be lost, while the request is held.
    fn checkpoint(
        &mut self,
        gateway: usize,
        account: AccountId,
        lose: &Lose,
    ) -> Result<(), Unavailable> {
        let books = self.books.get_mut(&account).ok_or(Unavailable)?;
        if books.holders.get(&lose.request) == Some(&gateway) {
            books
                .checkpoints
                .insert(lose.request, (gateway, lose.clone()));
        }
        Ok(())
    }

    fn command(
        &mut self,
        now: UnixMillis,
        gateway: usize,
        id: AccountId,
        command: Command,
    ) -> Result<Result<Option<Alert>, Denied>, Broken> {
        match self.books.get_mut(&id) {
            Some(books) => books.command(now, gateway, command),
            None => Ok(Err(Denied::UnknownAccount)),
        }
    }

    /// Carries out what is ordered of an account.
    ///
    /// # Errors
    ///
    /// When an entry could not be written that had been decided on: never, if the rules hold.
    pub fn order(
        &mut self,
        now: UnixMillis,
        account: AccountId,
        order: &Order,
    ) -> Result<Result<Ordered, Refused>, Broken> {
        let books = self.books.get_mut(&account);
        books.ok_or("no such account")?.order(now, order)
    }

    /// Invoices the months that are over, and takes credits off the books that have ended.
    ///
    /// # Errors
    ///
    /// When a month that is due cannot be invoiced, or an entry could not be written: never, if the
    /// rules hold.
    pub fn close_and_lapse(&mut self, now: UnixMillis) -> Result<(), Broken> {
        for books in self.books.values_mut() {
            for month in order::due(&books.account, now) {
                let closed = books.order(now, &Order::close(month))?;
                closed.map_err(|refused| refused.to_string())?;
            }
            books.lapse(now)?;
        }
        Ok(())
    }

    /// Signs where all ledgers end.
    #[must_use]
    pub fn seal(&self, now: UnixMillis, key: &SealKey) -> Seal {
        let head = |books: &Books| Head {
            entries: books.chain.len() as u64,
            hash: books.head(),
        };
        let heads = self.books.iter().map(|(&id, books)| (id, head(books)));
        Seal::new(now, heads.collect(), key)
    }

    /// Every account's books.
    pub fn books(&self) -> impl Iterator<Item = (AccountId, &Books)> {
        self.books.iter().map(|(&id, books)| (id, books))
    }

    /// A gateway died: its holds are void, and what its answers had used is the operator's loss.
    ///
    /// # Errors
    ///
    /// When a loss could not be written: never, if the rules hold.
    pub fn lose_all_of(&mut self, now: UnixMillis, gateway: usize) -> Result<(), Broken> {
        let mut lost = Vec::new();
        for (&id, books) in &mut self.books {
            let of = |(_, holder): &(&RequestId, &usize)| **holder == gateway;
            let gone: Vec<RequestId> = books.holders.iter().filter(of).map(|(id, _)| *id).collect();
            for request in gone {
                books.holders.remove(&request);
                books.account.holds.remove(&request);
            }
            let of = |(holder, _): &&(usize, Lose)| *holder == gateway;
            let known = books.checkpoints.values().filter(of);
            lost.extend(known.map(|(_, lose)| (id, lose.clone())));
        }
        for (id, lose) in lost {
            let word = self.command(now, gateway, id, Command::Lose(lose))?;
            word.map_err(|denied| denied.to_string())?;
        }
        Ok(())
    }

    /// Holds that are not settled or released.
    pub fn holds(&self) -> impl Iterator<Item = RequestId> {
        self.books
            .values()
            .flat_map(|books| books.account.holds.keys().copied())
    }

    /// What is set aside for a request.
    #[must_use]
    pub fn held(&self, account: AccountId, request: RequestId) -> Option<Nanos> {
        let held = self.books.get(&account)?.account.holds.get(&request)?;
        Some(held.charge)
    }

    /// Where every account stands.
    pub fn balances(&self) -> impl Iterator<Item = Balance> {
        self.books.iter().map(|(&account, books)| Balance {
            account,
            ceiling: books.account.ceiling,
            spent: books.account.spent,
            held: Nanos(books.account.holds.values().map(|held| held.charge.0).sum()),
            owed: books.account.owed,
            charges: books.charges().count(),
        })
    }

    /// Whether an id has ended for ever, charged or lost.
    #[must_use]
    pub fn has_ended(&self, account: AccountId, request: RequestId) -> bool {
        let books = self.books.get(&account);
        books.is_some_and(|books| books.ended.contains_key(&request))
    }

    /// What a request was charged.
    #[must_use]
    pub fn charge(&self, account: AccountId, request: RequestId) -> Option<&Charge> {
        match self.books.get(&account)?.ended.get(&request)? {
            Prior::Charged(charge) => Some(charge),
            Prior::Lost(_) => None,
        }
    }
}
