#!/usr/bin/env bash
# Installs what is missing, then measures how time and memory grow. Arguments go to the benchmark: parts, --files,
# --segments, --markdown and so on; see docs/scaling.md.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/prerequisites.sh
cargo bench --locked --bench scaling -- "$@"
