# `make demo` shows what pgark does; `make test` runs all tests. Both install what is missing first (as root,
# on Debian or Ubuntu) or say what to install.

.PHONY: demo test

demo:
	@scripts/demo.sh

test:
	@scripts/test.sh
