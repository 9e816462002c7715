//! `synesis env` and `synesis key`: how programs of this device get at its endpoint.

use super::args::LocalKey;
use super::{Scene, Stop};
use crate::device::endpoint::keys::Keys;
use crate::device::settings::Settings;

/// Prints the lines that a shell evaluates.
pub(super) fn env(scene: &Scene) -> Result<(), Stop> {
    let folder = scene.paths.device();
    let Some(address) = Settings::load(&folder)?.endpoint else {
        return Err(Stop::invalid("this device's endpoint is off"));
    };
    let keys = Keys::open(&folder)?;
    let Some(key) = keys.first() else {
        return Err(Stop::internal("the endpoint has no first key"));
    };
    for (name, value) in [
        ("OPENAI_BASE_URL", format!("http://{address}/v1")),
        ("OPENAI_API_KEY", key.to_owned()),
        ("ANTHROPIC_BASE_URL", format!("http://{address}")),
        ("ANTHROPIC_API_KEY", key.to_owned()),
    ] {
        scene.output.line(&format!("export {name}=\"{value}\""))?;
    }
    Ok(())
}

/// Makes a key.
pub(super) fn key(command: &LocalKey, scene: &Scene) -> Result<(), Stop> {
    match command {
        LocalKey::Create { label } => {
            let mut keys = Keys::open(&scene.paths.device())?;
            let key = keys.create(label)?;
            scene.output.line(key.reveal())
        }
    }
}
