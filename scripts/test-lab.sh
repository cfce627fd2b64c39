#!/usr/bin/env bash
# Every test that needs root and the lab: first those without a rack, then one rack is provisioned, saved, and used by
# the rest. Leaves nothing behind. RACKHAND_KEEP=1 keeps the rack for a look.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "test-lab.sh: the lab needs root" >&2; exit 1; }
cargo build --locked --features lab-tests
bash scripts/store.sh target/debug
rackhand=$PWD/target/debug/rackhand
rack=ci

# Modules of the one test binary, in this order and one test at a time.
tests() {
  for module in "$@"; do
    cargo test --locked --features lab-tests --test it "$module::" -- --test-threads=1
  done
}
down() {
  [ -n "${RACKHAND_KEEP:-}" ] || "$rackhand" lab down --name "$rack" --yes
}

"$rackhand" lab down --name "$rack" --yes
trap down EXIT

echo "== without a rack"
tests machine::ssh machine::guest_image machine::probe machine::lab

echo "== a rack from bare hosts"
"$rackhand" lab up --name "$rack" --hosts 3
RACKHAND_INVENTORY=$("$rackhand" lab list --name "$rack" -o json | python3 -c '
import json, sys
print(next(rack["inventory"] for rack in json.load(sys.stdin)["racks"] if rack["name"] == sys.argv[1]))' "$rack")
export RACKHAND_INVENTORY
export RACKHAND_TEST_RACK=$rack
tests bare
t0=$(date +%s)
"$rackhand" provision --yes
echo "provisioned in $(($(date +%s) - t0)) s"

echo "== on the rack"
tests provisioned::{completion,status,guest,guest_order,guest_inside,image,backup,movement,host_loss,provision}
# Last: it takes the rack down and brings it up again.
tests saved
