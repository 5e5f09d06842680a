//! Archives of many segments, made by the generator: what lists them, and what reads their headers.

use std::time::{Duration, SystemTime};

use crate::Tell;
use crate::arguments::Arguments;
use crate::harness::{Generator, TestRepo, program_path};
use crate::measure::{Call, Launcher};

/// So long ago the archive ends: expiry leaves alone what is new.
const AGE: Duration = Duration::from_secs(3 * 86_400);

/// Objects of which a verification reads a sample.
const SAMPLE: &str = "1000";

pub fn measure(launcher: &Launcher, arguments: &Arguments, tell: &mut Tell<'_>) {
    for segments in arguments.segments.iter().copied() {
        let archive = Archive::make(segments, arguments.backups);
        for (work, call) in archive.calls() {
            tell(work, segments, &launcher.measure(&call));
        }
    }
}

struct Archive {
    repo: TestRepo,
    generator: Generator,
}

impl Archive {
    fn make(segments: u32, backups: u64) -> Self {
        let repo = TestRepo::init();
        let generator = Generator {
            segments: segments.into(),
            // No more than there is WAL for.
            backups: backups.min(u64::from(segments) / 2),
            timelines: 3,
            end: SystemTime::now() - AGE,
            ..Generator::default()
        };
        generator.fill(repo.root());
        Self { repo, generator }
    }

    /// In the order in which they run: the last deletes half of it.
    fn calls(&self) -> Vec<(&'static str, Call)> {
        let expire = ["expire", "--recovery-window", "18 days"];
        let find = ["find", "--no-server", "--points"];
        vec![
            ("info", self.pgark().args(["info"])),
            ("wal-fetch of what is absent", self.fetch_of_absent()),
            // Nothing is found: what the segments hold is no WAL.
            ("find --points", self.ending_with(3, &self.pgark().args(find))),
            ("verify of 1000 objects", self.pgark().args(["verify", "--for-objects", SAMPLE])),
            ("expire, plan only", self.pgark().args(expire).args(["--dry-run"])),
            ("expire", self.pgark().args(expire)),
        ]
    }

    fn pgark(&self) -> Call {
        self.call("pgark")
    }

    /// The segment that comes next, which does not exist yet.
    fn fetch_of_absent(&self) -> Call {
        let system_id = self.generator.system_id.to_string();
        let fetch = self.call("wal-fetch").args(["--system-id", &system_id]);
        let next = self.generator.next_segment();
        let fetch = fetch.args([&next]).arg(self.repo.scratch().join("fetched"));
        self.ending_with(1, &fetch).within(self.repo.scratch().path())
    }

    /// A call that is right when it ends with that status.
    fn ending_with(&self, status: i32, call: &Call) -> Call {
        let script = format!("shift; \"$@\"; test $? = {status}");
        call.through(&script, self.repo.scratch().path())
    }

    fn call(&self, program: &str) -> Call {
        let config = ("PGARK_CONFIG".to_owned(), self.repo.config().display().to_string());
        Call::new(program_path(program)).envs(vec![config])
    }
}
