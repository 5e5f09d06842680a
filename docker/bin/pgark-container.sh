# shellcheck shell=bash
# Read by the programs of the containers (run-*): what they share.
# shellcheck disable=SC2034
set -euo pipefail
umask 077
export PATH

say() { echo "$(basename "$0"): $*" >&2; }
fail() {
    say "$@"
    exit 2
}

# One container per volume: PostgreSQL's own lock file tells processes of one container apart, not those of two.
# The lock is held by whatever this shell becomes, and goes with it.
only_one_on() { # DIRECTORY
    exec 9>"$1/.in-use"
    flock -n 9 || fail "another container uses the volume of $1: stop that one first"
}

# Writes the password into PGPASSFILE, where every client in the container finds it: compose.yaml names host, role
# and that file for all of them, `docker compose exec` included.
password_from() { # SECRET
    local password
    password=$(sed 's/[\\:]/\\&/g' "/run/secrets/$1") || fail "could not read the secret $1: run docker/setup"
    printf '%s:*:*:%s:%s\n' "$PGHOST" "$PGUSER" "$password" >"$PGPASSFILE"
}

# The target as flags of bootstrap-restore in the array `target`, and in words in `target_text`.
restore_target() {
    target=() target_text='the end of the archive'
    local name value
    for name in TIME LSN NAME XID; do
        value=RESTORE_TARGET_$name
        value=${!value:-}
        [ -n "$value" ] || continue
        [ "${#target[@]}" = 0 ] ||
            fail "give one target only, and there are two: $target_text, and ${name,,} $value (RESTORE_TARGET_…)"
        target=("--target-${name,,}" "$value")
        target_text="${name,,} $value"
    done
}

# Creates the data directory from the repository and leaves the server down. What an interrupted run left is
# removed first; nobody else is here. Further flags go to bootstrap-restore.
restore_here() {
    rm -f "$PGDATA/postmaster.pid"
    local pid status=0
    # In the background, so that a signal is heard at once and handed on.
    bootstrap-restore --target-dir "$PGDATA" --replace --port 5432 --socket-dir /var/run/postgresql \
        "${target[@]}" "$@" 9>&- &
    pid=$!
    trap 'kill -TERM "$pid"' TERM INT
    wait "$pid" || status=$?
    while kill -0 "$pid" 2>/dev/null; do
        status=0
        wait "$pid" || status=$?
    done
    trap - TERM INT
    [ "$status" = 0 ] || exit "$status"
    pg_ctl stop --pgdata "$PGDATA" --mode fast --silent
}
