//! A segment of which the repository has only a streamed part. `docs/decisions/streamed-segments.md` has the
//! reasons.
//!
//! Delivers a part only where a plan names it, and refuses to call the segment absent where none does.
//! Invariant: no part is delivered for another segment than its own, to a standby, or in place of a whole one.

use super::{Fetch, Outcome};
use crate::error::{Error, Kind, Result};
use crate::pg::lsn::{SegmentSize, SystemId};
use crate::pg::names::SegmentName;
use crate::pg::wal_dir;
use crate::repo::streamed::{self, StreamedPart};
use crate::repo::{Cluster, segment};

impl Fetch<'_> {
    /// The part that the plan has in place of this segment.
    pub(super) fn planned_part(&self, name: SegmentName) -> Option<StreamedPart> {
        self.request.streamed.filter(|part| part.segment == name && !self.standby)
    }

    /// The whole segment was not there when we looked.
    pub(super) fn deliver_part(&self, cluster: &Cluster, planned: StreamedPart) -> Result<Outcome> {
        let delivered = streamed::covering(cluster, planned).and_then(|part| {
            self.deliver_into_place(|mut file| streamed::read(cluster, part, &mut file).map(drop))?;
            tracing::info!("{part} was streamed, and nothing behind it: the rest of the segment is zeros");
            Ok(Outcome::Delivered)
        });
        match delivered {
            Err(error) if error.kind() == Kind::NotFound => {
                // Parts are swept once the whole segment is there.
                if segment::exists(cluster, planned.segment)? {
                    self.deliver(cluster)?;
                    return Ok(Outcome::Delivered);
                }
                Err(error.with_hint("this restore was planned with it: restore again, to what is there now"))
            }
            Err(error) if error.kind() == Kind::Corrupt => Err(error.with_hint(
                "move the damaged object out of the repository and restore again: what lies before it can be reached",
            )),
            delivered => delivered,
        }
    }

    /// The segment is not there and no hole. But if a part of it is, PostgreSQL must not end recovery before
    /// what that holds, and promote.
    pub(super) fn absent_unless_streamed(
        &self,
        cluster: &Cluster,
        name: SegmentName,
        size: SegmentSize,
    ) -> Result<Outcome> {
        if self.standby {
            return Ok(Outcome::Absent);
        }
        let Some(part) = streamed::longest(cluster, name)? else { return Ok(Outcome::Absent) };
        if self.pg_wal_has(cluster, part) {
            return Ok(Outcome::Absent);
        }
        let before = SegmentName::from_number(name.timeline, name.number(size)?.saturating_sub(1), size);
        Err(Error::not_found(format!(
            "{name} is not in the archive, but its beginning is, as it was streamed up to {}: recovery must not end \
             before that",
            part.end
        ))
        .with_hint(format!(
            "restore with bootstrap-restore, which uses it; by hand, add to restore_command `--streamed {part}` to use \
             it (never with archive_mode = always), or `--last-segment {before}` to do without it"
        )))
    }

    /// Whether PostgreSQL will find at least as much of the segment in pg_wal: somebody put the files of the
    /// old server there. A copy that can't be read counts as none.
    fn pg_wal_has(&self, cluster: &Cluster, part: StreamedPart) -> bool {
        let has = || -> Result<bool> {
            let Some(directory) = self.data_directory else { return Ok(false) };
            // A part in which no whole record lies may hold the end of one that began before it.
            let Some(end) = streamed::read_header(cluster, part)?.facts.end_lsn else { return Ok(false) };
            let system_id: SystemId = cluster.system_id();
            let there = wal_dir::end_of_wal(directory, part.segment, system_id)?;
            Ok(there.is_some_and(|there| there >= end))
        };
        has().unwrap_or_else(|error| {
            tracing::warn!("{error}; it does not count");
            false
        })
    }
}
