#!/usr/bin/env bash
# Moves under ping. First one guest 20 times in a row; then a host with six guests is evacuated: with rackhand, and with
# the loop over `virsh migrate` one would write instead, both in turn on the same rack.
# Usage: bench/move.sh [RACKHAND [PROVISIONED_LAB]]; without a lab one is made and removed.
set -euo pipefail
cd "$(dirname "$0")/.."
rackhand=$(realpath "${1:-target/release/rackhand}")
lab=${2:-bench-move}
rounds=${ROUNDS:-3}
moves=${MOVES:-20}
. scripts/ping-gap.sh
scratch=$(mktemp -d)
guests=(bm-1 bm-2 bm-3 bm-4 bm-5 bm-6)
pings=()
pinger=

quiet() { "$rackhand" "$@" -q >/dev/null; }
end() {
  kill $pinger "${pings[@]}" 2>/dev/null || true
  if [ -n "${made:-}" ]; then "$rackhand" lab down --name "$lab" --yes -q; else "$rackhand" guest delete "${guests[@]}" --yes -q || true; fi
  rm -rf "$scratch"
}
trap end EXIT

inventory() { "$rackhand" lab list -o json | python3 -c '
import json, sys
print(*[rack["inventory"] for rack in json.load(sys.stdin)["racks"] if rack["name"] == sys.argv[1]])' "$lab"; }
made=
RACKHAND_INVENTORY=$(inventory)
export RACKHAND_INVENTORY
if [ -z "$RACKHAND_INVENTORY" ]; then
  made=1
  quiet lab up --name "$lab"
  RACKHAND_INVENTORY=$(inventory)
  quiet provision --yes
fi
"$rackhand" image list | grep -q '^tiny ' || quiet image import tiny "$("$rackhand" lab image build tiny)"
quiet guest create bm --count 6 --image tiny --memory 128M --cpus 1 --disk 1G --network lan --yes
storage() { "$rackhand" lab list -o json | python3 -c "
import json, sys
racks = json.load(sys.stdin)['racks']
print(*[h['storage'] for r in racks if r['name'] == '$lab' for h in r['hosts'] if h['name'] == '$1'])"; }
declare -A addresses=([h2]=$(storage h2) [h3]=$(storage h3))
for g in "${guests[@]}"; do
  address=$("$rackhand" guest show "$g" -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["addresses"][0])')
  ping_begin "$address" "$scratch/$g.log"
  ping_end "$pinger" "$scratch/$g.log"
  echo "$address" >"$scratch/$g.address"
done

home() {
  quiet migrate "${guests[@]}" --to h1 --yes
}
gaps_begin() {
  pings=()
  for g in "${guests[@]}"; do
    ping_begin "$(cat "$scratch/$g.address")" "$scratch/$g.log"
    pings+=("$pinger")
  done
}
gaps_end() { # the longest gap over all guests, in ms
  local n=0 worst=0 g
  for g in "${guests[@]}"; do
    ping_end "${pings[n]}" "$scratch/$g.log"
    n=$((n + 1))
    [ "$gap" -le "$worst" ] || worst=$gap
  done
  pings=()
  echo "$worst"
}
in_a_row() { # one guest, alone in its ping: a gap a move
  local address
  address=$(cat "$scratch/bm-1.address")
  for _ in $(seq "$moves"); do
    ping_begin "$address" "$scratch/ping"
    pings=("$pinger")
    quiet migrate bm-1 --yes
    ping_end "$pinger" "$scratch/ping"
    pings=()
    echo "$gap" >>"$scratch/gaps"
  done
}
by_virsh() {
  local n=0 to
  for g in "${guests[@]}"; do
    to=h$((2 + n % 2))
    n=$((n + 1))
    "$rackhand" lab ssh --name "$lab" h1 -- \
      virsh -q migrate --live --p2p --tls "$g" "qemu+tls://${addresses[$to]}/system" --migrateuri "tcp://${addresses[$to]}"
  done
}
by_rackhand() {
  "$rackhand" evacuate h1 --yes -q >"$scratch/report"
}
timed() { # WHAT: seconds and longest gap, a line for this round
  local began ended
  gaps_begin
  began=$(date +%s.%N)
  "by_$1"
  ended=$(date +%s.%N)
  awk -v a="$began" -v b="$ended" 'BEGIN { printf "%.3f\n", b - a }' >>"$scratch/$1.seconds"
  gaps_end >>"$scratch/$1.gaps"
}
median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

in_a_row
for _ in $(seq "$rounds"); do
  home
  timed virsh
  home
  timed rackhand
  quiet return h1 --yes
done
v=$(median "$scratch/virsh.seconds") r=$(median "$scratch/rackhand.seconds")
printf '%s live moves in a row, ping each 10 ms: longest gap %s ms (wanted: at most 300), median %s ms (wanted: below 100)\n\n' \
  "$moves" "$(sort -n "$scratch/gaps" | tail -n 1)" "$(median "$scratch/gaps")"
cat "$scratch/report"
printf '\n%-42s %8s %16s\n' "6 guests off h1 (median of $rounds)" seconds "longest gap, ms"
printf '%-42s %8.2f %16d\n' "loop over virsh migrate --live --p2p --tls" "$v" "$(median "$scratch/virsh.gaps")"
printf '%-42s %8.2f %16d\n' "rackhand evacuate" "$r" "$(median "$scratch/rackhand.gaps")"
awk -v v="$v" -v r="$r" 'BEGIN { printf "ratio %.2f\n", v / r }'
