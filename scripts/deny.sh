#!/usr/bin/env bash
# `make deny`: what the crates below pgark are allowed to be (deny.toml), and whether holes are known in them. Installs
# cargo-deny if it is missing, which compiles for minutes; with --if-there it says so instead. Known holes are a
# repository at GitHub: where that can't be reached this says so, and checks the rest.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo deny --version >/dev/null 2>&1; then
    if [ "${1:-}" = --if-there ]; then
        echo "skipped: licences, sources and known holes of crates, because cargo-deny is not installed (make deny)"
        exit 0
    fi
    cargo install cargo-deny --locked
fi

cargo deny --locked check licenses bans sources
if said=$(cargo deny --locked fetch db 2>&1); then
    cargo deny --locked check --disable-fetch advisories
else
    echo "$said" >&2
    echo "skipped: known holes of crates, because their database can't be fetched (https://github.com/RustSec/advisory-db)"
fi
