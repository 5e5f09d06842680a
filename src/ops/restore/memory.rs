//! Whether this host can serve the memory settings of the source. A server that can't get its shared memory
//! does not start, and one that gets more than there is ends by the out-of-memory killer in mid-recovery.
//!
//! Refuses what is clearly too much and offers a value that fits; decides nothing about the rest.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::pg::settings_value::{MemoryUnit, parse_memory};

/// What a server's shared memory holds besides its buffers, roughly: a tenth and a little.
const OVERHEAD_DIVISOR: u64 = 10;
const OVERHEAD: u64 = 16 << 20;

/// What this host has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Can be had without pushing anything out.
    pub available: u64,
    /// Of the huge pages that nobody uses.
    pub huge_pages_free: u64,
    /// The smallest limit of the control groups that we are in.
    pub group_limit: Option<u64>,
}

/// The settings, as the server would read them.
#[derive(Clone, Copy, Debug)]
pub struct MemorySettings<'a> {
    pub shared_buffers: &'a str,
    pub huge_pages: &'a str,
    /// Bytes of a data page.
    pub block_size: u32,
}

impl Memory {
    /// Of this host. None where /proc does not say.
    pub fn of_host() -> Option<Self> {
        let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
        Self::parse(&meminfo, group_limit(&group, Path::new("/sys/fs/cgroup")))
    }

    fn parse(meminfo: &str, group_limit: Option<u64>) -> Option<Self> {
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let kilobytes = |name: &str| field(name).map(|number| number.saturating_mul(1024));
        let page = kilobytes("Hugepagesize").unwrap_or(0);
        let reserved = field("HugePages_Rsvd").unwrap_or(0);
        let pages = field("HugePages_Free").unwrap_or(0).saturating_sub(reserved);
        Some(Self {
            available: kilobytes("MemAvailable")?,
            huge_pages_free: pages.saturating_mul(page),
            group_limit,
        })
    }

    /// Refuses settings that can't be served.
    pub fn check(&self, settings: &MemorySettings<'_>) -> Result<()> {
        let buffers = parse_memory(settings.shared_buffers, MemoryUnit::Blocks(settings.block_size))
            .map_err(|error| error.context("shared_buffers"))?;
        let needed = buffers.saturating_add(buffers / OVERHEAD_DIVISOR).saturating_add(OVERHEAD);
        if settings.huge_pages.eq_ignore_ascii_case("on") {
            if self.huge_pages_free < needed {
                return Err(refuse(
                    format!(
                        "huge_pages is on and shared_buffers is {}, but {} of huge pages are free",
                        settings.shared_buffers,
                        mib(self.huge_pages_free)
                    ),
                    "add --set huge_pages=try",
                ));
            }
            return Ok(());
        }
        let limit = self.group_limit.map_or(self.available, |limit| limit.min(self.available));
        if needed > limit {
            let fitting = (limit / 4).max(16 << 20) >> 20;
            return Err(refuse(
                format!("shared_buffers is {}, but {} can be had", settings.shared_buffers, mib(limit)),
                &format!("add --set shared_buffers={fitting}MB"),
            ));
        }
        Ok(())
    }
}

fn refuse(cause: String, hint: &str) -> Error {
    Error::configuration(format!("this host can't serve the source's memory settings: {cause}"))
        .with_hint(hint)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// The smallest memory.max from our control group up to the root (version 2; version 1 has its own tree).
fn group_limit(own_group: &str, root: &Path) -> Option<u64> {
    let version_two = own_group.lines().find_map(|line| line.strip_prefix("0::/"));
    let version_one = own_group.lines().find_map(|line| line.split_once(":memory:/").map(|(_, path)| path));
    let read = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let limits = |base: PathBuf, name: &'static str, group: &str| {
        let own = base.join(group);
        let groups: Vec<PathBuf> = own.ancestors().map(Path::to_path_buf).collect();
        let inside: Vec<PathBuf> = groups.into_iter().filter(|path| path.starts_with(&base)).collect();
        inside.into_iter().filter_map(|path| read(path.join(name))).min()
    };
    let two = version_two.and_then(|group| limits(root.to_path_buf(), "memory.max", group));
    let one = version_one.and_then(|group| limits(root.join("memory"), "memory.limit_in_bytes", group));
    two.into_iter().chain(one).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8388608 kB\n\
        HugePages_Total:     100\nHugePages_Free:       60\nHugePages_Rsvd:       10\nHugepagesize:       2048 kB\n";

    fn memory() -> Memory {
        Memory::parse(MEMINFO, None).expect("as Linux writes it")
    }

    fn check(memory: Memory, shared_buffers: &str, huge_pages: &str) -> Result<()> {
        memory.check(&MemorySettings { shared_buffers, huge_pages, block_size: 8192 })
    }

    #[test]
    fn what_linux_says_is_read() {
        let expected = Memory { available: 8 << 30, huge_pages_free: 100 << 20, group_limit: None };
        assert_eq!(memory(), expected);
        assert_eq!(Memory::parse("", None), None);
    }

    #[test]
    fn buffers_that_do_not_fit_are_refused_with_a_value_that_does() {
        assert_eq!(check(memory(), "4GB", "try"), Ok(()));
        let error = check(memory(), "8GB", "try").expect_err("too much");
        assert_eq!(error.hint(), Some("add --set shared_buffers=2048MB"));
        let contained = Memory { group_limit: Some(1 << 30), ..memory() };
        let error = check(contained, "1GB", "off").expect_err("too much for the container");
        assert!(error.message().contains("1024 MiB can be had"), "{error}");
        assert_eq!(check(contained, "16384", "off"), Ok(()));
        assert!(check(memory(), "lots", "off").is_err());
    }

    #[test]
    fn demanded_huge_pages_must_be_there() {
        assert_eq!(check(memory(), "64MB", "on"), Ok(()));
        let error = check(memory(), "128MB", "on").expect_err("too few");
        assert_eq!(error.hint(), Some("add --set huge_pages=try"));
    }

    #[test]
    fn the_smallest_limit_on_the_way_to_the_root_counts() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("a/b")).expect("made");
        fs::write(root.path().join("a/memory.max"), "1000\n").expect("written");
        fs::write(root.path().join("a/b/memory.max"), "max\n").expect("written");
        assert_eq!(group_limit("0::/a/b\n", root.path()), Some(1000));
        assert_eq!(group_limit("0::/\n", root.path()), None);
        fs::create_dir_all(root.path().join("memory/x")).expect("made");
        fs::write(root.path().join("memory/x/memory.limit_in_bytes"), "500\n").expect("written");
        assert_eq!(group_limit("4:memory:/x\n0::/a\n", root.path()), Some(500));
    }
}
