//! `synesis completions SHELL`.

use clap::CommandFactory as _;

use super::Stop;
use super::args::{Cli, Completions};
use super::output::Output;

/// Prints the completion script.
pub(super) fn run(completions: &Completions, output: Output) -> Result<(), Stop> {
    let mut script = Vec::new();
    clap_complete::generate(
        completions.shell,
        &mut Cli::command(),
        "synesis",
        &mut script,
    );
    output.piece(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use clap_complete::Shell;

    use super::*;

    #[test]
    fn every_shells_script_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "synesis", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["doctor", "ask", "max-tokens", "login"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
