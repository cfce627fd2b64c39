# The two commands are `make demo` and `make test`; see README.md.
# Where rustup puts cargo; a shell that was open before does not know yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)
.PHONY: advisories fuzz deb test-deb book release-notes deps build lint deny unit generated model sim test release demo demo-down lab-tests test-vm drills bench-failover bench-move bench-scale bench-ssh

deps:
	bash scripts/deps.sh

build: deps
	cargo build --locked
	bash scripts/store.sh target/debug

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --features lab-tests -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items

deny:
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --offline check bans licenses sources

# Known vulnerabilities of what is linked in; needs a network, so it is not part of `make test`. See SECURITY.md.
advisories:
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check advisories

# The feature adds test files only; naming it everywhere builds the crate once.
unit:
	cargo test --locked --features lab-tests --lib
	cargo test --locked --features lab-tests --test it house::
	cargo test --locked -p rackhand-repository
	cargo test --locked -p rackhand-model
	cargo test --locked -p rackhand-simulator

# The protocol that keeps a guest from running twice, in larger setups than `make unit` searches: see docs/protocol.md.
model:
	cargo run --locked --quiet -p rackhand-model

# The watch against simulated racks; SEEDS=N plays more of them, FIRST=N others. `cargo run -p rackhand-simulator -- story N` tells one.
SEEDS ?= 100000
FIRST ?= 1
sim:
	cargo run --locked --quiet -p rackhand-simulator -- $(SEEDS) $(FIRST)

# Completion scripts and the command line reference, from the program.
generated:
	RACKHAND_GENERATE=1 cargo test --locked --features lab-tests --test it house::generated

test: deps lint deny unit lab-tests

release: deps
	cargo build --locked --release
	bash scripts/store.sh target/release

# A Debian package in target/deb: completions, manual pages, the example inventory.
deb: release
	bash scripts/deb.sh target/release/rackhand target/deb

# Installs it in a bare Debian and runs it there; root. Not part of `make test`.
test-deb: deb
	bash scripts/test-deb.sh target/deb/rackhand_*.deb

# What has changed since the last release, for its announcement.
release-notes:
	@awk '/^## \[/ { n++; next } n == 1' CHANGELOG.md

# docs/ as a book with a search, in target/book.
book:
	command -v mdbook >/dev/null || cargo install --locked mdbook
	mdbook build

demo: release
	bash scripts/demo.sh target/release/rackhand

demo-down:
	target/release/rackhand lab down --name demo --yes

lab-tests: deps
	bash scripts/test-lab.sh

# A host with a kernel of its own, for what containers cannot show. Not part of `make test`: see docs/lab-vm.md.
test-vm: deps
	bash scripts/test-vm.sh

# Random mutations of what other machines and people write, 30 s a target; not part of `make test`: see CONTRIBUTING.md.
# Without coverage to guide it, which needs a nightly compiler. SEED=N begins elsewhere.
FUZZ ?= 30
SEED ?= 1
fuzz:
	RACKHAND_FUZZ_SECONDS=$(FUZZ) RACKHAND_FUZZ_SEED=$(SEED) CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
		cargo test --release --locked --features lab-tests --lib fuzz_ -- --nocapture

# A hundred hosts and five thousand guests in memory. Not part of `make test`: see docs/scale.md.
bench-scale: deps
	cargo bench --locked --bench scale

# The faults of a rack, each staged on purpose while the watch runs. Not part of `make test`: see docs/watch.md.
drills: deps
	bash scripts/drills.sh

# Cuts a host five times while the watch runs; its own rack unless one is named. Not part of `make test`.
bench-failover: release
	python3 bench/failover.py target/release/rackhand

bench-move: release
	bash bench/move.sh target/release/rackhand
# Against Ansible and pyinfra on 100 sshd processes; installs the two into the cache. Not part of `make test`.
bench-ssh: release
	bash bench/ssh/run.sh target/release/rackhand
