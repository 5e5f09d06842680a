#!/usr/bin/env bash
# `make demo`: builds pgark and shows it at work on a temporary directory, as an unprivileged user. Whatever
# happens, Ctrl-C included, the servers are stopped (by their pids) and the directory is removed.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/prerequisites.sh

echo "building pgark (the first time takes a minute or two)"
cargo build --release --locked --quiet --bins
target=$(cargo metadata --format-version 1 --no-deps --offline | jq -r .target_directory)

# Directly under /tmp: the path of a socket must be short, and the server's user must get there.
dir=$(mktemp -d /tmp/pgark-demo-XXXXXX)

# The processes that work in the directory: servers and what they started. Nobody else knows its name.
inside() {
    local process
    for process in /proc/[0-9]*; do
        if [[ "$(readlink "$process/cwd" 2>/dev/null)" == "$dir"* ]]; then echo "${process##*/}"; fi
    done
}

clean_up() {
    trap '' INT TERM HUP
    # The story and what it waits for are one process group; its servers are not in it.
    [ -z "${story:-}" ] || { kill -TERM -- "-$story" && wait "$story"; } 2>/dev/null || true
    local server pid
    for server in primary restored; do
        pid=$(head -n 1 "$dir/$server/postmaster.pid" 2>/dev/null) || continue
        kill -QUIT "$pid" 2>/dev/null || true
    done
    for _ in $(seq 100); do
        [ -n "$(inside)" ] || break
        sleep 0.1
    done
    for pid in $(inside); do kill -KILL "$pid" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir "$dir/bin"
for program in pgark wal-push wal-fetch basebackup bootstrap-restore; do
    cp "$target/release/$program" "$dir/bin/"
done
cp scripts/demo-story.sh "$dir/bin/"
chmod -R a+rX "$dir"

as_user=()
if [ "$(id -u)" = 0 ]; then
    user=postgres
    id -u "$user" >/dev/null 2>&1 || user=nobody
    chown -R "$user" "$dir"
    as_user=(setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups)
fi
postgres=
for candidate in "${PGARK_TEST_BINDIR:-}" /usr/lib/postgresql/15/bin /usr/lib/postgresql/*/bin \
    "$(pg_config --bindir 2>/dev/null || true)"; do
    if [ -x "$candidate/initdb" ]; then postgres=$candidate && break; fi
done

# In the background and as a process group of its own (-m), so that a signal comes to this shell alone, which
# handles it at once and not when the story ends.
set -m
"${as_user[@]}" env -i PATH="$dir/bin:$postgres:/usr/bin:/bin" HOME="$dir" LANG=C.UTF-8 TZ=UTC TERM="${TERM:-dumb}" \
    PGARK_REPO="$dir/repository" bash "$dir/bin/demo-story.sh" "$dir" </dev/null &
story=$!
wait "$story"
