//! A backup read back from the repository, and made a server again: without `bootstrap-restore`, so that the
//! two programs are not only right about each other.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use pgark::location::Location;
use pgark::repo::Repository;
use pgark::repo::backup::{self, BackupHeader};
use pgark::repo::map::{Entry, MapReader, Root, Slice};
use pgark::repo::pack::PackReader;

use crate::harness::*;

/// A backup in memory: for clusters of a few dozen MiB.
pub struct Stored {
    pub header: BackupHeader,
    /// Path and mode.
    pub directories: BTreeMap<String, u32>,
    /// Path, mode and content of the data directory's files.
    pub files: BTreeMap<String, (u32, Vec<u8>)>,
    /// Absolute path and content of the configuration outside.
    pub config: BTreeMap<String, Vec<u8>>,
}

/// Reads a backup and checks all of it.
pub fn read(repo: &TestRepo, label: &str) -> Stored {
    let location = Location::parse(&repo.root().display().to_string()).expect("a location");
    let repository = Repository::open(&location, None).expect("a repository");
    let name = "main".parse().expect("a name");
    let system_ids = repository.system_ids(&name).expect("readable");
    assert_eq!(system_ids.len(), 1);
    let cluster = repository.cluster(&name, system_ids[0]);
    let label = label.parse().expect("a label");
    let header = backup::read(&cluster, &label).expect("a header");
    let map = MapReader::open(&cluster, &label, &header.map).expect("a map");
    let mut packs = PackReader::new(&cluster).expect("a reader");
    let (mut directories, mut files, mut config) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for chunk in map.iter() {
        let chunk = chunk.expect("a whole chunk");
        for entry in &chunk.entries {
            let attributes = entry.attributes();
            let (path, mode) = (attributes.path.as_path().display().to_string(), attributes.mode.bits());
            match (entry, attributes.path.root()) {
                (Entry::Directory(_), _) => drop(directories.insert(path, mode)),
                (Entry::File(part), Root::Data) => {
                    let (_, content) = files.entry(path).or_insert((mode, Vec::new()));
                    append(content, &part.slices, &chunk.frames, &mut packs);
                }
                (Entry::File(part), Root::Config) => {
                    let content = config.entry(format!("/{path}")).or_insert_with(Vec::new);
                    append(content, &part.slices, &chunk.frames, &mut packs);
                }
            }
        }
    }
    Stored { header, directories, files, config }
}

fn append(
    content: &mut Vec<u8>,
    slices: &[Slice],
    frames: &[pgark::repo::pack::FrameLocation],
    packs: &mut PackReader,
) {
    for slice in slices {
        match *slice {
            Slice::Zeros { length } => content.resize(content.len() + length as usize, 0),
            Slice::Data { length, frame, offset, .. } => {
                let raw = packs.read_frame(&frames[frame as usize]).expect("a whole frame");
                content.extend_from_slice(&raw[offset as usize..(offset + length) as usize]);
            }
        }
    }
}

impl Stored {
    /// Unpacks the backup as `target`, as a person would who has nothing but the format's description.
    pub fn unpack(&self, target: &Path) {
        let locations = target.with_extension("tablespaces");
        make_dir(&locations);
        make_dir(target);
        for (path, mode) in &self.directories {
            let oid = path.strip_prefix("pg_tblspc/").filter(|rest| !rest.contains('/'));
            let is_link = oid.is_some_and(|oid| {
                self.header.tablespaces.iter().any(|tablespace| tablespace.oid.to_string() == oid)
            });
            let place = target.join(path);
            if is_link {
                let location = locations.join(oid.expect("a tablespace"));
                make_dir(&location);
                symlink(&location, &place).expect("link the tablespace");
            } else if !path.is_empty() {
                make_dir(&place);
                fs::set_permissions(&place, PermissionsExt::from_mode(*mode)).expect("chmod");
            }
        }
        for (path, (mode, content)) in &self.files {
            write(&target.join(path), content, *mode);
        }
        write(&target.join("backup_label"), self.header.backup_label.as_bytes(), 0o600);
        fs::set_permissions(target, PermissionsExt::from_mode(self.directories[""])).expect("chmod");
    }

    /// Unpacks the backup and makes a server of it that fetches its WAL from `repo`, to the end of the
    /// archive. It is down.
    pub fn revive(&self, repo: &TestRepo, scratch: &Scratch) -> Cluster {
        let target = scratch.join("revived");
        self.unpack(&target);
        let sockets = scratch.make_dir("s");
        let fetch =
            format!("{} --config {} %f %p", program_path("wal-fetch").display(), repo.config().display());
        let lines = [
            format!("unix_socket_directories = '{}'", sockets.display()),
            "archive_mode = off".to_string(),
            format!("restore_command = '{fetch}'"),
            "recovery_target_timeline = current".to_string(),
        ];
        let mut config = self.files["postgresql.conf"].1.clone();
        config.extend_from_slice(lines.join("\n").as_bytes());
        config.push(b'\n');
        write(&target.join("postgresql.conf"), &config, 0o600);
        write(&target.join("recovery.signal"), b"", 0o600);
        Cluster::adopt_stopped(&target)
    }
}

fn make_dir(path: &Path) {
    fs::create_dir_all(path).unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
    fs::set_permissions(path, PermissionsExt::from_mode(0o700)).expect("chmod");
    own(path);
}

fn write(path: &Path, content: &[u8], mode: u32) {
    fs::write(path, content).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("chmod");
    own(path);
}

fn own(path: &Path) {
    if is_root() {
        chown(path, Some(server_user().uid), Some(server_user().gid)).expect("chown");
    }
}

/// The files of a directory with the links in it followed, relative to it.
pub fn files_in(directory: &Path) -> BTreeMap<String, PathBuf> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(directory).follow_links(true) {
        let entry = entry.expect("list a directory");
        if entry.file_type().is_file() {
            let relative = entry.path().strip_prefix(directory).expect("below it").display().to_string();
            files.insert(relative, entry.path().to_path_buf());
        }
    }
    files
}
