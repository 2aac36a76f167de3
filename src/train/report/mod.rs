//! Reports as one HTML file: no script, nothing loaded from anywhere, readable in light and dark.

pub mod chart;
pub mod confusion;
pub mod thumbnail;

use std::fmt::Write;

pub use confusion::Confusion;

/// Makes text safe inside an element or a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A share as people read it, `93.8 %`, never broken into two lines.
pub fn percent(share: f64) -> String {
    format!("{:.1}\u{a0}%", share * 100.0)
}

/// A page of sections, in the order they are added.
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// `title` and one sentence below it, as text.
    pub fn new(title: &str, lead: &str) -> Self {
        let title = escape(title);
        let body = format!(
            "<header><h1>{title}</h1><p class=lead>{}</p></header>\n",
            escape(lead)
        );
        Self { title, body }
    }

    /// Adds numbers that are read first: what, value, what was before.
    pub fn tiles(&mut self, tiles: &[(&str, String, String)]) {
        self.body.push_str("<div class=tiles>");
        for (what, value, before) in tiles {
            let (what, value, before) = (escape(what), escape(value), escape(before));
            let _ = write!(
                self.body,
                "<div class=tile><span>{what}</span><b>{value}</b><small>{before}</small></div>"
            );
        }
        self.body.push_str("</div>\n");
    }

    /// Adds a section: its title as text, its content as HTML.
    pub fn section(&mut self, title: &str, html: &str) {
        let _ = writeln!(
            self.body,
            "<section><h2>{}</h2>{html}</section>",
            escape(title)
        );
    }

    /// The file.
    pub fn finish(self) -> String {
        let Self { title, body } = self;
        format!(
            "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\n\
             <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
             <meta name=color-scheme content=\"light dark\">\n\
             <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; img-src data:; \
             style-src 'unsafe-inline'\">\n<title>{title}</title>\n<style>{STYLE}</style></head>\n\
             <body><main>\n{body}</main></body></html>\n"
        )
    }
}

/// A table: heading and rows, every cell as text; cells after the first are numbers.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = String::from("<div class=scroll><table><thead><tr>");
    for cell in heading {
        let _ = write!(html, "<th>{}</th>", escape(cell));
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for cell in row {
            let _ = write!(html, "<td>{}</td>", escape(cell));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}

/// A paragraph of text.
pub fn paragraph(text: &str) -> String {
    format!("<p>{}</p>", escape(text))
}

const STYLE: &str = include_str!("style.css");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_becomes_markup(text in ".{0,40}") {
            let safe = escape(&text);
            prop_assert!(!safe.contains(['<', '>', '"', '\'']));
            let mut page = Page::new(&text, &text);
            let before = page.body.matches('<').count();
            page.section(&text, &table(&[&text], &[vec![text.clone()]]));
            let mut other = Page::new("x", "x");
            prop_assert_eq!(before, other.body.matches('<').count());
            other.section("x", &table(&["x"], &[vec!["x".to_owned()]]));
            prop_assert_eq!(page.finish().matches('<').count(), other.finish().matches('<').count());
        }
    }

    #[test]
    fn a_page_loads_nothing_and_runs_nothing() {
        let mut page = Page::new("a", "b");
        page.tiles(&[("c", "1".to_owned(), String::new())]);
        let html = page.finish();
        assert!(html.contains("default-src 'none'"));
        assert!(
            !html.contains("<script") && !html.contains("http://") && !html.contains("@import")
        );
    }
}
