//! As much of Markdown as it takes to check a book: headings, links, code.

use std::collections::BTreeMap;

/// What a page consists of.
#[derive(Default)]
pub struct Page {
    /// Targets of links and pictures, as they are written.
    pub links: Vec<String>,
    /// What a link behind a `#` may name.
    pub anchors: Vec<String>,
    /// `code` in the text.
    pub spans: Vec<String>,
    /// Lines of code blocks, fenced or indented, those that end with a backslash joined with the next.
    pub code: Vec<String>,
    /// Fenced blocks whole, with what they are said to hold.
    pub blocks: Vec<(String, String)>,
}

pub fn read(text: &str) -> Page {
    let mut page = Page::default();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut fence: Option<(String, String)> = None;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            match fence.take() {
                Some(block) => page.blocks.push(block),
                None => fence = Some((line.trim_start().trim_matches('`').to_string(), String::new())),
            }
        } else if let Some((_, block)) = &mut fence {
            block.push_str(&format!("{line}\n"));
            page.add_code(line);
        } else if line.starts_with("    ") {
            page.add_code(line);
        } else {
            if line.starts_with('#') {
                page.anchors.push(anchor(line, &mut seen));
            }
            page.add_prose(line);
        }
    }
    assert!(fence.is_none(), "a code block does not end");
    page
}

impl Page {
    fn add_code(&mut self, line: &str) {
        match self.code.last_mut().filter(|last| last.ends_with('\\')) {
            Some(last) => {
                last.pop();
                last.push_str(line.trim_start());
            }
            None => self.code.push(line.trim_start().to_string()),
        }
    }

    /// Odd parts between backticks are code; links are looked for in the rest.
    fn add_prose(&mut self, line: &str) {
        let parts: Vec<&str> = line.split('`').collect();
        let mut rest = String::new();
        for (at, part) in parts.iter().enumerate() {
            if at % 2 == 1 {
                self.spans.push(part.to_string());
            } else {
                rest.push_str(part);
            }
        }
        let targets = rest.split("](").skip(1).filter_map(|link| link.split(')').next());
        self.links.extend(targets.map(str::to_string));
    }
}

/// As forges and mdBook make them: lower case, punctuation gone, dashes for blanks, numbers on repetitions.
fn anchor(heading: &str, seen: &mut BTreeMap<String, usize>) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    let anchor = kept.collect::<String>().replace(' ', "-");
    let count = seen.entry(anchor.clone()).or_default();
    *count += 1;
    if *count == 1 { anchor } else { format!("{anchor}-{}", *count - 1) }
}

#[test]
fn a_page_is_taken_apart() {
    let text = "# A `b` c, d!\n## x\n## x\nsee [`it`](y.md#z) and `code`\n\n```sh\n$ wal-push \\\n    --jobs 2\n```\n    in dented\n";
    let page = read(text);
    assert_eq!(page.anchors, ["a-b-c-d", "x", "x-1"]);
    assert_eq!(page.links, ["y.md#z"]);
    assert_eq!(page.spans, ["b", "it", "code"]);
    assert_eq!(page.code, ["$ wal-push --jobs 2", "in dented"]);
    assert_eq!(page.blocks.len(), 1);
}
