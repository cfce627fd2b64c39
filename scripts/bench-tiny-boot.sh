#!/usr/bin/env bash
# Measures how long the tiny guest takes from the start of QEMU (emulation, no KVM) to its first answer to a ping,
# and the processor time spent by then. Needs root. Usage: bench-tiny-boot.sh [RUNS]
set -euo pipefail
runs=${1:-9}
rackhand=${RACKHAND:-target/debug/rackhand}
work=$(mktemp -d)
ns=rh-boot-$$
qemu=
trap '[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true; ip netns delete "$ns" 2>/dev/null || true; rm -rf "$work"' EXIT

image=$("$rackhand" -q lab image build tiny)
printf 'instance-id: bench\nlocal-hostname: bench\n' >"$work/meta-data"
printf '#cloud-config\n' >"$work/user-data"
cat >"$work/network-config" <<'YAML'
version: 2
ethernets:
  net0:
    match:
      macaddress: "52:54:00:12:34:56"
    addresses:
      - 10.77.1.10/24
YAML
mformat -C -i "$work/seed.img" -T 2048 -h 16 -s 63 -v cidata ::
mcopy -i "$work/seed.img" "$work"/{meta-data,user-data,network-config} ::

ip netns add "$ns"
ip -n "$ns" tuntap add tap0 mode tap
ip -n "$ns" address add 10.77.1.1/24 dev tap0
ip -n "$ns" link set tap0 up
echo "run  wall_s  cpu_s"
for ((run = 1; run <= runs; run++)); do
  cp --sparse=always "$image" "$work/disk.img"
  began=$(date +%s%N)
  ip netns exec "$ns" qemu-system-x86_64 -machine pc -accel tcg -m 128 -nodefaults -nographic -serial null \
    -drive "if=virtio,format=raw,file=$work/disk.img" -drive "if=virtio,format=raw,readonly=on,file=$work/seed.img" \
    -netdev tap,id=net,ifname=tap0,script=no,downscript=no \
    -device virtio-net-pci,romfile=,netdev=net,mac=52:54:00:12:34:56 </dev/null 2>"$work/qemu.log" &
  qemu=$!
  # One ping every 20 ms, over at the first answer.
  ip netns exec "$ns" ping -q -i 0.02 -c 1 -W 1 -w 60 10.77.1.10 >/dev/null 2>&1
  ended=$(date +%s%N)
  ticks=$(awk '{print $14 + $15}' "/proc/$qemu/stat")
  awk -v run="$run" -v wall="$(((ended - began) / 1000000))" -v ticks="$ticks" -v hz="$(getconf CLK_TCK)" \
    'BEGIN { printf "%-4d %6.2f %6.2f\n", run, wall / 1000, ticks / hz }'
  kill "$qemu"
  wait "$qemu" || true
  qemu=
done | tee "$work/table"
awk '{ print $2 }' "$work/table" | sort -n | awk '{ v[NR] = $1 } END { printf "median %.2f s, best %.2f s, worst %.2f s\n", v[int((NR + 1) / 2)], v[1], v[NR] }'
