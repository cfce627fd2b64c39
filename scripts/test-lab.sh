#!/usr/bin/env bash
# Every test that needs root and the lab: first those without a rack, then one rack is provisioned, saved, and used by
# the rest. Leaves nothing behind. RACKHAND_KEEP=1 keeps the rack for a look.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "test-lab.sh: the lab needs root" >&2; exit 1; }
cargo build --locked
rackhand=$PWD/target/debug/rackhand
rack=ci

tests() {
  local args=()
  for t in "$@"; do args+=(--test "$t"); done
  cargo test --locked --features lab-tests "${args[@]}" -- --test-threads=1
}
down() {
  [ -n "${RACKHAND_KEEP:-}" ] || "$rackhand" lab down --name "$rack" --yes
}

"$rackhand" lab down --name "$rack" --yes
trap down EXIT
