//! What the drawn pages have in common: one file without a network, dark or light as the reader has
//! it, every text escaped.

use std::fmt::Write as _;

/// A text as it may stand in HTML, between tags or in a quoted attribute.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Neither HTML nor XML may hold these.
            control if control.is_control() && !matches!(control, '\n' | '\t') => {
                safe.push('\u{FFFD}');
            }
            plain => safe.push(plain),
        }
    }
    safe
}

/// A whole page. `title` is a text; `body` is HTML; `style` and `script` are the page's own and never
/// hold anything that came from a run.
#[must_use]
pub fn page(title: &str, style: &str, body: &str, script: &str) -> String {
    let mut page = String::with_capacity(body.len() + 8192);
    let _infallible = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n",
        escape(title)
    );
    if !script.is_empty() {
        let _infallible = writeln!(page, "<script>{script}</script>");
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// Ticks of an axis from `from` to `to`: about `wanted` of them, each a 1, 2 or 5 times a power of
/// ten.
#[must_use]
pub fn ticks(from: f64, to: f64, wanted: u32) -> Vec<f64> {
    let rough = (to - from) / f64::from(wanted.max(1));
    if !rough.is_finite() || rough <= 0.0 {
        return vec![from];
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|times| times * power)
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let mut at = (from / step).ceil();
    let mut ticks = Vec::new();
    while at * step <= to + step * 1e-9 && ticks.len() < 200 {
        ticks.push(at * step);
        at += 1.0;
    }
    ticks
}

/// A number with thin spaces between its thousands.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push('\u{202F}');
        }
        grouped.push(digit);
    }
    grouped
}

const STYLE: &str = "
:root{--paper:#fcfcfb;--raised:#fff;--ink:#17181a;--soft:#5b6066;--faint:#8b9097;--line:#dfe1e4;--grid:#eceef0;
--blue:#2a6fd6;--orange:#d9660f;--green:#1d8a5a;--amber:#d79a00;--red:#cf2f3c;--violet:#7a52c7;--grey:#a9adb3;--shade:#17181a12;--bad:#fdecec}
@media (prefers-color-scheme:dark){:root{--paper:#131416;--raised:#1a1c1f;--ink:#eceef0;--soft:#a6acb3;--faint:#7b8189;--line:#33373c;--grid:#26292d;
--blue:#64a0f5;--orange:#f5934a;--green:#43b883;--amber:#f0bd3c;--red:#f4707a;--violet:#ac8cf0;--grey:#5d636b;--shade:#ffffff14;--bad:#3a1d20}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:14px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','DejaVu Sans',sans-serif}
main{max-width:1240px;margin:0 auto;padding:28px 24px 64px}
h1{font-size:22px;line-height:1.25;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:16px;margin:36px 0 6px}
p{margin:6px 0;max-width:80ch}
.soft{color:var(--soft)}
code{font:12.5px ui-monospace,SFMono-Regular,Menlo,'DejaVu Sans Mono',monospace;background:var(--grid);padding:1px 5px;border-radius:4px}
figure{margin:14px 0;background:var(--raised);border:1px solid var(--line);border-radius:10px;padding:14px 16px}
figcaption{color:var(--soft);margin-top:8px;max-width:90ch}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{fill:var(--soft);font-size:11px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:5px 18px 5px 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{font-weight:600;color:var(--soft)}
th:first-child{white-space:nowrap}
td.n,th.n{text-align:right}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:8px 0;color:var(--soft);font-size:13px}
.legend i{display:inline-block;width:14px;height:10px;border-radius:3px;margin-right:6px}
.scroll{overflow-x:auto}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_cannot_leave_its_place() {
        let hostile = "</title><script>alert('x')</script>\" onload=\"x&\u{0}\u{1b}";
        let safe = escape(hostile);
        assert!(!safe.contains(['<', '>', '"', '\'', '\u{0}', '\u{1b}']));
        assert!(safe.starts_with("&lt;/title&gt;&lt;script&gt;alert(&#39;x&#39;)"));
        assert!(safe.contains("x&amp;"));
        let page = page(hostile, "", "", "");
        assert!(!page.contains("<script"), "{page}");
    }

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        assert_eq!(ticks(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(3.0, 61.0, 6), [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        assert_eq!(ticks(1.0, 1.0, 6), [1.0]);
    }

    #[test]
    fn thousands_are_set_apart() {
        let with = |number| thousands(number).replace('\u{202F}', " ");
        assert_eq!(with(7), "7");
        assert_eq!(with(1000), "1 000");
        assert_eq!(with(12_345_678), "12 345 678");
    }
}
