//! Which deployment a gateway belongs to: the store knows the authorities that its devices were enrolled
//! under, and a gateway with others is refused before it serves anybody. It would turn half of the devices
//! away, and enrol others whom the rest of the gateways turn away.

use std::path::Path;

use mesh_core::time::UnixMillis;

use super::ca::{CaError, CertificateAuthority};
use super::store::Store;
use crate::error::Error;

/// Opens the authorities in a folder, if they are those of the store. Where neither has any they are
/// made, and the store's from then on.
///
/// # Errors
///
/// [`Error::Certificate`] with what to do when the store has others, or the folder has none or damaged ones;
/// the store is unavailable.
pub async fn open(
    store: &Store,
    folder: &Path,
    now: UnixMillis,
) -> Result<CertificateAuthority, Error> {
    // Before any are made: where they are missing they are to be copied, and nothing should be in the way.
    if store.authorities().await?.is_some() && !CertificateAuthority::is_there(folder)? {
        let path = folder.to_owned();
        return Err(CaError::Absent { path }.into());
    }
    let ca = CertificateAuthority::open_or_make(folder, now)?;
    let own = ca.fingerprint()?;
    if store.claim_authorities(own).await? != own {
        let path = folder.to_owned();
        return Err(CaError::Foreign { path }.into());
    }
    Ok(ca)
}

/// Makes the authorities in a folder the store's, whichever it had; they are made if there are none.
///
/// # Errors
///
/// [`Error::Certificate`] when those of the folder are damaged; the store is unavailable.
pub async fn adopt(
    store: &Store,
    folder: &Path,
    now: UnixMillis,
) -> Result<CertificateAuthority, Error> {
    let ca = CertificateAuthority::open_or_make(folder, now)?;
    store.adopt_authorities(ca.fingerprint()?).await?;
    Ok(ca)
}
