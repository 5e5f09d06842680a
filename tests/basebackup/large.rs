//! Many files, and large ones: what a backup and a restore of them take goes by the number of jobs, and by what
//! is in the files.

use std::path::Path;

use crate::harness::*;

/// Kilobytes of heap that two jobs may take: what they take, and less than would be needed to remember all files.
const BACKUP_MEMORY: u64 = 72 << 10;
const RESTORE_MEMORY: u64 = 40 << 10;

/// Small files.
const FILES: u32 = 100_000;

/// A file of a relation, bytes.
const LARGEST: u64 = 1 << 30;

fn source(repo: &TestRepo) -> Cluster {
    Cluster::builder().archive_to(repo).wal_segment_mib(1).start()
}

/// The exit status of a program with so many kilobytes of heap, its data segment included.
fn within(
    kilobytes: u64,
    repo: &TestRepo,
    source: &Cluster,
    program: &str,
    arguments: &[&str],
) -> Option<i32> {
    let limited = format!("ulimit -d {kilobytes} && exec \"$0\" \"$@\"");
    let mut command = command("sh");
    command.env("PGARK_CONFIG", repo.config()).envs(source.env());
    command.arg("-c").arg(limited).arg(program_path(program)).args(arguments);
    command.output().expect("run sh").status.code()
}

fn files_in(directory: &Path) -> usize {
    std::fs::read_dir(directory).expect("list").count()
}

#[test]
fn a_hundred_thousand_files_are_backed_up_and_restored_in_bounded_memory() {
    let repo = TestRepo::init();
    let source = source(&repo);
    let backup = |kilobytes, label| {
        within(kilobytes, &repo, &source, "basebackup", &["--jobs", "2", "--label", label]) == Some(0)
    };
    assert!(!backup(1 << 10, "none"), "this limit does not limit");
    assert!(backup(BACKUP_MEMORY, "few"), "a small backup takes more than {BACKUP_MEMORY} kB");
    source.plant_files(0..FILES);
    assert!(backup(BACKUP_MEMORY, "many"), "the backup takes more than {BACKUP_MEMORY} kB");
    let header = repo.read(&repo.only("/backup/many/backup.json"));
    let header: serde_json::Value = serde_json::from_slice(&header).expect("JSON");
    assert!(header["map"]["files"].as_u64() > Some(FILES.into()), "{}", header["map"]);

    let here = Scratch::new();
    let restore = |kilobytes, label, target: &str| {
        let target = here.join(target);
        let arguments = ["--no-start", "--jobs", "2", "--backup", label, "-D"];
        let arguments = [&arguments[..], &[target.to_str().expect("UTF-8")]].concat();
        within(kilobytes, &repo, &source, "bootstrap-restore", &arguments) == Some(0)
    };
    assert!(!restore(1 << 10, "few", "none"), "this limit does not limit");
    assert!(restore(RESTORE_MEMORY, "few", "few"), "a small restore takes more than {RESTORE_MEMORY} kB");
    assert!(restore(RESTORE_MEMORY, "many", "many"), "the restore takes more than {RESTORE_MEMORY} kB");
    let files = |root: &Path| files_in(&root.join(source.planted()));
    assert_eq!(files(&here.join("many")), files(&here.join("few")) + FILES as usize);
}

#[test]
fn sixteen_gigabytes_of_holes_are_restored_as_holes_where_there_is_room_for_half_a_gigabyte() {
    let Some(disk) = SmallDisk::mount(512 << 20) else { return };
    let repo = TestRepo::init();
    let source = source(&repo);
    source.psql("create table t as select generate_series(1, 1000) a");
    source.plant_sparse(0..16, LARGEST);
    let said = run(&mut repo.basebackup(&source)).succeeds();
    assert!(said.contains("16.0"), "{said}");
    source.archive_everything();
    let target = disk.path().join("data");
    let sockets = repo.scratch().make_dir("sockets");
    let mut restore = repo.bootstrap_restore();
    restore.arg("-D").arg(&target).arg("--socket-dir").arg(&sockets);
    let said = run(&mut restore).succeeds();
    assert!(said.contains("and there is no room for that when the server fills them"), "{said}");
    let restored = Cluster::adopt(&target);
    assert_eq!(restored.psql("select count(*) from t"), "1000");
    for number in 0..16 {
        let path = target.join(source.planted()).join(planted_name(number));
        assert!(is_sparse(&path, LARGEST), "{}", path.display());
    }
}
