//! The `synesis` binary: see `mesh_tokio::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh_tokio::cli::main()
}
