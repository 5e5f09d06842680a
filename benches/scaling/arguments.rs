//! What is measured, and how far.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Part {
    /// A cluster of many small files: backup and restore
    Files,
    /// A cluster of sparse files of 1 GiB: backup and restore
    Holes,
    /// An archive of many segments: what lists and reads it
    Segments,
}

impl Part {
    pub const ALL: [Part; 3] = [Part::Files, Part::Holes, Part::Segments];

    pub fn title(self) -> &'static str {
        match self {
            Part::Files => "Small files",
            Part::Holes => "Sparse files of 1 GiB",
            Part::Segments => "WAL segments",
        }
    }

    /// What its sizes count.
    pub fn unit(self) -> &'static str {
        match self {
            Part::Files | Part::Holes => "files",
            Part::Segments => "segments",
        }
    }
}

/// Measures how time and memory grow with files and segments
#[derive(Parser)]
#[command(name = "scaling", bin_name = "cargo bench --bench scaling --")]
pub struct Arguments {
    /// What to measure; everything unless named
    parts: Vec<Part>,

    /// Numbers of small files
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    pub files: Vec<u32>,

    /// Numbers of sparse files of 1 GiB
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000")]
    pub holes: Vec<u32>,

    /// Numbers of segments; each takes 8 KiB of disk
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    pub segments: Vec<u32>,

    /// Backups in the archive of segments
    #[arg(long, default_value = "400")]
    pub backups: u64,

    /// Add what is measured to this file, and show all that is in it
    #[arg(long, value_name = "FILE")]
    pub points: Option<PathBuf>,

    /// Measure nothing, only show what --points has
    #[arg(long, requires = "points")]
    show: bool,

    /// Also write the tables into this file, in Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Draw them
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    pub fn read() -> Self {
        let mut arguments = Self::parse();
        for sizes in [&mut arguments.files, &mut arguments.holes, &mut arguments.segments] {
            sizes.sort();
        }
        arguments
    }

    pub fn wants(&self, part: Part) -> bool {
        !self.show && (self.parts.is_empty() || self.parts.contains(&part))
    }

    pub fn write(&self, markdown: &str, svg: &str) {
        for (path, content) in [(&self.markdown, markdown), (&self.svg, svg)] {
            if let Some(path) = path {
                std::fs::write(path, content)
                    .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
            }
        }
    }
}
