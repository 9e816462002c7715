//! `synesis cloud ask --resume`: the whole answer to a question whose process, or tunnel, was lost.

use std::time::Instant;

use mesh_core::device::unfinished::{Listed, NotChosen, choose};
use mesh_core::ids::RequestId;

use super::args::Ask;
use super::ask::{follow, show};
use super::link::Link;
use super::output::Output;
use super::{Interrupts, Scene, Stop, moment};

/// Goes on with it.
pub(super) async fn run(ask: &Ask, id: &str, scene: &Scene) -> Result<(), Stop> {
    let output = scene.output;
    let wanted = match id {
        "" => None,
        id => Some(id.parse::<RequestId>().map_err(Stop::invalid)?),
    };
    let asked = Instant::now();
    let mut interrupts = Interrupts::new()?;
    let link = interrupts.or(Link::start(scene)).await?;
    let (unfinished, trouble) = interrupts.or(link.unfinished()).await?;
    for words in trouble {
        output.warn(&words);
    }
    let id = match pick(wanted, &unfinished, ask.json, output) {
        Ok(id) => id,
        Err(stop) => {
            link.close().await;
            return Err(stop);
        }
    };
    let answer = interrupts.or(link.resume(id)).await?;
    let outcome = follow(answer, output, !ask.json, None, &mut interrupts).await;
    link.close().await;
    show(ask, &outcome, asked, output)?;
    outcome.stop.map_or(Ok(()), Err)
}

/// Which question goes on; several are listed.
fn pick(
    wanted: Option<RequestId>,
    unfinished: &[Listed],
    json: bool,
    output: Output,
) -> Result<RequestId, Stop> {
    let chosen = choose(wanted, unfinished);
    if let Err(NotChosen::Several(_)) = chosen {
        if json {
            output.json(&serde_json::json!({ "unfinished": unfinished }))?;
        } else {
            for listed in unfinished {
                output.line(&format!("{}  {}", moment(listed.sent_at), listed.line()))?;
            }
        }
    }
    chosen.map_err(Stop::invalid)
}
