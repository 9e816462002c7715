//! A second gateway beside a cluster's own, and settings that change while gateways run.

use std::net::SocketAddr;
use std::path::Path;

use super::{Cluster, Place, shown};
use crate::process::Process;

/// Another gateway of the same deployment.
#[derive(Debug)]
pub struct Second {
    /// Its process.
    pub process: Process,
    /// Its UDP address.
    pub tunnel: SocketAddr,
}

impl Cluster {
    /// Starts a second gateway with the same authorities and the same settings. With `store.url` they
    /// share the store; else it has a copy of the file as it is now.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub async fn second_gateway(&self) -> Second {
        let folder = self.place.folder.path();
        copy_all(&folder.join("gateway"), &folder.join("gateway-2"));
        let process = Process::start("gateway-2", self.place.gateway_of("gateway-2"), None);
        self.keep(&process);
        process.line_with("Ready.").await;
        let line = shown(&process, "tunnel ").await;
        let tunnel = line.split_whitespace().next().unwrap_or_default();
        match tunnel.parse() {
            Ok(tunnel) => Second { process, tunnel },
            Err(e) => panic!("the second gateway shows no tunnel address: {line}: {e}"),
        }
    }

    /// Replaces text in the gateway's configuration file.
    ///
    /// # Panics
    ///
    /// When the text is not there, or the file cannot be changed.
    pub fn edit_config(&self, old: &str, new: &str) {
        let file = self.config();
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(text.contains(old), "no {old:?} in {text}");
        if let Err(e) = std::fs::write(&file, text.replace(old, new)) {
            panic!("cannot write {}: {e}", file.display());
        }
    }

    /// Adds lines to the end of the gateway's configuration file.
    ///
    /// # Panics
    ///
    /// When the file cannot be changed.
    pub fn add_config(&self, lines: &str) {
        let file = self.config();
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if let Err(e) = std::fs::write(&file, text + lines) {
            panic!("cannot write {}: {e}", file.display());
        }
    }

    /// Lets the gateway read its settings anew and waits until it has.
    pub async fn reload_gateway(&self) {
        self.gateway.hang_up();
        self.gateway_says("are in force").await;
    }
}

impl Place {
    pub(super) fn gateway_of(&self, who: &str) -> std::process::Command {
        let mut command = self.synesis(who);
        command
            .envs(self.secrets.iter().copied())
            .args(["gateway", "--config"])
            .arg(self.folder.path().join("gateway.toml"));
        command
    }
}

fn copy_all(from: &Path, to: &Path) {
    if let Err(e) = std::fs::create_dir_all(to) {
        panic!("cannot make {}: {e}", to.display());
    }
    let Ok(entries) = std::fs::read_dir(from) else {
        panic!("cannot read {}", from.display());
    };
    for entry in entries.flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_all(&path, &target);
        } else if let Err(e) = std::fs::copy(&path, &target) {
            panic!("cannot copy {}: {e}", path.display());
        }
    }
}
