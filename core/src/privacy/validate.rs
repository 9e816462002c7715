//! The arithmetic that tells a number from any other digits.

/// Luhn's check (ISO/IEC 7812-1, annex B) over digits 0–9.
pub(super) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, &digit)| {
            let digit = u32::from(digit);
            match (at % 2, digit) {
                (0, digit) => digit,
                (_, digit) if digit > 4 => digit * 2 - 9,
                (_, digit) => digit * 2,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Whether digits begin as those of a card network do: American Express, Diners and JCB (3), Visa
/// (4), Mastercard (5, 2221–2720), Discover, UnionPay and Maestro (6).
pub(super) fn is_card_network(digits: &[u8]) -> bool {
    match digits {
        [3..=6, ..] => true,
        [2, b, c, d, ..] => {
            let prefix = 2000 + u32::from(*b) * 100 + u32::from(*c) * 10 + u32::from(*d);
            (2221..=2720).contains(&prefix)
        }
        _ => false,
    }
}

/// The check of ISO 13616: the first four characters moved to the end, letters as 10–35, and the
/// whole number modulo 97 is one.
pub(super) fn is_iban(characters: &[u8]) -> bool {
    let Some((head, tail)) = characters.split_at_checked(4) else {
        return false;
    };
    let mut rest = 0u32;
    for &character in tail.iter().chain(head) {
        let upper = character.to_ascii_uppercase();
        rest = match upper {
            b'0'..=b'9' => rest * 10 + u32::from(upper - b'0'),
            b'A'..=b'Z' => rest * 100 + u32::from(upper - b'A') + 10,
            _ => return false,
        } % 97;
    }
    rest == 1
}

/// How long a country's account numbers are, of the SWIFT registry; `None` for others.
pub(super) fn iban_length(country: [u8; 2]) -> Option<usize> {
    let country = country.map(|letter| letter.to_ascii_uppercase());
    Some(match &country {
        b"NO" => 15,
        b"BE" => 16,
        b"DK" | b"FI" | b"FO" | b"GL" | b"NL" => 18,
        b"MK" | b"SI" => 19,
        b"AT" | b"BA" | b"EE" | b"KZ" | b"LT" | b"LU" | b"XK" => 20,
        b"CH" | b"HR" | b"LI" | b"LV" => 21,
        b"BG" | b"BH" | b"CR" | b"DE" | b"GB" | b"GE" | b"IE" | b"ME" | b"RS" | b"VA" => 22,
        b"AE" | b"GI" | b"IL" | b"IQ" | b"TL" => 23,
        b"AD" | b"CZ" | b"ES" | b"MD" | b"PK" | b"RO" | b"SA" | b"SE" | b"SK" | b"TN" | b"VG" => 24,
        b"PT" | b"ST" => 25,
        b"IS" | b"TR" => 26,
        b"FR" | b"GR" | b"IT" | b"MC" | b"MR" | b"SM" => 27,
        b"AL" | b"AZ" | b"BY" | b"CY" | b"DO" | b"GT" | b"HU" | b"LB" | b"PL" | b"SV" => 28,
        b"BR" | b"EG" | b"PS" | b"QA" | b"UA" => 29,
        b"JO" | b"KW" | b"MU" => 30,
        b"MT" | b"SC" => 31,
        b"LC" => 32,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(text: &str) -> Vec<u8> {
        text.bytes().map(|byte| byte - b'0').collect()
    }

    // Test numbers that Stripe and PayPal publish, and the example of Wikipedia's article on Luhn.
    #[test]
    fn published_card_numbers_pass_luhn_and_with_a_digit_changed_do_not() {
        for number in [
            "4242424242424242",
            "4000056655665556",
            "5555555555554444",
            "2223003122003222",
            "378282246310005",
            "6011111111111117",
            "3056930009020004",
            "3566002020360505",
            "6200000000000005",
            "4222222222222",
        ] {
            let whole = digits(number);
            assert!(luhn(&whole) && is_card_network(&whole), "{number}");
            for at in 0..whole.len() {
                let mut changed = whole.clone();
                changed[at] = (changed[at] + 1) % 10;
                assert!(!luhn(&changed), "{number}, digit {at}");
            }
        }
        assert!(luhn(&digits("17893729974")));
        assert!(!luhn(&digits("17893729975")));
    }

    #[test]
    fn networks_are_told_by_their_first_digits() {
        for (first, is) in [
            ("2221", true),
            ("2720", true),
            ("2220", false),
            ("2721", false),
            ("1234", false),
            ("0000", false),
            ("7000", false),
        ] {
            assert_eq!(is_card_network(&digits(first)), is, "{first}");
        }
    }

    // Examples of the SWIFT IBAN registry.
    #[test]
    fn the_registrys_examples_are_account_numbers_and_with_digits_swapped_are_not() {
        for number in [
            "GB29NWBK60161331926819",
            "DE89370400440532013000",
            "FR1420041010050500013M02606",
            "NO9386011117947",
            "MT84MALT011000012345MTLCAST001S",
            "CH9300762011623852957",
            "BR1800360305000010009795493C1",
        ] {
            let bytes = number.as_bytes();
            assert!(is_iban(bytes), "{number}");
            assert_eq!(iban_length([bytes[0], bytes[1]]), Some(number.len()));
            assert!(is_iban(number.to_lowercase().as_bytes()), "{number}");
            let mut swapped = bytes.to_vec();
            swapped.swap(2, 3);
            assert_eq!(is_iban(&swapped), bytes[2] == bytes[3], "{number}");
        }
        assert_eq!(iban_length(*b"US"), None);
        assert!(!is_iban(b"GB2"));
    }
}
