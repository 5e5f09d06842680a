#!/usr/bin/env bash
# Installs what is missing, the peers included, then runs the benchmarks. Arguments go to them: names of rows,
# --rounds, --markdown and so on; see docs/benchmarks.md.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/prerequisites.sh pgbackrest
cargo bench --locked --bench peers -- "$@"
