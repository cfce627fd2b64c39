#!/usr/bin/env bash
# One host with a kernel of its own, from bare to restarted and mended: what the containers of test-lab.sh cannot show.
# Leaves nothing behind. RACKHAND_KEEP=1 keeps the host for a look.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "test-vm.sh: the lab needs root" >&2; exit 1; }
cargo build --locked --features lab-tests
rackhand=$PWD/target/debug/rackhand
rack=${RACKHAND_TEST_RACK:-vm}

down() {
  [ -n "${RACKHAND_KEEP:-}" ] || "$rackhand" lab down --name "$rack" --yes
}

"$rackhand" lab down --name "$rack" --yes
trap down EXIT
began=$SECONDS
"$rackhand" lab up --name "$rack" --kind vm --hosts 1 --disks 2
RACKHAND_TEST_RACK=$rack cargo test --locked --features lab-tests --test it vm:: -- --nocapture
echo "test-vm: $((SECONDS - began)) s"
