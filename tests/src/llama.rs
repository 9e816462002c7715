//! A real model server: llama.cpp's own, with a tiny model of random weights. `tests/llama/install`
//! builds both and prints the folder that `TEST_LLAMA_DIR` names.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use crate::process::Process;

/// A running server.
#[derive(Debug)]
pub struct LlamaServer {
    address: SocketAddr,
    _process: Process,
}

impl LlamaServer {
    /// Starts one; `None`, saying so, when it is not installed.
    ///
    /// # Panics
    ///
    /// When `TEST_LLAMA` says that it is required, or it does not come up.
    pub async fn start() -> Option<Self> {
        let Some(folder) = std::env::var_os("TEST_LLAMA_DIR").map(PathBuf::from) else {
            let required = std::env::var("TEST_LLAMA").is_ok_and(|value| value == "required");
            assert!(
                !required,
                "TEST_LLAMA_DIR does not say where llama-server is"
            );
            // Past the harness, which keeps what tests print to itself.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: there is no llama-server. TEST_LLAMA_DIR=$(tests/llama/install) runs this test"
            );
            return None;
        };
        // The system gives it to nobody else for a while.
        let listener = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = match listener {
            Ok(address) => address,
            Err(error) => panic!("no port: {error}"),
        };
        let mut command = Command::new(folder.join("llama-server"));
        command.arg("-m").arg(folder.join("tiny.gguf"));
        command
            .args(["--alias", "tiny", "--host", "127.0.0.1"])
            .args(["--port", &address.port().to_string()])
            .args([
                "-c",
                "4096",
                "-np",
                "4",
                "-t",
                "1",
                "--no-warmup",
                "--jinja",
            ]);
        let process = Process::start("llama-server", command, None);
        process.line_with("listening on").await;
        Some(Self {
            address,
            _process: process,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}
