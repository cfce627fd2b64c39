#!/usr/bin/env bash
# From nothing to a running rack: three hosts, Ceph and KVM on them, three guests, a live migration under ping, an
# evacuation and back, and a host whose power cords are pulled while the watch runs. Prints what it measured and leaves
# the rack running. Usage: demo.sh [RACKHAND-BINARY]
set -euo pipefail
rackhand=$(readlink -f "${1:-target/release/rackhand}")
name=${DEMO_NAME:-demo}
work=$(mktemp -d)
pinger=
watcher=
. "$(dirname "$0")/ping-gap.sh"
trap 'for process in $pinger $watcher; do kill "$process" 2>/dev/null; done; rm -rf "$work"' EXIT

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
# Waits until a command succeeds. Usage: until_ok WHAT SECONDS COMMAND...
until_ok() {
  local what=$1 end=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || { echo "demo: waited in vain for $what" >&2; exit 1; }
    sleep 0.5
  done
}
# Whether the ping was answered since it had so many answers.
answered_since() { [ "$(grep -c 'bytes from' "$work/ping")" -gt "$1" ]; }
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
# The quickest profile for the loss of a host; see docs/watch.md.
sed -i 's/^ceph:$/ceph:\n  failover: fastest/' "$RACKHAND_INVENTORY"
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

host=$("$rackhand" guest show web-1 -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["host"])')
say "rackhand watch --events json &"
"$rackhand" watch --events json >"$work/watch" 2>&1 &
watcher=$!
until_ok "the watch to lead" 60 "$rackhand" watch status
ping_begin "$address" "$work/ping"
timed cut lab cut --name "$name" "$host"
cut_at=$(grep -c 'bytes from' "$work/ping")
until_ok "web-1 to answer again" 180 answered_since "$cut_at"
note_gap gap_cut
# Until then it tries to switch the host off, and would do so as soon as that has power.
until_ok "the watch to be done with the power of $host" 120 grep -q '"kind":"power' "$work/watch"
python3 -c '
import json, sys
for line in open(sys.argv[1]):
    event = json.loads(line)
    if event.get("event") == "watch":
        print("  " + event["message"])' "$work/watch"
timed power lab power --name "$name" on "$host"
until_ok "$host to answer" 240 "$rackhand" readmit "$host" --yes
say "rackhand readmit $host"
kill -INT "$watcher"
wait "$watcher" || true
watcher=
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
  both cords pulled: web-1 answers again      $(figure gap_cut) ms

The rack is running. Next:
  export RACKHAND_INVENTORY=$RACKHAND_INVENTORY
  rackhand status
  rackhand guest console web-1
  rackhand lab ssh --name $name h1 -- ceph -s
  rackhand lab cut --name $name h3        # pull both power cords
  make demo-down
EOF
