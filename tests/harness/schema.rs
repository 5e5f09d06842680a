//! The JSON results against their documented shapes, `docs/schema/<verb>.v<version>.json`.

use std::path::Path;

use serde_json::Value;

/// Panics with every difference unless `json`, a whole result of `verb`, has the documented shape. The version in
/// it chooses the schema.
#[track_caller]
pub fn assert_matches_schema(verb: &str, json: &Value) {
    let version = json["version"].as_u64().unwrap_or_else(|| panic!("no version in {json}"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/schema/{verb}.v{version}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()));
    let schema: Value = serde_json::from_str(&text).expect("a schema is JSON");
    let validator = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .build(&schema)
        .unwrap_or_else(|cause| panic!("{} is no schema: {cause}", path.display()));
    let differences: Vec<String> =
        validator.iter_errors(json).map(|error| format!("at {}: {error}", error.instance_path())).collect();
    assert!(differences.is_empty(), "not as {}: {}\n{json}", path.display(), differences.join("\n"));
}
