#!/usr/bin/env bash
# Runs the tests of what works with several threads in programs that are built with ThreadSanitizer, and fails if
# there was a data race. Needs a nightly toolchain with rust-src:
#
#     rustup toolchain install nightly --component rust-src
#
# Arguments replace the tests that are run: scripts/sanitize.sh --test wal_receive
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/prerequisites.sh

if ! rustup +nightly component list --installed 2>/dev/null | grep -q rust-src; then
    echo "this needs: rustup toolchain install nightly --component rust-src" >&2
    exit 1
fi
host=$(rustc -vV | sed -n 's/^host: //p')
# The standard library is built along: what its own locks order is not seen otherwise.
export RUSTFLAGS="-Zsanitizer=thread" CARGO_INCREMENTAL=0 CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/sanitize"
# Also of what runs in the background, as another user: each process with a race writes a file.
races=$(mktemp -d)
chmod 1777 "$races"
trap 'rm -rf "$races"' EXIT
export TSAN_OPTIONS="log_path=$races/race:second_deadlock_stack=1"
if [ $# -eq 0 ]; then
    # Those of memory would measure the sanitizer's.
    set -- --lib --test basebackup --test restore --test streamed --test verify --test wal_prefetch --test wal_receive \
        -- --skip large
fi
outcome=0
cargo +nightly test --locked --no-fail-fast -Zbuild-std --target "$host" "$@" || outcome=$?
for race in "$races"/*; do
    [ -e "$race" ] || continue
    cat "$race" >&2
    outcome=1
done
exit "$outcome"
