#!/usr/bin/env bash
# Builds the Debian package and prints its path. Arguments: `--profile dev` packages that profile's programs instead of
# release's, `--no-build` those that are there already; all others go to cargo-deb (such as `--output FILE`).
set -euo pipefail
cd "$(dirname "$0")/.."

profile=release build=yes others=()
while [ "$#" -gt 0 ]; do
    case $1 in
    --profile) profile=$2 && shift ;;
    --no-build) build= ;;
    *) others+=("$1") ;;
    esac
    shift
done
if ! command -v cargo-deb >/dev/null; then
    echo "cargo-deb is missing: cargo install --locked cargo-deb" >&2
    exit 1
fi

[ -z "$build" ] || cargo build --locked --bins --profile "$profile" >&2
programs=target/${profile/#dev/debug}

# What the programs say of themselves.
rm -rf target/deb
mkdir -p target/deb/man1
"$programs/pgark" man target/deb/man1
for shell in bash zsh fish; do
    mkdir "target/deb/$shell"
    "$programs/pgark" completion "$shell" "target/deb/$shell"
done

exec cargo-deb --no-build --locked --profile "$profile" "${others[@]}"
