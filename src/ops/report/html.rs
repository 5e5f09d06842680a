//! Writing HTML by hand: text that comes from outside is escaped here, in one place. The page is well-formed XML
//! too, so that any parser can check it.

use std::fmt::Display;

/// Text for an element or an attribute in double quotes. Characters that no document may hold are replaced.
pub fn escape(text: impl Display) -> String {
    let mut escaped = String::new();
    for character in text.to_string().chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(' '),
            '\u{FFFE}' | '\u{FFFF}' => escaped.push('\u{FFFD}'),
            control if control.is_control() => escaped.push('\u{FFFD}'),
            // Would turn the text around it.
            '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{FFFD}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A part of the page that is HTML already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Html(pub String);

impl Html {
    pub fn text(text: impl Display) -> Self {
        Self(escape(text))
    }

    /// Text in an element of a class: "good", "warn", "bad", "dim", "mono".
    pub fn span(class: &str, text: impl Display) -> Self {
        Self(format!("<span class=\"{class}\">{}</span>", escape(text)))
    }

    pub fn join(parts: impl IntoIterator<Item = Html>, between: &str) -> Self {
        Self(parts.into_iter().map(|part| part.0).collect::<Vec<String>>().join(between))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A table whose rows become cards on a narrow screen: each cell knows its column's name. Columns whose name begins
/// with '>' are aligned to the right.
pub struct Table {
    columns: Vec<&'static str>,
    rows: String,
}

impl Table {
    pub fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: String::new() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = Html>) {
        self.rows.push_str("<tr>");
        for (column, cell) in self.columns.iter().zip(cells) {
            let (name, class) = named(column);
            let empty = if cell.is_empty() { " data-empty=\"\"" } else { "" };
            self.rows.push_str(&format!("<td{class} data-label=\"{}\"{empty}>{}</td>", escape(name), cell.0));
        }
        self.rows.push_str("</tr>\n");
    }

    pub fn finish(self) -> Html {
        let head = self.columns.iter().map(|column| {
            let (name, class) = named(column);
            format!("<th{class} scope=\"col\">{}</th>", escape(name))
        });
        let head: String = head.collect();
        Html(format!(
            "<div class=\"scroll\"><table><thead><tr>{head}</tr></thead><tbody>\n{}</tbody></table></div>\n",
            self.rows
        ))
    }
}

fn named(column: &'static str) -> (&'static str, &'static str) {
    match column.strip_prefix('>') {
        Some(name) => (name, " class=\"number\""),
        None => (column, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_comes_from_outside_stays_text() {
        let hostile = "<script>alert(\"x\")</script> & 'y'\u{0}\u{1b}[31m\u{202e}";
        let escaped = escape(hostile);
        assert_eq!(
            escaped,
            "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; &#39;y&#39;\u{fffd}\u{fffd}[31m\u{fffd}"
        );
        let mut table = Table::new(&["a", ">b"]);
        table.row([Html::text(hostile), Html::span("mono", "1 < 2")]);
        let html = table.finish().0;
        assert!(!html.contains("<script") && html.contains("class=\"number\" data-label=\"b\""), "{html}");
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_element(text in "\\PC*|[<>&\"'a-z\\x00-\\x1f]*") {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'', '\0']));
            for (place, _) in escaped.match_indices('&') {
                let entity = &escaped[place..];
                prop_assert!(["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"].iter().any(|known| entity.starts_with(known)));
            }
        }
    }
}
