//! What a question cost, as a line for people.

pub(super) use mesh_core::escalation::receipt::model;
use mesh_core::escalation::receipt::{line, not_whole};
use mesh_core::wire::message::StreamEnd;

use super::output::Output;

/// The receipt as one line on stderr, and a word if the answer is not whole.
pub(super) fn print_line(output: Output, end: &StreamEnd) {
    output.aside(&line(end));
    if let Some(word) = not_whole(end.finish_reason) {
        output.warn(word);
    }
}
