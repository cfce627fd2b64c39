#!/usr/bin/env bash
# From nothing to a running rack: three hosts, Ceph and KVM on them, three guests, a live migration under ping, an
# evacuation and back. Prints what it measured and leaves the rack running. Usage: demo.sh [RACKHAND-BINARY]
set -euo pipefail
rackhand=$(readlink -f "${1:-target/release/rackhand}")
name=${DEMO_NAME:-demo}
work=$(mktemp -d)
pinger=
trap '[ -z "$pinger" ] || kill "$pinger" 2>/dev/null; rm -rf "$work"' EXIT

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
# Runs a rackhand command as shown, and notes its wall time under a key.
timed() {
  local key=$1 t0 t1
  shift
  say "rackhand $*"
  t0=$(date +%s.%N)
  "$rackhand" "$@"
  t1=$(date +%s.%N)
  echo "$key $(echo "$t1 $t0" | awk '{printf "%.1f", $1-$2}')" >> "$work/figures"
}
figure() { awk -v k="$1" '$1==k{print $2}' "$work/figures"; }
# Starts an echo request each 10 ms to an address; answers go to a file with their times.
ping_start() {
  ping -n -D -i 0.01 "$1" > "$work/ping" 2>&1 &
  pinger=$!
  for _ in $(seq 100); do grep -q 'bytes from' "$work/ping" && return; sleep 0.1; done
  echo "demo: $1 does not answer" >&2
  exit 1
}
# Ends it: the longest time without an answer, in ms, goes under a key.
ping_stop() {
  kill -INT "$pinger"
  wait "$pinger" || true
  pinger=
  echo "$1 $(awk -F'[][]' '/bytes from/{if(l && $2-l>m)m=$2-l; l=$2} END{printf "%.0f", m*1000}' "$work/ping")" >> "$work/figures"
}

if "$rackhand" lab list -o json | grep -q "\"name\": \"$name\""; then
  echo "demo: the rack '$name' is there already; \`make demo-down\` removes it" >&2
  exit 1
fi

tiny=$("$rackhand" lab image build tiny)
timed lab_up lab up --name "$name" --hosts 3
export RACKHAND_INVENTORY
RACKHAND_INVENTORY=$("$rackhand" lab list --name "$name" -o json | python3 -c '
import json, sys
print(next(rack["inventory"] for rack in json.load(sys.stdin)["racks"] if rack["name"] == sys.argv[1]))' "$name")
timed provision provision --yes
timed again provision --yes
timed import image import tiny "$tiny"
timed create guest create web --count 3 --image tiny --memory 128M --cpus 1 --disk 1G --network lan
timed status status

say "rackhand guest show web-1 -o json"
"$rackhand" guest show web-1 -o json > "$work/web-1.json"
read -r address host < <(python3 -c '
import json, sys
guest = json.load(open(sys.argv[1]))
print(guest["addresses"][0], guest["host"])' "$work/web-1.json")
echo "web-1 runs on $host with $address"
ping_start "$address"
timed migrate migrate web-1 --yes
ping_stop gap_migrate

host=$("$rackhand" guest show web-1 -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["host"])')
ping_start "$address"
timed evacuate evacuate "$host" --return-later --yes
timed return return "$host" --yes
ping_stop gap_evacuate
timed list guest list

cat <<EOF

Measured on this machine ($(nproc) cores, $(if grep -qE 'vmx|svm' /proc/cpuinfo; then echo KVM; else echo 'guests in software emulation'; fi)):
  lab up, 3 bare hosts                        $(figure lab_up) s
  provision: Ceph HEALTH_OK, libvirt ready    $(figure provision) s
  provision again: nothing to do              $(figure again) s
  3 guests from the template, started         $(figure create) s
  live migration                              $(figure migrate) s
  longest gap in a ping each 10 ms            $(figure gap_migrate) ms
  evacuate a host                             $(figure evacuate) s
  bring its guests back                       $(figure return) s
  longest ping gap over both                  $(figure gap_evacuate) ms

The rack is running. Next:
  export RACKHAND_INVENTORY=$RACKHAND_INVENTORY
  rackhand status
  rackhand guest console web-1
  rackhand lab ssh --name $name h1 -- ceph -s
  rackhand lab cut --name $name h3        # pull both power cords
  make demo-down
EOF
