#!/usr/bin/env bash
# The story that scripts/demo.sh shows, run as the user that the servers run as. $1: a directory of its own.
# PATH, PGARK_REPO and cleaning up are the caller's job.
set -euo pipefail
cd "$1"

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
chapter() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
# Shows a command as one would type it, then runs it.
show() {
    printf '%s  $ %s%s\n' "$dim" "$(shown "$@")" "$plain"
    "$@" 2>&1 | sed 's/^/    /'
}
shown() {
    local word
    for word in "$@"; do
        case $word in
        *[!A-Za-z0-9_./:=,@%+-]*) printf "'%s' " "$word" ;;
        *) printf '%s ' "$word" ;;
        esac
    done
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
show pgark init
initdb -D primary -U postgres -A trust --data-checksums --locale=C.UTF-8 >initdb.log
cat >>primary/postgresql.conf <<CONF
archive_mode = on
archive_command = 'wal-push %p'
unix_socket_directories = '$PWD'
listen_addresses = ''
port = $PGPORT
CONF
show tail -n 5 primary/postgresql.conf
show pg_ctl start --wait --silent -D primary -l primary.log

chapter '2. Some data, and a base backup of the running server while it is being written to'
pgbench -i -q -s 10 >pgbench.log 2>&1
ask "create table customers as select id, 'customer ' || id as name from generate_series(1, 1000) id"
show psql -c 'select count(*) as customers from customers'
pgbench -n -c 2 -R 300 -T 3600 >pgbench.log 2>&1 &
load=$!
trap 'kill "$load" 2>/dev/null || true' EXIT
show basebackup

chapter '3. Business goes on, and then somebody makes a mistake'
ask "insert into customers values (1001, 'the newest customer')"
sleep 1
show psql -c 'drop table customers'
sleep 1
ask 'select pg_switch_wal()' >switch.log
segment=$(ask 'select pg_walfile_name(pg_current_wal_lsn() - 1)')
wait_until "select last_archived_wal >= '$segment' from pg_stat_archiver"

chapter '4. Nobody looked at the clock: what was the moment before?'
show pgark find --table customers
read -ra moment < <(pgark find --table customers | sed -n 's/.*--target-dir DIRECTORY //p')

chapter '5. A server of its own, as everything was just before'
show bootstrap-restore --target-dir "$PWD/restored" "${moment[@]}" --port 54322 --socket-dir "$PWD"

chapter '6. The table is gone on the one and there on the other; the first never stopped'
show psql -p 54321 -c 'select count(*) as customers from customers' || true
show psql -p 54322 -c 'select count(*) as customers, max(name) filter (where id > 1000) from customers'

kill "$load"
chapter 'That was it. Everything that the demo made is being removed.'
