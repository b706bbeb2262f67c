//! A bench's result as one page that needs nothing else: no script, no font, no file beside it.

use std::fmt::Write as _;

use anyhow::Result;

use super::{
    plot,
    report::{COLUMNS, Results, WORDS, head},
    stats::FEWEST,
};

/// The style: colours of the machine's choice, light or dark. What the plots draw in their ink follows.
const STYLE: &str = "
:root { color-scheme: light dark; --paper: #ffffff; --ink: #111111; --soft: #5a5a5a; --line: #dddddd; --head: #f4f4f4; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e9e9e9; --soft: #a8a8a8; --line: #3a3d42; --head: #22252a; } }
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
p.soft, li { color: var(--soft); }
ul.said li { color: var(--ink); }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .3rem .7rem; text-align: left; white-space: nowrap; }
th { background: var(--head); } th.n, td.n { text-align: right; }
tr.first td { border-top: 1px solid var(--line); }
svg { width: 100%; height: auto; }
svg text, svg [fill='#111111' i] { fill: var(--ink); }
svg [stroke='#111111' i] { stroke: var(--ink); }
svg [stroke='#DDDDDD' i] { stroke: var(--line); }
.legend span { display: inline-block; margin-right: 1.4rem; } .legend i { display: inline-block; width: .9em; height: .9em; margin-right: .4em; vertical-align: -.1em; }
";

/// The page.
///
/// # Errors
/// A plot cannot be drawn.
pub fn page(results: &Results) -> Result<String> {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.push_str(
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>nitro-agent bench</title>",
    );
    let _ = write!(page, "<style>{STYLE}</style></head><body><h1>nitro-agent bench</h1>");
    let _ = write!(
        page,
        "<p class=\"soft\">{}</p><ul class=\"said\">",
        escaped(&results.machine)
    );
    list(&mut page, &results.sentences());
    page.push_str("</ul>");
    for (device, svg) in plot::plots(&results.cells)? {
        let _ = write!(page, "<h2>{}</h2><p class=\"legend\">", escaped(device.name()));
        for (name, color) in plot::legend(&results.plan.helps) {
            let _ = write!(
                page,
                "<span><i style=\"background:{color}\"></i>{}</span>",
                escaped(name)
            );
        }
        let _ = write!(page, "</p>{svg}");
    }
    let whiskers = if results.plan.runs < FEWEST {
        "the range of all loads"
    } else {
        "their 95 % intervals"
    };
    let _ = write!(
        page,
        "<p class=\"soft\">Bars are medians, whiskers {whiskers}, circles single loads.</p><h2>Figures</h2><div class=\"wide\"><table><thead><tr>"
    );
    cells(&mut page, "th", head(results.plan.runs).map(str::to_owned));
    page.push_str("</tr></thead><tbody>");
    for row in results.rows() {
        page.push_str(if row[0].is_empty() {
            "<tr>"
        } else {
            "<tr class=\"first\">"
        });
        cells(&mut page, "td", row);
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table></div><ul>");
    list(&mut page, &results.notes);
    page.push_str("</ul></body></html>\n");
    Ok(page)
}

fn list(page: &mut String, lines: &[String]) {
    for line in lines {
        let _ = write!(page, "<li>{}</li>", escaped(line));
    }
}

fn cells(page: &mut String, tag: &str, texts: [String; COLUMNS]) {
    for (column, text) in texts.iter().enumerate() {
        let class = if column < WORDS { "" } else { " class=\"n\"" };
        let _ = write!(page, "<{tag}{class}>{}</{tag}>", escaped(text));
    }
}

/// Text as HTML.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            letter => html.push(letter),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::results;

    #[test]
    fn a_page_needs_nothing_else_and_takes_no_text_for_html() {
        let mut results = results();
        results.notes.push("<script>alert(1)</script> & \"more\"".into());
        let page = page(&results).unwrap();
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert(1)"));
        // The name of the SVG language is the only address in it.
        assert_eq!(
            page.matches("http").count(),
            page.matches("http://www.w3.org/2000/svg").count()
        );
        assert!(page.contains("prefers-color-scheme: dark") && page.contains("<svg"));
        assert!(page.contains("times faster to load"));
    }
}
