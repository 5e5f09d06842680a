//! An attacker who can write the repository: the map of a backup, its header, a stored segment, each with what he
//! likes in it and every digest made right. By the bytes of `docs/repository-format.md` and not by the library,
//! which refuses to write such things.

use pgark::pipe::digest::Sha256Digest;
use serde_json::{Value, json};

use super::repo::TestRepo;

const TRAILER: usize = 84;
/// Of a skippable frame's magic number and length.
const SKIPPABLE: usize = 8;
/// Of the header of a stored segment.
const SEGMENT_HEADER: usize = 4096;

/// A backup that is being rewritten.
pub struct ForgedBackup {
    pub header: Value,
    /// The lines of each chunk of the map.
    pub chunks: Vec<Vec<Value>>,
    /// What the list says of each chunk besides its place and digest; [`ForgedBackup::store`] sees to the first path.
    pub list: Vec<Value>,
}

impl ForgedBackup {
    pub fn read(repo: &TestRepo, label: &str) -> Self {
        let header = serde_json::from_slice(&repo.read(&header_key(repo, label))).expect("JSON");
        let map = repo.read(&map_key(repo, label));
        let trailer = &map[map.len() - TRAILER..];
        let number =
            |at: usize| u64::from_le_bytes(trailer[at..at + 8].try_into().expect("8 bytes")) as usize;
        let list = lines(&unzip(&map[number(24)..number(24) + number(32)]));
        let chunk = |line: &Value| {
            let place = |name: &str| line[name].as_u64().expect("a number") as usize;
            lines(&unzip(&map[place("offset")..place("offset") + place("stored")]))
        };
        Self { header, chunks: list.iter().map(chunk).collect(), list }
    }

    /// The line of the entry with this path.
    #[track_caller]
    pub fn entry(&mut self, path: &str) -> &mut Value {
        let mut all = self.chunks.iter_mut().flatten();
        all.find(|line| line["path"] == path).unwrap_or_else(|| panic!("no {path} in the map"))
    }

    /// The first entry of a file of which a frame holds something.
    pub fn stored_file(&mut self) -> &mut Value {
        let mut all = self.chunks.iter_mut().flatten();
        all.find(|line| line["slices"][0].as_array().is_some_and(|slice| slice.len() == 4)).expect("a file")
    }

    /// The first frame that the map names.
    pub fn frame(&mut self) -> &mut Value {
        let mut all = self.chunks.iter_mut().flatten();
        &mut all.find(|line| line["frames"][0].is_object()).expect("frames")["frames"][0]
    }

    /// Puts a line where its path belongs.
    pub fn insert(&mut self, line: Value) {
        self.count(&line);
        let path = line["path"].as_str().expect("a path").to_owned();
        let chunk = self.chunks.first_mut().expect("a chunk");
        let behind = |other: &Value| other["path"].as_str().is_some_and(|other| parts(other) > parts(&path));
        let place = chunk.iter().position(behind).unwrap_or(chunk.len());
        chunk.insert(place, line);
    }

    /// Puts a line behind the first entry, wherever its path belongs.
    pub fn insert_first(&mut self, line: Value) {
        self.count(&line);
        let chunk = self.chunks.first_mut().expect("a chunk");
        let place = chunk.iter().position(|line| line["path"].is_string()).expect("an entry");
        chunk.insert(place + 1, line);
    }

    /// The header says that there is one more, so that nothing but the line itself is wrong.
    pub fn count(&mut self, line: &Value) {
        let map = &mut self.header["map"];
        let counted = if line["kind"] == "directory" { "directories" } else { "files" };
        map[counted] = (map[counted].as_u64().expect("a number") + 1).into();
        let bytes = map["raw_bytes"].as_u64().expect("a number");
        map["raw_bytes"] = bytes.saturating_add(line["size"].as_u64().unwrap_or(0)).into();
    }

    /// Writes it, every digest right.
    pub fn store(&mut self, repo: &TestRepo, label: &str) {
        let (mut map, mut list) = (Vec::new(), Vec::new());
        for (chunk, said) in self.chunks.iter().zip(&mut self.list) {
            let raw = text(chunk);
            let stored = zip(&raw);
            said["offset"] = map.len().into();
            said["stored"] = stored.len().into();
            said["raw"] = raw.len().into();
            said["sha256"] = Sha256Digest::of(&stored).to_string().into();
            if let Some(first) = chunk.iter().find(|line| line["path"].is_string()) {
                said["path"] = first["path"].clone();
            }
            list.push(said.clone());
            map.extend(stored);
        }
        let raw_list = text(&list);
        let list = zip(&raw_list);
        map.extend(sealed_list(map.len(), &list, raw_list.len() as u64, 1));
        self.header["map"]["size"] = map.len().into();
        self.header["map"]["sha256"] = Sha256Digest::of(&map).to_string().into();
        self.header["map"]["list_sha256"] = Sha256Digest::of(&list).to_string().into();
        self.header["map"]["chunks"] = self.chunks.len().into();
        repo.replace(&map_key(repo, label), &map);
        self.header.as_object_mut().expect("an object").remove("header_sha256");
        let header = serde_json::to_string_pretty(&self.header).expect("JSON");
        repo.replace(&header_key(repo, label), seal_header(&header));
    }
}

