#!/usr/bin/env bash
# Stages every fault of tests/it/drills.rs on a rack of its own, or those whose names hold the word given. Leaves nothing
# behind. RACKHAND_TEST_RACK names a provisioned lab to use instead; RACKHAND_KEEP=1 keeps the rack for a look.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "drills.sh: the lab needs root" >&2; exit 1; }
cargo build --locked --features lab-tests
rackhand=$PWD/target/debug/rackhand
rack=${RACKHAND_TEST_RACK:-drills}

down() {
  [ -n "${RACKHAND_KEEP:-}" ] || "$rackhand" lab down --name "$rack" --yes
}

began=$SECONDS
if [ -z "${RACKHAND_TEST_RACK:-}" ]; then
  "$rackhand" lab down --name "$rack" --yes
  trap down EXIT
  "$rackhand" lab up --name "$rack" --hosts 3
fi
inventory=$("$rackhand" lab list --name "$rack" -o json | python3 -c '
import json, sys
print(next(rack["inventory"] for rack in json.load(sys.stdin)["racks"] if rack["name"] == sys.argv[1]))' "$rack")
grep -q 'failover: fastest' "$inventory" || sed -i 's/^ceph:$/ceph:\n  failover: fastest/' "$inventory"
RACKHAND_INVENTORY=$inventory "$rackhand" provision --yes
RACKHAND_TEST_RACK=$rack cargo test --locked --features lab-tests --test it "drills::${1:-}" -- --test-threads=1 --nocapture
echo "drills: $((SECONDS - began)) s"
