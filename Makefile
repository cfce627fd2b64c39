# The two commands are `make demo` and `make test`; see README.md.
.PHONY: deps build lint unit test

deps:
	bash scripts/deps.sh

build: deps
	cargo build --locked

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

unit:
	cargo test --locked --lib

test: deps lint unit
