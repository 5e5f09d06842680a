//! The page in a real browser, as wide as a desk and as a phone: nothing runs over the side, no label lies on
//! another. Skipped, with the reason printed, where there is no Chromium.

use std::path::Path;
use std::process::Command;

use super::*;

/// Measures the page in a frame: how far it runs over the side, and which visible texts of a drawing overlap.
const MEASURE: &str = r#"<pre id="out">nothing was measured</pre>
<iframe id="frame" src="report.html" style="width:WIDTHpx;height:900px;border:0"></iframe>
<script>
document.getElementById("frame").addEventListener("load", (event) => {
  const page = event.target.contentDocument;
  const found = ["over the side: " + (page.documentElement.scrollWidth - WIDTH)];
  for (const drawing of page.querySelectorAll("svg")) {
    const texts = [...drawing.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
    const shown = texts.filter(([text, box]) => box.width > 0);
    for (const [i, [one, a]] of shown.entries())
      for (const [two, b] of shown.slice(i + 1))
        if (a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom)
          found.push("overlap: " + one + " and " + two);
  }
  found.push("texts: " + page.querySelectorAll("svg text").length, "sections: " + page.querySelectorAll("section").length);
  document.getElementById("out").textContent = found.join("\n");
});
</script>
"#;

fn chromium() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        eprintln!("skipped: there is no Chromium here; apt-get install chromium");
    }
    found
}

/// What the measuring page says with the report in a frame of that width.
fn measured(browser: &str, directory: &Path, width: u32) -> String {
    let file = directory.join(format!("measure-{width}.html"));
    std::fs::write(&file, MEASURE.replace("WIDTH", &width.to_string())).expect("written");
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--allow-file-access-from-files",
        ])
        .args(["--virtual-time-budget=10000", "--window-size=1400,1000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", directory.join(format!("profile-{width}")).display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .expect("run the browser");
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    let out = page.split_once("<pre id=\"out\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let out = out.map(|(out, _)| out.to_string());
    out.unwrap_or_else(|| panic!("{page}\n{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn nothing_overlaps_or_runs_over_the_side_at_a_desk_or_on_a_phone() {
    let Some(browser) = chromium() else { return };
    for generator in [varied(), Generator { segments: 30, backups: 2, ..Generator::default() }] {
        let (repo, file, _) = page(&generator);
        let directory = file.parent().expect("a directory");
        for width in [1200, 768, 320] {
            let said = measured(browser, directory, width);
            assert!(said.contains("over the side: 0\n"), "{width} pixels: {said}");
            assert!(!said.contains("overlap") && said.contains("sections: 1"), "{width} pixels: {said}");
        }
        drop(repo);
    }
}
