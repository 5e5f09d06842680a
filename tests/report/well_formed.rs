//! Whether a page is well-formed XML: every element is closed where it should be, attributes are in double quotes,
//! and every `&` begins one of the entities that any parser knows. A page of ours has no comments and no CDATA.

/// The elements of a page with the names of their attributes, in order. Panics at what is not well-formed.
pub fn elements(page: &str) -> Vec<(String, Vec<String>)> {
    let mut rest = page.strip_prefix("<!DOCTYPE html>\n").expect("a document type");
    let (mut found, mut open) = (Vec::new(), Vec::<String>::new());
    while let Some((text, behind)) = rest.split_once('<') {
        check_text(text);
        let (tag, behind) =
            behind.split_once('>').unwrap_or_else(|| panic!("a tag that does not end: {behind:.60}"));
        rest = behind;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "</{name}> closes what is not open");
            continue;
        }
        let (tag, empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "<{tag}>");
        found.push((name.to_string(), attribute_names(attributes)));
        if !empty {
            open.push(name.to_string());
        }
    }
    assert_eq!((rest.trim(), open), ("", Vec::new()), "something is left open");
    found
}

fn attribute_names(mut rest: &str) -> Vec<String> {
    let mut names = Vec::new();
    while !rest.trim_start().is_empty() {
        let (name, behind) =
            rest.trim_start().split_once("=\"").unwrap_or_else(|| panic!("no value: {rest}"));
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "attribute {name:?}");
        let (value, behind) = behind.split_once('"').unwrap_or_else(|| panic!("no end of {name}"));
        check_text(value);
        assert!(!names.contains(&name.to_string()), "{name} twice");
        names.push(name.to_string());
        rest = behind;
    }
    names
}

fn check_text(text: &str) {
    assert!(!text.contains('>') || text.contains('{'), "> outside of a tag and of the style: {text:.60}");
    for (place, _) in text.match_indices('&') {
        let known = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
        assert!(known.iter().any(|entity| text[place..].starts_with(entity)), "{:.40}", &text[place..]);
    }
    assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
}
