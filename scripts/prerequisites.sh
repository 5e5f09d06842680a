#!/usr/bin/env bash
# Installs what `make demo` and `make test` need and the machine lacks, and the programs that are named as
# arguments, which must be called like their packages. As root with apt-get it installs; else
# it says what to install and fails. It installs nothing that is there already, and never leaves a PostgreSQL
# cluster behind that nobody asked for.
set -euo pipefail

has() { command -v "$1" >/dev/null 2>&1; }

# The same places in the same order as tests/harness/host.rs.
has_postgres() {
    [ -n "${PGARK_TEST_BINDIR:-}" ] && return
    local dir
    for dir in /usr/lib/postgresql/*/bin "$(pg_config --bindir 2>/dev/null || true)"; do
        [ -x "$dir/postgres" ] && [ -x "$dir/pgbench" ] && return
    done
    return 1
}

missing=()
has make || missing+=(make)
has cc || missing+=(build-essential)
has_postgres || missing+=(postgresql-15)
has jq || missing+=(jq)
has zstd || missing+=(zstd)
has openssl || missing+=(openssl)
has mount || missing+=(mount)
for program in "$@"; do
    has "$program" || missing+=("$program")
done
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)

if ! has cargo; then
    echo "pgark is built with Rust, and there is no cargo here: see https://rustup.rs" >&2
    exit 1
fi
[ "${#missing[@]}" -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! has apt-get; then
    echo "These packages are missing. Install them, then run this again:" >&2
    echo "    sudo apt-get install ${missing[*]}" >&2
    echo "(names as on Debian 12; any PostgreSQL from 14 to 18 with pgbench and contrib does)" >&2
    exit 1
fi

echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# Debian creates and starts a cluster when a server is first installed; the tests make their own.
no_cluster=/etc/postgresql-common/createcluster.d/pgark-setup.conf
trap 'rm -f "$log" "$no_cluster"' EXIT
install -d /etc/postgresql-common/createcluster.d
echo 'create_main_cluster = false' >"$no_cluster"

apt() { apt-get "$@" </dev/null >"$log" 2>&1; }
if ! { apt update && apt install -y --no-install-recommends "${missing[@]}"; }; then
    cat "$log" >&2
    echo "could not install ${missing[*]}: see above" >&2
    exit 1
fi
