#!/usr/bin/env bash
# Installs what is missing, then runs all tests, and a few of them on every other major of PostgreSQL that can be
# had (the last lines say which). With arguments, which go to `cargo test`, only that.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/prerequisites.sh
trap scripts/remove-copies.sh EXIT

cargo test --locked --no-fail-fast "$@"
[ "$#" -gt 0 ] || scripts/majors.sh --short
