#!/usr/bin/env bash
# The story that scripts/demo.sh shows, run as the user that the servers run as. $1: a directory of its own.
# PATH, PGARK_REPO and cleaning up are the caller's job.
set -euo pipefail
cd "$1"

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
chapter() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
# Shows a command as one would type it, runs it, and shows what it says.
show() {
    type_out "$@"
    "$@" 2>&1 | sed 's/^/    /'
}
# The same for a command whose own words only matter if it fails.
show_only() {
    type_out "$@"
    "$@" >quiet.log 2>&1 || { cat quiet.log >&2 && return 1; }
}
type_out() {
    local word line=
    for word in "$@"; do
        case $word in
        *\'*) line+=" \"$word\"" ;;
        *[!A-Za-z0-9_./:=,@%+-]*) line+=" '$word'" ;;
        *) line+=" $word" ;;
        esac
    done
    printf '%s  $%s%s\n' "$dim" "$line" "$plain"
}
# A query whose answer the story needs but the reader does not.
ask() { psql -XAtq -v ON_ERROR_STOP=1 -c "$1"; }
wait_until() { # a query that gives t
    for _ in $(seq 600); do
        [ "$(ask "$1")" = t ] && return
        sleep 0.1
    done
    echo "waited a minute in vain for: $1" >&2
    tail -n 20 primary.log >&2
    return 1
}

export PGHOST=$PWD PGPORT=54321 PGUSER=postgres PGDATABASE=postgres PSQLRC=/dev/null

chapter '1. A repository, and a PostgreSQL server that archives into it'
echo "    PGARK_REPO=$PGARK_REPO tells all programs where it is"
show pgark init
show_only initdb -D primary -U postgres -A trust --data-checksums --locale=C.UTF-8
cat >>primary/postgresql.conf <<CONF
port = $PGPORT
listen_addresses = ''
unix_socket_directories = '$PWD'
archive_mode = on
archive_command = 'wal-push %p'
CONF
show tail -n 2 primary/postgresql.conf
show_only pg_ctl start --wait --silent -D primary -l primary.log

chapter '2. Some data, and a base backup of the running server while it is being written to'
show_only pgbench --initialize --scale=10
ask "create table customers as select id, 'customer ' || id as name from generate_series(1, 1000) id"
show psql -c 'select count(*) as customers from customers'
writers=(pgbench --client=2 --rate=300 --time=3600 --no-vacuum)
type_out "${writers[@]}"
"${writers[@]}" >pgbench.log 2>&1 &
load=$!
wait_until 'select count(*) > 100 from pgbench_history'
show basebackup

chapter '3. Business goes on, and then somebody makes a mistake'
show_only psql -c "insert into customers values (1001, 'the newest customer')"
sleep 2
moment=$(ask "select date_trunc('second', clock_timestamp())")
echo "    it is $moment, and all is well"
sleep 1
show psql -c 'drop table customers'
sleep 1
segment=$(ask 'select pg_walfile_name(pg_switch_wal())')
wait_until "select last_archived_wal >= '$segment' from pg_stat_archiver"

chapter "4. A server of its own, beside the first, as everything was at $moment"
show bootstrap-restore --target-dir "$PWD/restored" --target-time "$moment" --port 54322 --socket-dir "$PWD"

chapter '5. The table is gone on the first and there on the second; the first never stopped'
show psql -p 54321 -c 'select count(*) as customers from customers' || true
show psql -p 54322 -c 'select count(*) as customers, max(name) filter (where id > 1000) as newest from customers'
show psql -p 54321 -c "select count(*) as transactions, max(mtime)::time(0) || ' and counting' as last from pgbench_history"
show psql -p 54322 -c 'select count(*) as transactions, max(mtime)::time(0) as last from pgbench_history'

kill "$load"
chapter 'That was it. Everything that the demo made is being removed.'
