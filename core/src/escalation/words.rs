//! Figures and foreign text as people are shown them; the same in every shell.

use std::borrow::Cow;
use std::time::Duration;

/// A span as people read it: two or three digits that matter.
#[must_use]
pub fn span(span: Duration) -> String {
    let micros = span.as_micros();
    if micros == 0 {
        "0 s".to_owned()
    } else if micros < 1_000 {
        format!("{micros} µs")
    } else if micros < 10_000 {
        format!("{:.1} ms", span.as_secs_f64() * 1e3)
    } else if micros < 1_000_000 {
        format!("{} ms", span.as_millis())
    } else if span.as_secs() < 20 {
        format!("{:.1} s", span.as_secs_f64())
    } else if span.as_secs() < 120 {
        format!("{} s", span.as_secs())
    } else if span.as_secs() < 7200 {
        format!("{} min", span.as_secs() / 60)
    } else {
        format!("{} h", span.as_secs() / 3600)
    }
}

/// A number with thin groups of three: `12 345`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// The text without control characters (C0, DEL, C1), save line feeds and tabs.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let hostile = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.chars().any(hostile) {
        Cow::Owned(text.chars().filter(|c| !hostile(*c)).collect())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_cannot_drive_the_terminal() {
        assert_eq!(
            printable("a\u{1b}]0;pwned\u{7}b\u{9b}31mc\r"),
            "a]0;pwnedb31mc"
        );
        assert_eq!(printable("plain\n\ttext ä"), "plain\n\ttext ä");
    }

    #[test]
    fn spans_are_short() {
        for (micros, text) in [
            (0, "0 s"),
            (850, "850 µs"),
            (1_250, "1.2 ms"),
            (42_000, "42 ms"),
            (1_540_000, "1.5 s"),
            (27_900_000, "27 s"),
            (180_000_000, "3 min"),
            (10_800_000_000, "3 h"),
        ] {
            assert_eq!(span(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
