//! A server that archives, with a backup; and `pgark find` with its JSON validated.

use serde_json::Value;

use crate::harness::*;

pub struct Scene {
    pub repo: TestRepo,
    pub source: Cluster,
}

impl Scene {
    /// Small segments, so that records cross their boundaries.
    pub fn start(builder: ClusterBuilder) -> Self {
        let repo = TestRepo::init();
        let source = builder
            .wal_segment_mib(1)
            .set("max_prepared_transactions", 10)
            .set("autovacuum", "off")
            .archive_to(&repo)
            .start();
        Self { repo, source }
    }

    pub fn back_up(&self) {
        run(&mut self.repo.basebackup(&self.source)).succeeds();
    }

    /// The result, and the exit status that must be `code`.
    #[track_caller]
    pub fn find_ending(&self, code: i32, arguments: &[&str]) -> Value {
        let mut command = self.repo.pgark(&["find", "--output", "json", "-q"]);
        command.args(arguments).envs(self.source.env());
        let output = command.output().expect("run pgark find");
        let errors = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}{printed}");
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_matches_schema("find", &json);
        json
    }

    #[track_caller]
    pub fn find(&self, arguments: &[&str]) -> Vec<Value> {
        let json = self.find_ending(0, arguments);
        json["hits"].as_array().expect("hits").clone()
    }

    /// The one hit.
    #[track_caller]
    pub fn find_one(&self, arguments: &[&str]) -> Value {
        let mut hits = self.find(arguments);
        assert_eq!(hits.len(), 1, "{arguments:?}: {hits:#?}");
        hits.remove(0)
    }

    /// A server as everything was just before a hit.
    #[track_caller]
    pub fn restore(&self, scratch: &Scratch, name: &str, hit: &Value) -> Cluster {
        let arguments = hit["restore"]["arguments"].as_array().expect("flags");
        let arguments: Vec<&str> = arguments.iter().map(|flag| flag.as_str().expect("a flag")).collect();
        assert_eq!(hit["restore"]["reachable"], true, "{hit:#}");
        self.repo.restore(scratch, name, &arguments)
    }
}
