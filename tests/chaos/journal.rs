//! What the clients know, kept outside of every server: for each lane its transactions in order, what was
//! acknowledged, and when. From it follows which of them a server must have that was restored to some moment,
//! which it can't have, and of which nobody can tell.
//!
//! A lane commits one transaction after the other, so what a server has of it is always a beginning.

/// A place in the WAL and the server's clock, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub lsn: u64,
    /// Microseconds since 1970.
    pub time: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The commit was sent, and no answer came.
    Open,
    /// The server answered. Guarded: it had waited for `wal-receive --synchronous`.
    Acknowledged { guarded: bool },
    /// No answer came, but a later look found it there.
    Found,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub hash: String,
    pub xid: u64,
    /// Before the transaction began.
    pub before: Point,
    /// When it was surely there.
    pub after: Option<Point>,
    pub fate: Fate,
}

/// Up to where a server was restored.
#[derive(Clone, Debug)]
pub enum Upto {
    Lsn(u64),
    Time(i64),
    Transaction {
        lane: usize,
        /// Counted from 0.
        place: usize,
        exclusive: bool,
    },
    /// All that was ever acknowledged.
    End,
    /// All that was acknowledged by two.
    Guarded,
}

/// The transactions of one timeline, from the very beginning on.
#[derive(Clone, Debug)]
pub struct Journal {
    pub lanes: Vec<Vec<Entry>>,
}

impl Journal {
    pub fn new(lanes: usize) -> Self {
        Self { lanes: vec![Vec::new(); lanes] }
    }

    /// The commit is about to be sent.
    pub fn begin(&mut self, lane: usize, hash: &str, xid: u64, before: Point) {
        let entry = Entry { hash: hash.to_owned(), xid, before, after: None, fate: Fate::Open };
        self.lanes[lane].push(entry);
    }

    pub fn settle(&mut self, lane: usize, fate: Fate, after: Option<Point>) {
        let entry = self.lanes[lane].last_mut().expect("it was begun");
        (entry.fate, entry.after) = (fate, after);
    }

    /// It was rolled back.
    pub fn forget(&mut self, lane: usize) {
        let entry = self.lanes[lane].pop().expect("it was begun");
        assert_eq!(entry.fate, Fate::Open, "what was acknowledged is gone: lane {lane}, {entry:?}");
    }

    /// The journal of a new timeline that began at `at` with so many transactions of each lane.
    pub fn fork(&self, found: &[usize], at: Point) -> Self {
        let inherit = |(lane, count): (&Vec<Entry>, &usize)| {
            let inherited = lane.iter().take(*count).cloned().map(|mut entry| {
                let after = entry.after.unwrap_or(at);
                entry.after = Some(Point { lsn: after.lsn.min(at.lsn), time: after.time.min(at.time) });
                if entry.fate == Fate::Open {
                    entry.fate = Fate::Found;
                }
                entry
            });
            inherited.collect()
        };
        Self { lanes: self.lanes.iter().zip(found).map(inherit).collect() }
    }

    /// Whether what a server has, the hashes of each lane, is what it must have.
    pub fn judge(&self, upto: &Upto, found: &[Vec<String>]) -> Result<(), String> {
        assert_eq!(self.lanes.len(), found.len(), "not as many lanes");
        for (number, (lane, there)) in self.lanes.iter().zip(found).enumerate() {
            for (place, hash) in there.iter().enumerate() {
                match lane.get(place) {
                    Some(entry) if entry.hash == *hash => {}
                    other => {
                        return Err(format!(
                            "lane {number}: {place} is {hash}, which nobody made: {other:?}"
                        ));
                    }
                }
            }
            for (place, entry) in lane.iter().enumerate() {
                let (is, must) = (place < there.len(), self.must(upto, number, place));
                let wrong = match is {
                    false if must => "missing",
                    true if !must && self.must_not(upto, number, place) => "there and later than",
                    _ => continue,
                };
                let next = lane.get(place + 1);
                return Err(format!(
                    "lane {number}: {place} of {} is {wrong} {upto:?} ({} are there): {entry:?}, then {next:?}",
                    lane.len(),
                    there.len()
                ));
            }
        }
        Ok(())
    }

