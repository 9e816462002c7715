//! `synesis privacy check`: what of a file would stay on this device, before anything is sent.

use std::io::Read as _;

use mesh_core::limits::CONTEXT_BYTES_MAX;
use mesh_core::privacy::redact::Redactor;
use serde_json::json;

use super::args::{Privacy, PrivacyCheck};
use super::{Scene, Stop};
use crate::device::settings::Settings;
use crate::error::Error;

/// Runs it.
pub(super) fn run(command: &Privacy, scene: &Scene) -> Result<(), Stop> {
    match command {
        Privacy::Check(check) => run_check(check, scene),
    }
}

fn run_check(check: &PrivacyCheck, scene: &Scene) -> Result<(), Stop> {
    let output = scene.output;
    let text = read(check)?;
    let policy = Settings::load(&scene.paths.device())?.privacy;
    let mut redactor = Redactor::new(&policy.patterns);
    redactor.note_tokens(&text);
    let hidden = redactor.hide(&text).unwrap_or(text);
    let mapping = redactor.into_mapping();
    if check.json {
        let tokens: Vec<&str> = mapping.iter().map(|(token, _)| token).collect();
        return output.json(&json!({
            "mode": policy.mode.as_str(), "text": hidden, "tokens": tokens,
        }));
    }
    output.piece(&hidden)?;
    if !hidden.ends_with('\n') {
        output.piece("\n")?;
    }
    output.note(&if mapping.is_empty() {
        "nothing private was found".to_owned()
    } else {
        format!("would stay on this device: {}", mapping.summary())
    });
    output.note(&format!("privacy is {}", policy.mode));
    Ok(())
}

/// The file, or stdin for `-`.
fn read(check: &PrivacyCheck) -> Result<String, Stop> {
    let path = &check.file;
    let limit = CONTEXT_BYTES_MAX as u64;
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .take(limit + 1)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_string(&mut text))
    };
    read.map_err(|error| Error::file(path, error))?;
    if text.len() as u64 > limit {
        return Err(Stop::invalid(
            "the file is larger than a question's context may be",
        ));
    }
    Ok(text)
}
