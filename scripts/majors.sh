#!/usr/bin/env bash
# `make majors`: the tests of archiving, backup, restore, streaming, expiry and search on every PostgreSQL that
# scripts/postgresql.sh has, one after the other. MAJORS="16 18" chooses, MAJORS_TESTS=all runs the whole suite.
# `--short`, at the end of `make test`: a few tests on each major that pgark supports and that the tests did
# not run on, side by side. The last lines say for each major what ran, or why it did not.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly core=(basebackup check expire find info pgfacts pgserver restore restore_layouts restore_majors
    restore_refusals restore_tablespaces restore_targets restore_timelines streamed verify wal_backlog wal_fetch
    wal_prefetch wal_push wal_receive waldump)
# Test program and test; none may be missing from what cargo test ran.
readonly short="
    basebackup          a_backup_of_a_standby_under_load_is_a_whole_cluster
    basebackup          the_files_are_those_of_pg_basebackup
    check               a_healthy_cluster_is_ok_in_one_line_for_machines_and_a_table_for_people
    expire              every_kept_backup_and_every_moment_of_the_window_is_restored_right
    find                what_was_lost_is_there_just_before_the_moment_that_is_found
    pgfacts             a_backup_chooses_the_files_that_pg_basebackup_chooses
    pgfacts             control_files_agree_with_pg_controldata_whatever_the_cluster_was_doing
    restore_majors      databases_copied_by_file_and_tablespaces_in_place_are_restored_and_replayed
    restore_majors      settings_that_came_with_a_major_are_restored_and_those_of_the_source_alone_are_not
    restore_tablespaces the_source_keeps_every_file_beside_its_clones
    restore_targets     every_kind_of_target_brings_back_what_was_there
    restore_timelines   a_restored_standby_follows_its_primary
    restore_timelines   each_branch_of_two_restores_in_a_row_can_be_reached
    streamed            the_latest_has_the_last_streamed_commit_and_every_target_in_the_part_is_reached
    waldump             the_walk_agrees_with_pg_waldump
    wal_receive         what_is_streamed_is_stored_and_the_unfinished_segment_with_it
"

# The majors that pgark supports: the first column of a table in the source.
supported() { sed -n 's/^    (\([0-9]*\), [0-9_]*, [0-9]*),$/\1/p' src/pg/version.rs; }

# The major that the tests run on when nobody chooses one (tests/harness/host.rs).
usual() {
    local dir
    for dir in "${PGARK_TEST_BINDIR:-}" /usr/lib/postgresql/15/bin /usr/lib/postgresql/*/bin \
        "$(pg_config --bindir 2>/dev/null || true)"; do
        [ -x "$dir/postgres" ] || continue
        "$dir/postgres" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/'
        return
    done
}

# The arguments of cargo test.
arguments() {
    case $which in
    short)
        awk 'NF { print "--test=" $1 }' <<<"$short" | sort -u
        echo --
        awk 'NF { print $2 }' <<<"$short"
        ;;
    core) printf -- '--test=%s\n' "${core[@]}" ;;
    esac
}

# $1: a major. Leaves what the tests printed in $logs/$1 and the line about them in $logs/$1.said.
run() {
    local log=$logs/$1 bin arguments ok failed status=0
    if ! bin=$(scripts/postgresql.sh "$1" 2>"$log"); then
        echo "PostgreSQL $1: NOT RUN: $(tail -n 1 "$log")" >"$log.said"
        [ "$which" = short ]
        return
    fi
    mapfile -t arguments < <(arguments)
    PGARK_TEST_BINDIR=$bin cargo test --locked --no-fail-fast "${arguments[@]}" >"$log" 2>&1 || status=$?
    ok=$(grep -c '^test .* \.\.\. ok$' "$log" || true)
    failed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/ \1/p' "$log" | sort -u | tr -d '\n')
    [ "$status" = 0 ] || [ -n "$failed" ] || failed=" cargo test itself"
    if [ "$which" = short ] && [ -z "$failed" ] && [ "$ok" != "$(awk NF <<<"$short" | wc -l)" ]; then
        status=1 failed=" not all tests that scripts/majors.sh names exist"
    fi
    echo "$("$bin/postgres" --version): $ok tests ok${failed:+, FAILED:$failed}" >"$log.said"
    [ "$status" = 0 ] || cat "$log"
    return "$status"
}

logs=$(mktemp -d)
trap 'rm -rf "$logs"; scripts/remove-copies.sh' EXIT
status=0
if [ "${1:-}" = --short ]; then
    which=short
    if ! chosen=$(scripts/postgresql.sh --majors); then
        echo "Other majors of PostgreSQL: NOT RUN: see above"
        exit 0
    fi
    echo "Running a few tests on other majors of PostgreSQL"
    declare -A running
    for major in $chosen; do
        if [ "$major" = "$(usual)" ]; then
            echo "PostgreSQL $major: all tests, see above" >"$logs/$major.said"
        elif supported | grep -qx "$major"; then
            run "$major" &
            running[$major]=$!
        else
            echo "PostgreSQL $major: NOT RUN: pgark does not support it yet" >"$logs/$major.said"
        fi
    done
    for major in "${!running[@]}"; do wait "${running[$major]}" || status=1; done
else
    which=${MAJORS_TESTS:-core}
    scripts/prerequisites.sh
    chosen=${MAJORS:-$(scripts/postgresql.sh --majors)}
    for major in $chosen; do
        echo "Running the tests on PostgreSQL $major"
        run "$major" || status=1
    done
fi
for major in $chosen; do cat "$logs/$major.said"; done
exit "$status"
