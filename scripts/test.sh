#!/usr/bin/env bash
# Installs what is missing, then runs all tests. Further arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/prerequisites.sh

# Copies of the programs for a user that can't reach target/ (tests/harness/run.rs): each test process removes
# those of the ones before it, and here the last is removed.
remove_copies() {
    local copy
    for copy in /tmp/pgark-programs-*; do
        if [ -d "$copy" ] && [ ! -d "/proc/${copy##*-}" ]; then rm -rf "$copy"; fi
    done
}
trap remove_copies EXIT

cargo test --locked --no-fail-fast "$@"
