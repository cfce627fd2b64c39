#!/usr/bin/env bash
# Evacuates a host with six guests: with rackhand, and with the loop over `virsh migrate` one would write instead; both
# in turn on the same rack. Usage: bench/move.sh [RACKHAND [PROVISIONED_LAB]]; without a lab one is made and removed.
set -euo pipefail
cd "$(dirname "$0")/.."
rackhand=$(realpath "${1:-target/release/rackhand}")
lab=${2:-bench-move}
rounds=${ROUNDS:-3}
scratch=$(mktemp -d)
guests=(bm-1 bm-2 bm-3 bm-4 bm-5 bm-6)
pings=()

quiet() { "$rackhand" "$@" -q >/dev/null; }
end() {
  [ ${#pings[@]} -eq 0 ] || kill "${pings[@]}" 2>/dev/null || true
  if [ -n "${made:-}" ]; then "$rackhand" lab down --name "$lab" --yes -q; else "$rackhand" guest delete "${guests[@]}" --yes -q || true; fi
  rm -rf "$scratch"
}
trap end EXIT

made=
if [ ! -e "/var/lib/rackhand/lab/$lab/inventory.yaml" ]; then
  made=1
  quiet lab up --name "$lab"
  export RACKHAND_INVENTORY=/var/lib/rackhand/lab/$lab/inventory.yaml
  quiet provision --yes
else
  export RACKHAND_INVENTORY=/var/lib/rackhand/lab/$lab/inventory.yaml
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
  until ping -q -n -c 1 -W 1 "$address" >/dev/null; do :; done
  echo "$address" >"$scratch/$g.address"
done

home() {
  quiet migrate "${guests[@]}" --to h1 --yes
}
gaps_begin() {
  pings=()
  for g in "${guests[@]}"; do
    ping -n -D -i 0.02 "$(cat "$scratch/$g.address")" >"$scratch/$g.log" &
    pings+=($!)
  done
}
gaps_end() { # the longest gap over all guests, in ms
  kill "${pings[@]}"
  wait "${pings[@]}" 2>/dev/null || true
  pings=()
  for g in "${guests[@]}"; do
    awk -F'[][]' '/bytes from/ { if (last && $2 - last > worst) worst = $2 - last; last = $2 } END { printf "%d\n", worst * 1000 }' "$scratch/$g.log"
  done | sort -n | tail -n 1
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

for _ in $(seq "$rounds"); do
  home
  timed virsh
  home
  timed rackhand
  quiet return h1 --yes
done
v=$(median "$scratch/virsh.seconds") r=$(median "$scratch/rackhand.seconds")
cat "$scratch/report"
printf '\n%-42s %8s %16s\n' "6 guests off h1 (median of $rounds)" seconds "longest gap, ms"
printf '%-42s %8.2f %16d\n' "loop over virsh migrate --live --p2p --tls" "$v" "$(median "$scratch/virsh.gaps")"
printf '%-42s %8.2f %16d\n' "rackhand evacuate" "$r" "$(median "$scratch/rackhand.gaps")"
awk -v v="$v" -v r="$r" 'BEGIN { printf "ratio %.2f\n", v / r }'
