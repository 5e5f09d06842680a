//! A primary that was lost, and of whose last segment a part was streamed: stored through the library, as
//! `wal-receive` does it.

use std::os::unix::fs::chown;
use std::path::Path;

use pgark::location::Location;
use pgark::pg::lsn::SystemId;
use pgark::pg::wal::SegmentHeader;
use pgark::pipe::compress::Options;
use pgark::repo::streamed::{self, StreamedPart};
use pgark::repo::{Cluster as StoredCluster, Repository};

use crate::harness::*;

/// The primary wrote "archived", which is in the archive with a backup before it, and "first" and "second", of
/// which only a part of a segment tells.
pub struct Lost {
    pub repo: TestRepo,
    pub scratch: Scratch,
    pub primary: Cluster,
    pub part: StreamedPart,
    /// A moment and an LSN behind "first" and before "second", and the transaction of "second".
    pub between: String,
    pub between_lsn: String,
    pub xid: String,
}

impl Lost {
    pub fn new(change: impl FnOnce(ClusterBuilder) -> ClusterBuilder) -> Self {
        let repo = TestRepo::init();
        repo.configure("[fetch]\nretry = \"0s\"\nhistory_retry = \"0s\"");
        let primary = change(Cluster::builder().wal_segment_mib(1).archive_to(&repo)).start();
        primary.psql("create table t (name text)");
        run(repo.basebackup(&primary).args(["--label", "one"])).succeeds();
        note(&primary, "archived");
        primary.archive_everything();
        note(&primary, "first");
        primary.psql("select pg_create_restore_point('between')");
        let (between, between_lsn) = (primary.now(), primary.current_lsn());
        let insert = "insert into t values ('second') returning xmin";
        let xid = primary.psql(insert);
        let part = flushed(&primary);
        let wal = segment_file(&primary, part);
        primary.crash();
        let lost = Self { repo, scratch: Scratch::new(), primary, part, between, between_lsn, xid };
        lost.store(part, &wal);
        lost
    }

    pub fn cluster(&self) -> StoredCluster {
        stored_cluster(&self.repo)
    }

    /// What a receiver that got so much of the segment stores.
    pub fn store(&self, part: StreamedPart, wal: &[u8]) {
        store(&self.repo, part, wal);
    }

    /// How many parts were swept.
    pub fn sweep(&self) -> usize {
        streamed::sweep(&self.cluster(), self.part.segment).expect("swept").len()
    }

    #[track_caller]
    pub fn restore(&self, name: &str, arguments: &[&str]) -> Cluster {
        self.repo.restore(&self.scratch, name, arguments)
    }

    #[track_caller]
    pub fn dry_run(&self, arguments: &[&str]) -> String {
        run(self.restoring("dry").arg("--dry-run").args(arguments)).succeeds()
    }

    pub fn restoring(&self, directory: &str) -> assert_cmd::Command {
        let mut command = self.repo.bootstrap_restore();
        command.arg("-D").arg(self.scratch.join(directory));
        command.arg("--socket-dir").arg(self.scratch.make_dir("s"));
        command
    }
}

fn stored_cluster(repo: &TestRepo) -> StoredCluster {
    let location = Location::parse(&repo.root().display().to_string()).expect("a location");
    let repository = Repository::open(&location, None).expect("a repository");
    let name = "main".parse().expect("a name");
    let ids = repository.system_ids(&name).expect("listed");
    let [system_id]: [SystemId; 1] = ids.try_into().expect("one cluster");
    repository.cluster(&name, system_id)
}

pub fn store(repo: &TestRepo, part: StreamedPart, wal: &[u8]) {
    let cluster = stored_cluster(repo);
    let header = SegmentHeader::parse(wal).expect("a header");
    let options = Options { level: 1, workers: 1, spool: "/tmp".into() };
    streamed::store(&cluster, part, &header, &mut &wal[..], "the spool", &options).expect("stored");
    let key = cluster.layout().streamed(part.segment, part.end).expect("a key");
    own_from(repo.root(), &repo.path(key.as_str()));
}

/// A receiver runs as the server's user; this test may run as root.
fn own_from(root: &Path, path: &Path) {
    let user = server_user();
    for path in path.ancestors().take_while(|path| *path != root) {
        chown(path, Some(user.uid), Some(user.gid)).expect("chown");
    }
}

/// What a receiver has of a server's WAL now.
pub fn flushed(server: &Cluster) -> StreamedPart {
    let query = "select pg_walfile_name(lsn) || '@' || lsn from pg_current_wal_flush_lsn() as lsn";
    server.psql(query).parse().expect("a part")
}

/// The file of the segment that a server is writing.
pub fn segment_file(server: &Cluster, part: StreamedPart) -> Vec<u8> {
    std::fs::read(server.data_dir().join("pg_wal").join(part.segment.to_string())).expect("read")
}

pub fn note(server: &Cluster, name: &str) {
    server.psql(&format!("insert into t values ('{name}')"));
}

pub fn names(server: &Cluster) -> String {
    server.psql("select coalesce(string_agg(name, ' ' order by name), '') from t")
}
