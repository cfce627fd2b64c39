#!/usr/bin/env bash
# From nothing to a running rack: three hosts, Ceph and KVM on them, three guests, a live migration under ping, an
# evacuation and back. Prints what it measured and leaves the rack running. Usage: demo.sh [RACKHAND-BINARY]
set -euo pipefail
rackhand=$(readlink -f "${1:-target/release/rackhand}")
name=${DEMO_NAME:-demo}
work=$(mktemp -d)
pinger=
. "$(dirname "$0")/ping-gap.sh"
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
# Ends the ping; its longest gap in ms goes under a key.
note_gap() {
  ping_end "$pinger" "$work/ping"
  echo "$1 $gap" >> "$work/figures"
}
figure() { awk -v k="$1" '$1==k{print $2}' "$work/figures"; }

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
ping_begin "$address" "$work/ping"
timed migrate migrate web-1 --yes
note_gap gap_migrate

host=$("$rackhand" guest show web-1 -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["host"])')
ping_begin "$address" "$work/ping"
timed evacuate evacuate "$host" --return-later --yes
timed return return "$host" --yes
note_gap gap_evacuate
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
