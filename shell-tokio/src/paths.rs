//! Where things are kept: one folder for everything, unless its owner says otherwise.
//!
//! ```text
//!   DATA/device/    key, certificate, conversations, the agent's socket
//!   DATA/gateway/   store, authorities, keys
//!   DATA/up/        both of it again, for `synesis up`
//! ```

use std::path::{Path, PathBuf};

/// The folders below one data folder. Nothing is made by asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// Everything below `root`.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Below the platform's folder for data; in the current folder where the user has no home.
    #[must_use]
    pub fn of_platform() -> Self {
        let dirs = directories::ProjectDirs::from("", "", "synesis");
        Self::new(dirs.map_or_else(
            || PathBuf::from("synesis-data"),
            |d| d.data_dir().to_owned(),
        ))
    }

    /// Everything.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The device's.
    #[must_use]
    pub fn device(&self) -> PathBuf {
        self.root.join("device")
    }

    /// The device's conversations.
    #[must_use]
    pub fn sessions(&self) -> PathBuf {
        self.device().join("sessions")
    }

    /// The gateway's.
    #[must_use]
    pub fn gateway(&self) -> PathBuf {
        self.root.join("gateway")
    }

    /// The folders of `synesis up`.
    #[must_use]
    pub fn up(&self) -> Self {
        Self::new(self.root.join("up"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_and_gateway_share_no_folder_and_up_shares_none_with_either() {
        let paths = Paths::new("/data".into());
        assert_eq!(paths.device(), Path::new("/data/device"));
        assert_eq!(paths.sessions(), Path::new("/data/device/sessions"));
        assert_eq!(paths.gateway(), Path::new("/data/gateway"));
        assert_eq!(paths.up().device(), Path::new("/data/up/device"));
    }
}
