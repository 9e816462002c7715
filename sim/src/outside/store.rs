//! The store: real accounts under the real rules, a real hash chain, and crash semantics.
//!
//! What a gateway has asked and was not carried out when it dies is gone, and so is every hold of
//! its: holds are void by a crash, charges are for ever.

use std::collections::BTreeMap;

use mesh_core::api;
use mesh_core::billing::account::alert::{Alert, Mark};
use mesh_core::billing::account::{
    self, Account, Command, Denied, Entry, Facts, Lose, Prior, Release,
};
use mesh_core::billing::ledger::{self, Charge, Hash, Record, Stored};
use mesh_core::billing::money::Nanos;
use mesh_core::billing::tier::Tier;
use mesh_core::gateway::{
    Admitted, Ask, Granted, HoldFailed, NotAdmitted, Recalled, SettleFailed, Settled, Told,
    Unavailable,
};
use mesh_core::identity::Fingerprint;
use mesh_core::ids::{AccountId, DeviceId, RequestId};
use mesh_core::time::UnixMillis;

use crate::recorder::Balance;

/// One account with its ledger.
#[derive(Debug)]
struct Books {
    account: Account,
    chain: Vec<Stored>,
    head: Hash,
    /// How each request ended that did, for ever.
    ended: BTreeMap<RequestId, Prior>,
    /// What is known of answers under way, and at which gateway.
    checkpoints: BTreeMap<RequestId, (usize, Lose)>,
    /// Which gateway made a hold.
    holders: BTreeMap<RequestId, usize>,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Store {
    books: BTreeMap<AccountId, Books>,
    devices: BTreeMap<DeviceId, (AccountId, Fingerprint, bool)>,
    epoch: u64,
}

impl Books {
    fn charges(&self) -> impl Iterator<Item = &Charge> {
        self.ended.values().filter_map(|prior| match prior {
            Prior::Charged(charge) => Some(charge),
            Prior::Lost(_) => None,
        })
    }
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
        let mut books = Books {
            account: Account::new(tier, ceiling),
            chain: Vec::new(),
            head: Hash::START,
            ended: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            holders: BTreeMap::new(),
        };
        append(&mut books, id, now, Record::Opened { tier, ceiling })?;
        self.books.insert(id, books);
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

    /// Carries an ask out; `None` for a model call, which is none of the store's.
    ///
    /// # Errors
    ///
    /// When an entry could not be written that had been decided on: never, if the rules hold.
    pub fn carry_out(
        &mut self,
        now: UnixMillis,
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
            Ask::Settle { account, settle } => {
                let command = Command::Settle(settle.clone());
                let word = self.command(now, gateway, *account, command)?;
                let charge = self.charge(*account, settle.request).cloned().map(Box::new);
                Told::Settled(match (word, charge) {
                    (Ok(alert), Some(charge)) => Ok(Settled { charge, alert }),
                    (Err(denied @ Denied::Interrupted { .. }), _) => {
                        Err(SettleFailed::Denied(denied))
                    }
                    (Ok(_) | Err(_), _) => Err(SettleFailed::Unavailable),
                })
            }
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
                account, request, ..
            } => Told::Recalled(Ok(self.recall(*account, *request))),
            Ask::Call { .. } => return Ok(None),
        }))
    }

    /// What is known of an answer that the asking gateway does not have.
    fn recall(&self, account: AccountId, request: RequestId) -> Recalled {
        let Some(books) = self.books.get(&account) else {
            return Recalled::Nothing;
        };
        match books.ended.get(&request) {
            Some(Prior::Charged(charge)) => Recalled::Charged(Box::new(charge.clone())),
            Some(Prior::Lost(_)) => Recalled::Lost,
            None if books.account.holds.contains_key(&request) => Recalled::Elsewhere,
            None => Recalled::Nothing,
        }
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
        let Some(books) = self.books.get_mut(&id) else {
            return Ok(Err(Denied::UnknownAccount));
        };
        let facts = Facts {
            now,
            prior: books.ended.get(&command.request()).cloned(),
            provider_key: true,
        };
        let entries = match account::decide(&books.account, &facts, command) {
            Ok(entries) => entries,
            Err(denied) => return Ok(Err(denied)),
        };
        let before = Mark::of(&books.account);
        for entry in entries {
            account::apply(&mut books.account, now, &entry).map_err(|error| error.to_string())?;
            let request = entry.request();
            if matches!(entry, Entry::Held(..)) {
                books.holders.insert(request, gateway);
            } else {
                books.holders.remove(&request);
                books.checkpoints.remove(&request);
            }
            if let Some(record) = entry.record() {
                if let Some(prior) = Prior::of(&record) {
                    books.ended.insert(request, prior);
                }
                append(books, id, now, record)?;
            }
        }
        Ok(Ok(Alert::passed(before, &books.account)))
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

    /// What a request was charged.
    #[must_use]
    pub fn charge(&self, account: AccountId, request: RequestId) -> Option<&Charge> {
        match self.books.get(&account)?.ended.get(&request)? {
            Prior::Charged(charge) => Some(charge),
            Prior::Lost(_) => None,
        }
    }

    /// Checks every account against its own ledger: the chain, the balance of every entry, what was
    /// charged, and that nothing is negative.
    ///
    /// # Errors
    ///
    /// What does not agree.
    pub fn audit(&self) -> Result<(), Broken> {
        for (&id, books) in &self.books {
            let verified = ledger::verify(id, books.chain.iter().cloned())
                .map_err(|fault| fault.to_string())?;
            let charged: i128 = books
                .charges()
                .map(|charge| i128::from(charge.charge.0))
                .sum();
            if i128::from(verified.charged.0) != charged {
                return Err(format!("the ledger of {id} does not add up to its charges"));
            }
            let account = &books.account;
            let figures = [account.spent, account.used, account.owed];
            if figures.iter().any(|figure| figure.0 < 0) {
                return Err(format!("a figure of {id} is negative"));
            }
            let sum = i128::from(account.spent.0) + i128::from(account.owed.0);
            if sum != charged {
                return Err(format!(
                    "{id} was charged {charged}, its account says {sum}"
                ));
            }
            let held: i128 = account
                .holds
                .values()
                .map(|held| i128::from(held.charge.0))
                .sum();
            if i128::from(account.spent.0) + held > i128::from(account.ceiling.0) {
                return Err(format!("holds and spending of {id} are over its ceiling"));
            }
        }
        Ok(())
    }
}

fn append(books: &mut Books, id: AccountId, now: UnixMillis, record: Record) -> Result<(), Broken> {
    let sequence = books.chain.len() as u64;
    let entry = ledger::Entry::new(sequence, now, record).map_err(|error| error.to_string())?;
    let canonical = entry.canonical().map_err(|error| error.to_string())?;
    books.head = ledger::link(id, books.head, &canonical);
    books.chain.push(Stored {
        sequence,
        canonical,
        hash: books.head,
    });
    Ok(())
}
