//! What can go wrong with a store, in words for the person who runs the gateway.

use std::path::{Path, PathBuf};

use mesh_core::billing::account::Denied;
use mesh_core::billing::account::order::Refused;
use mesh_core::billing::money::Overflow;
use mesh_core::gateway::{HoldFailed, NotAdmitted, SettleFailed, Unavailable};
use rusqlite::ErrorCode;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A gateway runs on it.
    #[error("another gateway has {path} open; stop it first, or use another data folder")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// Not made by this program.
    #[error("{path} is not a store of synesis; move it away, or use another data folder")]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// A database has a schema of our name that is not ours.
    #[error(
        "the schema \"synesis\" of {place} is not a store of synesis; rename it, or use another \
         database"
    )]
    ForeignSchema {
        /// Which database.
        place: String,
    },
    /// Made by a newer one.
    #[error(
        "{path} was written by a newer synesis (schema {found}, this one knows {known}); \
         upgrade this one"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest known one.
        known: u32,
    },
    /// SQLite or the operating system refused.
    #[error("cannot open {path}: {reason}")]
    Refused {
        /// Which file.
        path: PathBuf,
        /// Why, and what to do.
        reason: StoreError,
    },
}

impl OpenError {
    pub(super) fn refused(path: &Path, reason: impl Into<StoreError>) -> Self {
        Self::Refused {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The account's rules say no.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The order is refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The device may not come in.
    #[error(transparent)]
    NotAdmitted(NotAdmitted),
    /// There is no such account.
    #[error("there is no such account; `synesis admin account list` has all there are")]
    UnknownAccount,
    /// There is no such key.
    #[error("there is no such API key; `synesis admin key list` has all there are")]
    UnknownKey,
    /// The key was revoked.
    #[error("the API key was revoked; `synesis admin key create` makes another")]
    KeyRevoked,
    /// There is no such device.
    #[error("there is no such device; `synesis admin device list` has all there are")]
    UnknownDevice,
    /// Another account has the name.
    #[error("there is an account of that name already; choose another name")]
    NameTaken,
    /// Not a name.
    #[error(
        "a name has 1 to {} characters, none of them a control character",
        mesh_core::limits::NAME_CHARS_MAX
    )]
    BadName,
    /// The device's id was enrolled before.
    #[error("a device of that id is enrolled already")]
    DeviceTaken,
    /// The account has as many devices as it may.
    #[error(
        "the account has {} devices; revoked ones count too",
        mesh_core::limits::DEVICES_PER_ACCOUNT_MAX
    )]
    TooManyDevices,
    /// Asked of a store that was opened for administration.
    #[error("only the gateway itself moves money and lets devices in")]
    NotTheGateway,
    /// The queue is full.
    #[error("the store has too much to do; try again shortly")]
    Busy,
    /// The writer has ended.
    #[error("the store was closed")]
    Closed,
    /// No room left.
    #[error("the disk is full: make room, and the gateway goes on by itself")]
    Full,
    /// Another process has it locked.
    #[error("another program has the store locked; try again when it is done")]
    Locked,
    /// The database server does not answer.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// The file is not what it should be.
    #[error("the store's file is damaged ({0}); restore it from a backup")]
    Damaged(String),
    /// Anything else.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// Whether the store did not do it for reasons of its own, so that the same may succeed later.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        match self {
            Self::Busy
            | Self::Closed
            | Self::Full
            | Self::Locked
            | Self::Unreachable(_)
            | Self::Damaged(_)
            | Self::Failed(_) => true,
            Self::Denied(_)
            | Self::Refused(_)
            | Self::NotAdmitted(_)
            | Self::UnknownAccount
            | Self::UnknownKey
            | Self::KeyRevoked
            | Self::UnknownDevice
            | Self::NameTaken
            | Self::BadName
            | Self::DeviceTaken
            | Self::TooManyDevices
            | Self::NotTheGateway => false,
        }
    }
}

impl From<Overflow> for StoreError {
    fn from(overflow: Overflow) -> Self {
        Self::Denied(overflow.into())
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            // No code of SQLite's: a value was not what the schema promises.
            None => Self::Damaged(error.to_string()),
            Some(_) => Self::Failed(error.to_string()),
        }
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            Self::Full
        } else {
            Self::Failed(error.to_string())
        }
    }
}

impl From<StoreError> for HoldFailed {
    fn from(error: StoreError) -> Self {
        if let StoreError::Denied(denied) = error {
            Self::Denied(denied)
        } else if error == StoreError::UnknownAccount {
            Self::Denied(Denied::UnknownAccount)
        } else {
            Self::Unavailable
        }
    }
}

impl From<StoreError> for SettleFailed {
    fn from(error: StoreError) -> Self {
        if let StoreError::Denied(denied @ Denied::Interrupted { .. }) = error {
            Self::Denied(denied)
        } else {
            // Said again until it is written: what was used is never dropped.
            Self::Unavailable
        }
    }
}

impl From<StoreError> for NotAdmitted {
    fn from(error: StoreError) -> Self {
        if let StoreError::NotAdmitted(refused) = error {
            refused
        } else {
            Self::Unavailable
        }
    }
}

impl From<StoreError> for Unavailable {
    fn from(_: StoreError) -> Self {
        Self
    }
}