    fn must(&self, upto: &Upto, lane: usize, place: usize) -> bool {
        let entry = &self.lanes[lane][place];
        let by = |wanted: &dyn Fn(Point) -> bool| entry.after.is_some_and(wanted);
        match *upto {
            Upto::Lsn(lsn) => by(&|after| after.lsn <= lsn),
            Upto::Time(time) => by(&|after| after.time <= time),
            Upto::Transaction { lane: of, place: last, exclusive } => {
                let itself = of == lane && last == place;
                let target = &self.lanes[of][last];
                if itself { !exclusive } else { by(&|after| after.lsn <= target.before.lsn) }
            }
            Upto::End => entry.fate != Fate::Open,
            Upto::Guarded => entry.fate == Fate::Acknowledged { guarded: true },
        }
    }

    fn must_not(&self, upto: &Upto, lane: usize, place: usize) -> bool {
        let entry = &self.lanes[lane][place];
        match *upto {
            Upto::Lsn(lsn) => entry.before.lsn >= lsn,
            Upto::Time(time) => entry.before.time > time,
            Upto::Transaction { lane: of, place: last, exclusive } => {
                let itself = of == lane && last == place;
                let ended = self.lanes[of][last].after.map(|after| after.lsn);
                if itself { exclusive } else { ended.is_some_and(|ended| entry.before.lsn >= ended) }
            }
            Upto::End | Upto::Guarded => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten of each lane, one after the other: each begins at 100 n, and is there at 100 n + 50.
    fn journal() -> Journal {
        let mut journal = Journal::new(2);
        for number in 0..10_u64 {
            for lane in 0..2 {
                let begin = 100 * (number + 1);
                let point = |at: u64| Point { lsn: at, time: at as i64 };
                journal.begin(lane, &format!("{lane}-{number}"), number, point(begin));
                let fate = Fate::Acknowledged { guarded: number < 7 };
                if number < 9 {
                    journal.settle(lane, fate, Some(point(begin + 50)));
                }
            }
        }
        journal
    }

    fn found(counts: [usize; 2]) -> Vec<Vec<String>> {
        let lane = |(lane, count)| (0..count).map(|number| format!("{lane}-{number}")).collect();
        counts.into_iter().enumerate().map(lane).collect()
    }

    #[test]
    fn what_a_server_has_is_judged_by_what_was_acknowledged_before_and_begun_after() {
        let last = |exclusive| Upto::Transaction { lane: 0, place: 4, exclusive };
        let cases = [
            (Upto::Lsn(350), [3, 3], true),
            (Upto::Lsn(350), [2, 3], false),
            (Upto::Lsn(350), [3, 4], false),
            (Upto::Lsn(325), [3, 2], true),
            (Upto::Lsn(300), [2, 2], true),
            (Upto::Time(300), [3, 2], true),
            (Upto::Time(300), [3, 1], false),
            (Upto::Time(299), [3, 2], false),
            (last(false), [5, 4], true),
            (last(false), [5, 5], true),
            (last(false), [4, 5], false),
            (last(false), [6, 5], false),
            (last(true), [4, 5], true),
            (last(true), [5, 5], false),
            (Upto::End, [9, 10], true),
            (Upto::End, [8, 10], false),
            (Upto::Guarded, [7, 8], true),
            (Upto::Guarded, [6, 8], false),
        ];
        for (upto, counts, right) in cases {
            let judged = journal().judge(&upto, &found(counts));
            assert_eq!(judged.is_ok(), right, "{upto:?} {counts:?}: {judged:?}");
        }
    }

    #[test]
    fn another_transaction_in_the_place_of_one_and_one_too_many_are_found() {
        let mut other = found([9, 9]);
        other[1][3] = "something".to_owned();
        assert!(journal().judge(&Upto::End, &other).expect_err("other").contains("nobody made"));
        let mut more = found([9, 10]);
        more[1].push("1-10".to_owned());
        assert!(journal().judge(&Upto::End, &more).expect_err("one too many").contains("nobody made"));
    }

    #[test]
    fn a_new_timeline_has_what_was_found_at_its_beginning_for_good() {
        let forked = journal().fork(&[10, 5], Point { lsn: 1020, time: 1020 });
        assert_eq!((forked.lanes[0].len(), forked.lanes[1].len()), (10, 5));
        assert_eq!(forked.lanes[0][9].fate, Fate::Found);
        assert!(forked.judge(&Upto::Lsn(1020), &found([10, 5])).is_ok());
        assert!(forked.judge(&Upto::Lsn(1020), &found([9, 5])).is_err());
    }
}
