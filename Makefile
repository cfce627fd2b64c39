# The two commands are `make demo` and `make test`; see README.md.
.PHONY: deps build lint deny unit test

deps:
	bash scripts/deps.sh

build: deps
	cargo build --locked

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

deny:
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --offline check bans licenses sources

unit:
	cargo test --locked --lib

test: deps lint unit
