#!/usr/bin/env bash
# Builds rackhand-store without any shared library, so that it runs on any Linux of this architecture, and puts it into
# DIRECTORY, beside rackhand. Always optimised: all data of backups pass through it.
# Usage: scripts/store.sh DIRECTORY
set -euo pipefail
out=$(realpath -m "$1")
cd "$(dirname "$0")/.."
# With --target the flags do not reach build scripts and macros, which cannot be static.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS='-C target-feature=+crt-static' \
  cargo build --locked --release --package rackhand-repository --bin rackhand-store --target "$host" --target-dir target/store
mkdir -p "$out"
# A running one is not overwritten in place.
install -m 755 "target/store/$host/release/rackhand-store" "$out/.rackhand-store.new"
mv "$out/.rackhand-store.new" "$out/rackhand-store"
