//! What the going backups alone refer to: the packs that become garbage with them.
//!
//! Headers are read one at a time, for all that they list may be large; names of packs are held, about 100 bytes for
//! each GiB of the repository.

use std::collections::{HashMap, HashSet};

use super::plan::Plan;
use crate::error::{Error, Result};
use crate::ident::Name;
use crate::repo::layout::PackId;
use crate::repo::{Cluster, backup};

/// Packs and maps that nobody needs when all going backups are gone.
#[derive(Debug, Default)]
pub struct Freed {
    packs: HashMap<PackId, u64>,
    maps: HashMap<Name, u64>,
}

impl Freed {
    pub fn of(cluster: &Cluster, plan: &Plan) -> Result<Self> {
        let going: HashSet<&Name> = plan.going().map(|verdict| &verdict.label).collect();
        let (mut freed, mut used) = (Self::default(), HashSet::new());
        for header in backup::iter(cluster)? {
            let header = header?;
            if going.contains(&header.label) {
                freed.packs.extend(header.packs.iter().map(|pack| (pack.id, pack.size)));
                freed.maps.insert(header.label, header.map.size);
            } else {
                used.extend(header.packs.iter().map(|pack| pack.id));
            }
        }
        if freed.maps.len() != going.len() {
            return Err(Error::conflict("backups vanished while the plan was made")
                .with_hint("does somebody delete by hand?"));
        }
        freed.packs.retain(|pack, _| !used.contains(pack));
        Ok(freed)
    }

    pub fn count(&self) -> u64 {
        self.packs.len() as u64
    }

    pub fn bytes(&self) -> u64 {
        self.packs.values().chain(self.maps.values()).sum()
    }

    /// The packs that are garbage now that these backups are gone. With one of the others still there, its header tells.
    pub fn packs(&self, gone: &[Name]) -> HashSet<PackId> {
        if gone.is_empty() { HashSet::new() } else { self.packs.keys().copied().collect() }
    }
}
