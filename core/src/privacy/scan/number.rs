//! What is made of digits: cards, account numbers, social security and phone numbers.

use super::{Scan, is_word};
use crate::privacy::patterns::Kind;
use crate::privacy::validate::{iban_length, is_card_network, is_iban, luhn};

/// Digits of the longest number looked for.
const DIGITS_MAX: usize = 19;

/// Digits from a place, with what may stand between them.
struct Digits {
    digits: [u8; DIGITS_MAX],
    /// Where a group of digits ends, and how many there are up to there.
    ends: [(usize, usize); DIGITS_MAX],
    groups: usize,
}

impl Digits {
    /// Whether the first groups are as long as those on a card, up to its thirteenth digit.
    fn in_fours(&self) -> bool {
        let ends = self.ends.get(..self.groups).unwrap_or_default();
        let starts = std::iter::once(0).chain(ends.iter().map(|&(_, count)| count));
        starts
            .zip(ends)
            .take_while(|&(start, _)| start < 12)
            .all(|(start, &(_, count))| count - start >= 4)
    }

    /// The places where groups end, the last first.
    fn ends(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let ends = self.ends.get(..self.groups).unwrap_or_default();
        ends.iter()
            .rev()
            .map(|&(end, count)| (end, self.digits.get(..count).unwrap_or_default()))
    }
}

