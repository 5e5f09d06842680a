//! `pgark report`: one page, whole in itself, that any browser shows.

mod harness;

#[path = "report/browser.rs"]
mod browser;
#[path = "report/well_formed.rs"]
mod well_formed;

use std::path::PathBuf;

use harness::*;
use serde_json::Value;
use well_formed::elements;

/// Text that would do harm if it were taken for HTML.
const HOSTILE: &str = "</title></style><script>alert(1)</script> \"onload='x' &amp; &";

/// An archive with a bit of everything, and the page of it.
fn page(generator: &Generator) -> (TestRepo, PathBuf, String) {
    let repo = TestRepo::init();
    generator.fill(repo.root());
    run(&mut repo.pgark(&["pin", "b0001", "--note", HOSTILE])).succeeds();
    let file = repo.scratch().join("report.html");
    let mut command = repo.pgark(&["report", "--output", "json", "--html"]);
    let said: Value = serde_json::from_str(&run(command.arg(&file)).succeeds()).expect("JSON");
    assert_matches_schema("report", &said);
    let page = std::fs::read_to_string(&file).expect("a page");
    assert_eq!(said["bytes"].as_u64(), Some(page.len() as u64));
    (repo, file, page)
}

fn varied() -> Generator {
    Generator { segments: 900, backups: 40, timelines: 3, holes: 2, ..Generator::default() }
}

#[test]
fn a_page_is_well_formed_and_needs_nothing_else() {
    let (_repo, _, page) = page(&varied());
    let elements = elements(&page);
    let count = |name: &str| elements.iter().filter(|(element, _)| element == name).count();
    assert_eq!(
        (count("html"), count("script"), count("link"), count("img"), count("iframe")),
        (1, 0, 0, 0, 0)
    );
    assert_eq!(count("section"), 1);
    assert!(count("circle") > 20 && count("rect") > 20, "the map and the bars are drawn");
    for outside in ["http", "//", "url(", "@import", "src=", "href="] {
        let place = page.find(outside);
        assert_eq!(place, None, "{outside} in {:?}", place.map(|place| page.get(place..place + 60)));
    }
    assert!(elements.iter().all(|(_, attributes)| !attributes.iter().any(|name| name.starts_with("on"))));
    // Once in the table of backups; nothing of it became an element.
    assert!(page.contains("pinned: &lt;/title&gt;&lt;/style&gt;&lt;script&gt;alert(1)"), "the note is told");
    for expected in ["Timeline 3", "left 2 at", "WAL is missing in 2 places.", "b0039", "at any moment from"]
    {
        assert!(page.contains(expected), "{expected:?} is not in the page");
    }
}

#[test]
fn what_is_wrong_is_on_the_page_and_in_the_exit_code() {
    let repo = TestRepo::init();
    Generator { segments: 60, backups: 3, ..Generator::default() }.fill(repo.root());
    repo.damage(&repo.only("b0001/backup.json"), Damage::Truncate(40));
    repo.matching("/pack/").iter().for_each(|pack| repo.damage(pack, Damage::Delete));
    let file = repo.scratch().join("report.html");
    run(repo.pgark(&["report", "--html"]).arg(&file)).fails_with(5, "");
    let page = std::fs::read_to_string(&file).expect("written all the same");
    elements(&page);
    for expected in ["1 object can&#39;t be read.", "backup b0001", "2 backups can&#39;t be restored."] {
        assert!(page.contains(expected), "{expected:?} is not in the page");
    }
}

#[test]
fn an_archive_without_backups_and_one_of_two_incarnations_have_pages() {
    let repo = TestRepo::init();
    Generator { segments: 3, backups: 0, ..Generator::default() }.fill(repo.root());
    let file = repo.scratch().join("report.html");
    run(repo.pgark(&["report", "--html"]).arg(&file)).succeeds();
    let empty = std::fs::read_to_string(&file).expect("a page");
    elements(&empty);
    assert!(empty.contains("Nothing can be restored."));
    Generator { system_id: 77, segments: 20, backups: 1, ..Generator::default() }.fill(repo.root());
    Generator { cluster: "other".into(), segments: 20, backups: 1, ..Generator::default() }.fill(repo.root());
    run(repo.pgark(&["report", "--all-clusters", "--html"]).arg(&file)).succeeds();
    let page = std::fs::read_to_string(&file).expect("replaced");
    assert_eq!(elements(&page).iter().filter(|(element, _)| element == "section").count(), 3);
    assert!(page.contains("Backups of main, other"));
}

#[test]
fn what_a_check_found_is_on_the_page() {
    let repo = TestRepo::golden();
    let file = repo.scratch().join("report.html");
    let nobody = [("PGHOST", "127.0.0.1"), ("PGPORT", "1")];
    run(repo.pgark(&["check"]).envs(nobody)).fails_with(2, "");
    run(repo.pgark(&["report", "--html"]).arg(&file)).succeeds();
    let page = std::fs::read_to_string(&file).expect("a page");
    elements(&page);
    let found = page.split("checked the cluster").nth(1).unwrap_or_else(|| panic!("no check in {page}"));
    assert!(found.contains("<span class=\"bad\">critical: "), "{found}");
}

#[test]
fn what_verifications_found_is_on_the_page() {
    let repo = TestRepo::golden();
    let file = repo.scratch().join("report.html");
    let written = || {
        run(repo.pgark(&["report", "--html"]).arg(&file)).succeeds();
        std::fs::read_to_string(&file).expect("a page")
    };
    let rows = |page: &str| page.matches(">verified everything: ").count();
    let before = rows(&written());
    let verified = run(&mut repo.pgark(&["verify"]));
    let page = written();
    elements(&page);
    assert!(page.contains("Checks and verifications"), "{verified}");
    assert_eq!(rows(&page), before + 1, "{verified}");
    let sound = page.contains("<span class=\"good\">sound</span>");
    assert_eq!(sound, verified.code == Some(0), "{verified}");
}

#[test]
fn a_page_that_cannot_be_written_leaves_the_old_one() {
    let (repo, file, page) = page(&Generator::default());
    run(repo.pgark(&["report", "--html"]).arg(repo.scratch().join("nowhere/report.html")))
        .fails_with(6, "nowhere");
    run(repo.pgark(&["report", "--cluster", "third", "--html"]).arg(&file))
        .fails_with(3, "has no cluster third");
    assert_eq!(std::fs::read_to_string(&file).expect("there"), page);
    run(&mut repo.pgark(&["report"])).fails_with(2, "--html");
}