/// Rewrites a backup.
pub fn forge_backup(repo: &TestRepo, label: &str, change: impl FnOnce(&mut ForgedBackup)) {
    let mut backup = ForgedBackup::read(repo, label);
    change(&mut backup);
    backup.store(repo, label);
}

/// Rewrites the text of a backup's header.
pub fn forge_header(repo: &TestRepo, label: &str, change: impl FnOnce(&str) -> String) {
    let key = header_key(repo, label);
    let text = String::from_utf8(repo.read(&key)).expect("UTF-8");
    repo.replace(&key, seal_header(&change(&text)));
}

/// Rewrites a stored segment: the JSON of its header, and what comes behind that.
pub fn forge_segment(repo: &TestRepo, key: &str, change: impl FnOnce(&mut Value, &mut Vec<u8>)) {
    let object = repo.read(key);
    let (header, data) = object.split_at(SEGMENT_HEADER);
    let mut content = serde_json::Deserializer::from_slice(&header[SKIPPABLE..]).into_iter::<Value>();
    let mut json = content.next().expect("a header").expect("JSON");
    let mut data = data.to_vec();
    change(&mut json, &mut data);
    json["data"]["size"] = data.len().into();
    json["data"]["sha256"] = Sha256Digest::of(&data).to_string().into();
    let mut header = serde_json::to_vec(&json).expect("JSON");
    // `{"crc32c":"01234567"}` and a newline end it.
    header.resize(SEGMENT_HEADER - SKIPPABLE - 22, b' ');
    let checksum = crc32c::crc32c(&header);
    header.extend_from_slice(format!("{{\"crc32c\":\"{checksum:08x}\"}}\n").as_bytes());
    repo.replace(key, [skippable(0x184D_2A50, &header), data].concat());
}

/// An object with this trailer's version in its last bytes, its checksum right.
pub fn forge_trailer_version(repo: &TestRepo, key: &str, version: u32) {
    let mut object = repo.read(key);
    let start = object.len() - TRAILER;
    object[start + 20..start + 24].copy_from_slice(&version.to_le_bytes());
    let checksum = crc32c::crc32c(&object[start..start + 80]);
    object[start + 80..].copy_from_slice(&checksum.to_le_bytes());
    repo.replace(key, object);
}

/// One zstd frame that says how long its content is.
pub fn zip(raw: &[u8]) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(1).expect("zstd");
    compressor.include_checksum(true).expect("zstd");
    compressor.compress(raw).expect("compressed")
}

fn unzip(stored: &[u8]) -> Vec<u8> {
    zstd::decode_all(stored).expect("zstd")
}

fn lines(text: &[u8]) -> Vec<Value> {
    serde_json::Deserializer::from_slice(text).into_iter().map(|line| line.expect("JSON")).collect()
}

fn text(lines: &[Value]) -> Vec<u8> {
    lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()
}

/// As a map sorts them.
fn parts(path: &str) -> Vec<&str> {
    if path == "." { Vec::new() } else { path.split('/').collect() }
}

fn skippable(magic: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short");
    [&magic.to_le_bytes(), &length.to_le_bytes(), content].concat()
}

/// The list behind `content` bytes of a map, and the trailer.
fn sealed_list(content: usize, list: &[u8], raw: u64, version: u32) -> Vec<u8> {
    let mut trailer = b"pgark map\0\0\0".to_vec();
    trailer.extend_from_slice(&version.to_le_bytes());
    for number in [(content + SKIPPABLE) as u64, list.len() as u64, raw] {
        trailer.extend_from_slice(&number.to_le_bytes());
    }
    trailer.extend_from_slice(&Sha256Digest::of(list).0);
    trailer.extend_from_slice(&[0; 4]);
    let mut trailer = skippable(0x184D_2A5B, &trailer);
    let checksum = crc32c::crc32c(&trailer[..80]);
    trailer[80..].copy_from_slice(&checksum.to_le_bytes());
    [skippable(0x184D_2A5B, list), trailer].concat()
}

/// A header that ends with its digest, whatever it had before.
fn seal_header(json: &str) -> Vec<u8> {
    let member = ",\n  \"header_sha256\": \"";
    let open = match json.rfind(member) {
        Some(place) => &json[..place],
        None => json.trim_end().strip_suffix("\n}").expect("an object"),
    };
    let with = |digest: &str| format!("{open}{member}{digest}\"\n}}\n").into_bytes();
    let digest = Sha256Digest::of(&with(&"0".repeat(64))).to_string();
    with(&digest)
}

fn header_key(repo: &TestRepo, label: &str) -> String {
    repo.only(&format!("/backup/{label}/backup.json"))
}

fn map_key(repo: &TestRepo, label: &str) -> String {
    repo.only(&format!("/backup/{label}/files.jsonl.zst"))
}

/// A directory or, with slices, a file, as a line of a map.
pub fn map_line(kind: &str, path: &str, size: u64, slices: Value) -> Value {
    let mode = if kind == "directory" { "0700" } else { "0600" };
    let mut line = json!({"kind": kind, "path": path, "mode": mode, "mtime": "2026-11-23T03:10:00Z"});
    if kind != "directory" {
        line["size"] = size.into();
        line["slices"] = slices;
    }
    line
}
