# `make demo` shows what pgark does; `make test` runs all tests; `make bench` measures pgark beside its peers, and
# takes arguments as ARGS="backlog --rounds 7". `make scaling` measures how time and memory grow with files and
# segments (docs/scaling.md; ARGS="files --files 1000,10000"). All install what is missing first (as root,
# on Debian or Ubuntu) or say what to install. `make compose-test` tries the containers of docker/ alone; it is part of
# `make test` where a Docker engine answers. `make majors` runs the core of the tests on every major of PostgreSQL,
# or on some: MAJORS="16 18"; MAJORS_TESTS=all runs the whole suite there.
# `make crash` kills and fails the programs at every change that they make, of which `make test` takes some.
# `make soak` lets a cluster live through everything at once for two hours, of which `make test` takes two minutes.
# `make deny` checks licences, sources and known holes of the crates below. `make sanitize` runs
# what works with several threads under ThreadSanitizer.

.PHONY: bench compose-test crash demo deny majors sanitize scaling soak test

demo:
	@scripts/demo.sh

test:
	@scripts/test.sh

bench:
	@scripts/bench.sh $(ARGS)

scaling:
	@scripts/scaling.sh $(ARGS)

compose-test:
	@PGARK_TEST_DOCKERD=1 cargo test --locked --test compose

deny:
	@scripts/deny.sh

majors:
	@scripts/majors.sh

crash:
	@PGARK_TEST_EVERY=1 cargo test --locked --no-fail-fast --test crash --test crash_backup --test crash_names \
	    --test crash_prefetch --test crash_restore --test disk --test power_cut --test wal_receive

soak:
	@PGARK_CHAOS_SECONDS=$${PGARK_CHAOS_SECONDS:-7200} cargo test --locked --test chaos

sanitize:
	@scripts/sanitize.sh
