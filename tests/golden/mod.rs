//! The repository in `tests/format/v1`, as format version 1 was released.

use std::path::{Path, PathBuf};

use pgark::location::Location;
use pgark::pg::lsn::SystemId;
use pgark::repo::{Cluster, Repository};

pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/v1")
}

pub fn cluster() -> Cluster {
    let location = Location::parse(&golden().display().to_string()).expect("location");
    let repository = Repository::open(&location, None).expect("a repository");
    repository.cluster(&"main".parse().expect("name"), SystemId(7_650_000_000_000_000_001))
}
