//! What people and programs see: answers on stdout, everything else on stderr.
//!
//! # Invariants
//!
//! 1. Nothing but answers, tables asked for and JSON ever goes to stdout, so pipes work.
//! 2. A reader that went away (`| head`) is [`Stop::PipeClosed`](super::Stop), never a panic.
//! 3. Colours and spinners appear on terminals only, or when asked for; `NO_COLOR` is respected.
//! 4. Control characters in text from elsewhere (a model's answer, a file's name) never reach a
//!    terminal: an answer cannot move the cursor or rename the window.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
pub(crate) use mesh_core::escalation::words::{grouped, printable, span};
use serde::Serialize;

use super::args::ColorWhen;
use super::{Stop, table};

/// How to mark a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A heading.
    Bold,
    /// What may be overlooked.
    Dim,
    /// Good.
    Green,
    /// Look here.
    Yellow,
    /// Bad.
    Red,
}

impl Mark {
    /// The mark's SGR code (ECMA-48 §8.3.117).
    const fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
        }
    }
}

/// The two ways out of the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    colored_out: bool,
    colored_err: bool,
    terminal_out: bool,
    terminal_err: bool,
}

impl Output {
    /// Looks at what stdout and stderr are.
    pub(crate) fn new(when: ColorWhen) -> Self {
        let terminal_out = io::stdout().is_terminal();
        let terminal_err = io::stderr().is_terminal();
        let wanted = |terminal: bool| match when {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            // https://no-color.org: present and not empty.
            ColorWhen::Auto => {
                terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            }
        };
        Self {
            colored_out: wanted(terminal_out),
            colored_err: wanted(terminal_err),
            terminal_out,
            terminal_err,
        }
    }

    /// Whether stderr takes colours.
    pub(crate) const fn colored_err(self) -> bool {
        self.colored_err
    }

    /// Prints a piece of an answer and flushes it, so that it is seen at once.
    ///
    /// # Errors
    ///
    /// [`Stop::PipeClosed`] when nobody reads any more.
    pub(crate) fn piece(self, text: &str) -> Result<(), Stop> {
        let text = if self.terminal_out {
            printable(text)
        } else {
            Cow::Borrowed(text)
        };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(Stop::from_stdout)
    }

    /// Prints a line of an answer or table.
    ///
    /// # Errors
    ///
    /// As [`Self::piece`].
    pub(crate) fn line(self, text: &str) -> Result<(), Stop> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")
            .and_then(|()| out.flush())
            .map_err(Stop::from_stdout)
    }

    /// Prints one JSON document.
    ///
    /// # Errors
    ///
    /// As [`Self::piece`].
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Stop> {
        let text = serde_json::to_string_pretty(value).map_err(Stop::internal)?;
        self.line(&text)
    }

    /// Prints a table to stdout, columns as wide as their widest cell; `marks` colours whole cells
    /// by row and column.
    ///
    /// # Errors
    ///
    /// As [`Self::piece`].
    pub(crate) fn table(
        self,
        headings: &[&str],
        rows: &[Vec<String>],
        mark: impl Fn(usize, usize) -> Option<Mark>,
    ) -> Result<(), Stop> {
        let lines = table::render(self.colored_out, headings, rows, mark);
        lines.iter().try_for_each(|line| self.line(line))
    }

    /// Prints names and values, one pair a line; `mark` colours a value by its row.
    ///
    /// # Errors
    ///
    /// As [`Self::piece`].
    pub(crate) fn pairs(
        self,
        rows: &[(&str, String)],
        mark: impl Fn(usize) -> Option<Mark>,
    ) -> Result<(), Stop> {
        let width = rows
            .iter()
            .map(|(name, _)| width_of(name))
            .max()
            .unwrap_or(0);
        for (number, (name, value)) in rows.iter().enumerate() {
            let name = paint(
                self.colored_out,
                Some(Mark::Dim),
                &format!("{name:<width$}"),
            );
            let value = printable(value).replace(['\n', '\t'], " ");
            self.line(&format!(
                "{name}  {}",
                paint(self.colored_out, mark(number), &value)
            ))?;
        }
        Ok(())
    }

    /// Says something to the person on stderr. A closed stderr is nobody's trouble.
    pub(crate) fn note(self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Says something less important to the person on stderr.
    pub(crate) fn aside(self, text: &str) {
        self.note(&paint(self.colored_err, Some(Mark::Dim), text));
    }

    /// Reports why the command failed.
    pub(crate) fn error(self, text: &str) {
        let label = paint(self.colored_err, Some(Mark::Red), "error:");
        self.note(&format!("{label} {}", printable(text)));
    }

    /// Says what the person should know although the command goes on.
    pub(crate) fn warn(self, text: &str) {
        let label = paint(self.colored_err, Some(Mark::Yellow), "warning:");
        self.note(&format!("{label} {}", printable(text)));
    }

    /// Marks text for stderr.
    pub(crate) fn mark_err(self, mark: Mark, text: &str) -> String {
        paint(self.colored_err, Some(mark), text)
    }

    /// A spinner on stderr while something is waited for; invisible when stderr is no terminal.
    pub(crate) fn spinner(self, message: &str) -> Spinner {
        let target = if self.terminal_err {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let template = if self.colored_err {
            "{spinner:.dim} {msg:.dim}"
        } else {
            "{spinner} {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(message.to_owned());
        if self.terminal_err {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Spinner { bar }
    }
}

/// A spinner that disappears when dropped.
#[derive(Debug)]
pub(crate) struct Spinner {
    bar: ProgressBar,
}

impl Spinner {
    /// Changes what is waited for.
    pub(crate) fn say(&self, message: &str) {
        self.bar.set_message(message.to_owned());
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

pub(super) fn paint(colored: bool, mark: Option<Mark>, text: &str) -> String {
    match mark {
        Some(mark) if colored => format!("\u{1b}[{}m{text}\u{1b}[0m", mark.code()),
        _ => text.to_owned(),
    }
}

pub(super) fn width_of(text: &str) -> usize {
    console::measure_text_width(text)
}
