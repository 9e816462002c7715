//! The `synesis-lite` program.

fn main() -> std::process::ExitCode {
    mesh_smol::cli::main()
}
