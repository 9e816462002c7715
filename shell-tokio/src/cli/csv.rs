//! Comma-separated values (RFC 4180), safe to open in a spreadsheet.

use mesh_core::billing::money::Nanos;

/// A field; what a spreadsheet would take for a formula is taken as text.
pub(super) fn quoted(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let special = text.contains([',', '"', '\n', '\r']);
    let text = if formula {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if special {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

/// An amount as a plain number.
pub(super) fn dollars(amount: Nanos) -> String {
    amount.to_string().replacen('$', "", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_quoted_where_it_must_be_and_never_a_formula() {
        for (text, expected) in [
            ("home", "home"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("=1+1", "'=1+1"),
            ("@x,y", "\"'@x,y\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
        assert_eq!(dollars(Nanos(-10_815_000)), "-0.010815");
    }
}
