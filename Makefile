# `make demo` shows what pgark does; `make test` runs all tests; `make bench` measures pgark beside its peers, and
# takes arguments as ARGS="backlog --rounds 7". All install what is missing first (as root,
# on Debian or Ubuntu) or say what to install. `make compose-test` tries the containers of docker/ alone; it is part of
# `make test` where a Docker engine answers.

.PHONY: bench compose-test demo test

demo:
	@scripts/demo.sh

test:
	@scripts/test.sh

bench:
	@scripts/bench.sh $(ARGS)

compose-test:
	@PGARK_TEST_DOCKERD=1 cargo test --locked --test compose
