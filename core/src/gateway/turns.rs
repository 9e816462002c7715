//! How much may be asked: so many questions of a device and of its account in a minute, and so many answers
//! that run at once.

use super::answers::AnswerId;
use super::{Gateway, terms};
use crate::ids::{AccountId, DeviceId, RequestId};
use crate::time::Now;
use crate::transport::{ConnId, Transport};
use crate::wire::message::ErrorMessage;

impl<T: Transport> Gateway<T> {
    /// Whether a new question may be taken now; if so, it counts. One that has to wait for another to end
    /// does not: its device comes back for it every second.
    pub(super) fn may_ask(
        &mut self,
        now: Now,
        account: AccountId,
        device: DeviceId,
        id: RequestId,
    ) -> Result<(), ErrorMessage> {
        if self.draining.is_some() {
            return Err(terms::stopping(id));
        }
        let rates = self.config.rates;
        self.within_rates(now, account, device, Some(id))?;
        if self.running_of_device.of(&device) >= rates.device_at_once {
            return Err(terms::too_many_at_once(rates.device_at_once, "device", id));
        }
        if self.running_of_account.of(&account) >= rates.account_at_once {
            let most = rates.account_at_once;
            return Err(terms::too_many_at_once(most, "account", id));
        }
        self.count_turn(now, account, device);
        Ok(())
    }

    /// Whether the asker may ask once more in this minute.
    fn within_rates(
        &self,
        now: Now,
        account: AccountId,
        device: DeviceId,
        id: Option<RequestId>,
    ) -> Result<(), ErrorMessage> {
        let rates = self.config.rates;
        let (of_device, of_account) = (rates.device_per_minute, rates.account_per_minute);
        self.asked_by_device
            .look(now.instant, device, of_device)
            .map_err(|wait| terms::too_often(wait, "device", id))?;
        self.asked_by_account
            .look(now.instant, account, of_account)
            .map_err(|wait| terms::too_often(wait, "account", id))?;
        Ok(())
    }

    /// Takes one from the asker's requests of this minute.
    fn count_turn(&mut self, now: Now, account: AccountId, device: DeviceId) {
        let rates = self.config.rates;
        self.asked_by_device
            .take(now.instant, device, rates.device_per_minute);
        self.asked_by_account
            .take(now.instant, account, rates.account_per_minute);
    }

    /// The store knows the question: it has been counted by the gateway that took it, and whoever comes back
    /// for its answer every second asks nothing new.
    pub(super) fn give_turn_back(&mut self, id: AnswerId) {
        if let Some(running) = self.answers.get(&id) {
            let rates = self.config.rates;
            self.asked_by_device
                .give_back(running.device, rates.device_per_minute);
            self.asked_by_account
                .give_back(running.account, rates.account_per_minute);
        }
    }

    /// What makes a model's server work counts as a question does, free or not.
    pub(super) fn take_a_turn(&mut self, now: Now, conn: ConnId) -> Result<(), ErrorMessage> {
        match self.asker(conn) {
            Some((account, device)) => {
                self.within_rates(now, account, device, None)?;
                self.count_turn(now, account, device);
                Ok(())
            }
            None => Ok(()),
        }
    }
}
