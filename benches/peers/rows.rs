//! A row: one kind of work and its contenders, who take turns in shuffled order.

use crate::arguments::Arguments;
use crate::measure::Sample;
use crate::table;

/// One way to do the work. `run` prepares, measures, checks and cleans up.
pub struct Contender<'a> {
    pub name: String,
    run: Box<dyn Fn() -> Sample + 'a>,
}

pub struct Row<'a> {
    pub title: String,
    /// What to know when reading the table.
    pub notes: Vec<String>,
    /// pgark first: the others are compared with it.
    pub contenders: Vec<Contender<'a>>,
    /// Work of a few milliseconds is repeated so many times more.
    pub repeat: u32,
}

impl<'a> Row<'a> {
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), notes: Vec::new(), contenders: Vec::new(), repeat: 1 }
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    pub fn repeat(mut self, times: u32) -> Self {
        self.repeat = times;
        self
    }

    pub fn contender(mut self, name: impl Into<String>, run: impl Fn() -> Sample + 'a) -> Self {
        self.contenders.push(Contender { name: name.into(), run: Box::new(run) });
        self
    }
}

/// Measures rows, prints each when it is done, and keeps all for the file.
pub struct Report<'a> {
    arguments: &'a Arguments,
    shuffle: Shuffle,
    markdown: String,
}

impl<'a> Report<'a> {
    pub fn begin(arguments: &'a Arguments) -> Self {
        eprintln!("seed {}, {} rounds", arguments.seed, arguments.rounds);
        Self { arguments, shuffle: Shuffle(arguments.seed), markdown: String::new() }
    }

    pub fn measure(&mut self, row: &Row<'_>) {
        let rounds = self.arguments.rounds * row.repeat;
        let mut samples: Vec<Vec<Sample>> = row.contenders.iter().map(|_| Vec::new()).collect();
        for round in 1..=rounds {
            for index in self.shuffle.order(row.contenders.len()) {
                let sample = (row.contenders[index].run)();
                if row.repeat == 1 {
                    let name = &row.contenders[index].name;
                    eprintln!(
                        "  round {round} of {rounds}: {name} {:.1?}, CPU {:.1?}",
                        sample.wall, sample.cpu
                    );
                }
                samples[index].push(sample);
            }
        }
        let table = table::render(row, &samples);
        println!("\n{table}");
        self.markdown += &format!("\n{table}");
    }

    pub fn write(&self) {
        let Some(path) = &self.arguments.markdown else { return };
        let Arguments { rounds, scale, segments, seed, .. } = self.arguments;
        let head = format!("{rounds} rounds, scale {scale}, {segments} segments, seed {seed}.\n");
        std::fs::write(path, head + &self.markdown)
            .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        eprintln!("written: {}", path.display());
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Shuffle(u64);

impl Shuffle {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// 0..count in random order (Fisher and Yates).
    fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            let chosen = self.next() % (last as u64 + 1);
            order.swap(last, usize::try_from(chosen).expect("small"));
        }
        order
    }
}