impl Scan<'_> {
    /// A run of digits begins at `at`, or goes on.
    pub(super) fn number(&mut self, at: usize) {
        let before = self.before(at);
        if before.is_some_and(|b| b.is_ascii_digit()) {
            return;
        }
        self.iban(at);
        if before.is_some_and(is_word) {
            return;
        }
        self.card(at);
        self.ssn(at);
        self.international_phone(at);
        self.us_phone(at);
        if self.strict {
            self.ipv4(at);
        }
    }

    /// Digits from `at` on, with at most `gap` separators between two.
    fn digits(&self, at: usize, gap: usize, separators: &[u8]) -> Digits {
        let mut found = Digits {
            digits: [0; DIGITS_MAX],
            ends: [(0, 0); DIGITS_MAX],
            groups: 0,
        };
        let (mut place, mut count) = (at, 0);
        loop {
            let end = self.run(place, |b| b.is_ascii_digit());
            let group = self.bytes.get(place..end).unwrap_or_default();
            for &digit in group {
                let Some(slot) = found.digits.get_mut(count) else {
                    return found;
                };
                *slot = digit - b'0';
                count += 1;
            }
            if let Some(slot) = found.ends.get_mut(found.groups) {
                *slot = (end, count);
                found.groups += 1;
            }
            place = end;
            while place - end < gap && self.byte(place).is_some_and(|b| separators.contains(&b)) {
                place += 1;
            }
            if place == end || !self.byte(place).is_some_and(|b| b.is_ascii_digit()) {
                return found;
            }
        }
    }

    fn card(&mut self, at: usize) {
        let digits = self.digits(at, 1, b" -");
        if !digits.in_fours() {
            return;
        }
        let card = digits.ends().find(|&(end, digits)| {
            digits.len() >= 13 && self.word_ends(end) && is_card_network(digits) && luhn(digits)
        });
        if let Some((end, _)) = card {
            self.found(at..end, Kind::Card);
        }
    }

    /// Two letters, two digits, and as many characters as the country has.
    fn iban(&mut self, at: usize) {
        let Some(start) = at.checked_sub(2) else {
            return;
        };
        let Some(&[a, b, _, _]) = self.bytes.get(start..start + 4) else {
            return;
        };
        if !self.word_begins(start) {
            return;
        }
        let Some(length) = iban_length([a, b]) else {
            return;
        };
        let mut characters = Vec::with_capacity(length);
        let mut place = start;
        while characters.len() < length {
            match self.byte(place) {
                Some(byte) if byte.is_ascii_alphanumeric() => characters.push(byte),
                Some(b' ' | b'-')
                    if self
                        .before(place)
                        .is_some_and(|b| b.is_ascii_alphanumeric()) => {}
                Some(_) | None => return,
            }
            place += 1;
        }
        if self.word_ends(place) && is_iban(&characters) {
            self.found(start..place, Kind::Iban);
        }
    }

    /// `123-45-6789`, or with spaces; areas 000, 666 and 9xx, group 00 and serial 0000 are never
    /// given out (20 CFR 422.103, SSA's randomization of 2011).
    fn ssn(&mut self, at: usize) {
        let end = at + 11;
        let Some(&[a1, a2, a3, s1, g1, g2, s2, n1, n2, n3, n4]) = self.bytes.get(at..end) else {
            return;
        };
        let digits = [a1, a2, a3, g1, g2, n1, n2, n3, n4];
        let apart = s1 == s2 && matches!(s1, b'-' | b' ');
        let alone = self.before(at) != Some(b'-')
            && self.word_ends(end)
            && !(self.byte(end) == Some(b'-') && self.byte(end + 1).is_some_and(is_word));
        let (area, group, serial) = ([a1, a2, a3], [g1, g2], [n1, n2, n3, n4]);
        if digits.iter().all(u8::is_ascii_digit)
            && apart
            && alone
            && a1 != b'9'
            && &area != b"000"
            && &area != b"666"
            && &group != b"00"
            && &serial != b"0000"
        {
            self.found(at..end, Kind::Ssn);
        }
    }

    /// `+` or `00`, and 8 to 15 digits (ITU-T E.164) with what people put between them.
    fn international_phone(&mut self, at: usize) {
        let plus = self.before(at) == Some(b'+');
        // Not in a row of groups, as account numbers are written.
        let in_a_row = self.before(at).is_some_and(|b| b" -".contains(&b))
            && at > 1
            && self.before(at - 1).is_some_and(|b| b.is_ascii_digit());
        let zeros = !in_a_row && self.starts_with(at, b"00") && self.byte(at + 2) != Some(b'0');
        if !plus && !zeros {
            return;
        }
        let (start, lead) = if plus { (at - 1, 0) } else { (at, 2) };
        if !self.word_begins(start) || (plus && self.byte(at) == Some(b'0')) {
            return;
        }
        let digits = self.digits(at, 2, b" -./()");
        let fits = |count: usize| (8 + lead..=15 + lead).contains(&count);
        let phone = digits
            .ends()
            .find(|&(end, digits)| fits(digits.len()) && self.word_ends(end));
        if let Some((end, _)) = phone {
            self.found(start..end, Kind::Phone);
        }
    }

    /// `415-555-2671`, `(415) 555-2671`, `1.415.555.2671`; with spaces only where a phone is spoken
    /// of, since numbers in a row are often something else.
    fn us_phone(&mut self, at: usize) {
        let area = match self.byte(at) {
            Some(b'1') if matches!(self.byte(at + 1), Some(b' ' | b'-' | b'.')) => {
                at + if self.byte(at + 2) == Some(b'(') {
                    3
                } else {
                    2
                }
            }
            _ => at,
        };
        let open = self.before(area) == Some(b'(');
        let Some(after_area) = self.three_digits(area) else {
            return;
        };
        let (exchange, first) = match (open, self.byte(after_area), self.byte(after_area + 1)) {
            (true, Some(b')'), Some(b' ' | b'-')) => (after_area + 2, b')'),
            (true, Some(b')'), _) => (after_area + 1, b')'),
            (false, Some(separator @ (b'-' | b'.' | b' ')), _) => (after_area + 1, separator),
            _ => return,
        };
        let Some(after_exchange) = self.three_digits(exchange) else {
            return;
        };
        let second = match self.byte(after_exchange) {
            Some(separator @ (b'-' | b'.' | b' ')) => separator,
            _ => return,
        };
        let line = after_exchange + 1;
        let end = self.run(line, |b| b.is_ascii_digit());
        let start = if open && area == at { at - 1 } else { at };
        let spaces_only = first == b' ' && second == b' ';
        if end - line == 4 && self.word_ends(end) && (!spaces_only || self.speaks_of_phones(start))
        {
            self.found(start..end, Kind::Phone);
        }
    }

    /// Behind an area or exchange code, which never begins with 0 or 1.
    fn three_digits(&self, at: usize) -> Option<usize> {
        let code = self.bytes.get(at..at + 3)?;
        let fine = code.iter().all(u8::is_ascii_digit) && code.first() >= Some(&b'2');
        fine.then_some(at + 3)
    }

    fn speaks_of_phones(&self, at: usize) -> bool {
        const NEAR: usize = 24;
        const WORDS: [&[u8]; 7] = [
            b"phone", b"tel", b"call", b"fax", b"mobile", b"cell", b"number",
        ];
        let before = self.bytes.get(at.saturating_sub(NEAR)..at);
        let before = before.unwrap_or_default().to_ascii_lowercase();
        WORDS
            .iter()
            .any(|word| before.windows(word.len()).any(|window| window == *word))
    }
}
