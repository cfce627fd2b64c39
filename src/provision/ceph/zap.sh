# Clears a disk whose OSD was never finished. $1: the disk; $2: its volume group, if any.
set -eu
if [ -n "$2" ]; then
  exec ceph-volume lvm zap --destroy "$1"
fi
# Ceph 19 and later keep copies of the label.
size=$(blockdev --getsize64 "$1")
for gib in 1 10 100 1000; do
  [ "$size" -gt $((gib << 30)) ] || break
  dd if=/dev/zero of="$1" bs=4096 seek=$((gib << 18)) count=1 oflag=direct conv=fsync,notrunc status=none
done
# The label goes last: as long as it is there, a run that is killed here can tell what this disk was.
dd if=/dev/zero of="$1" bs=4096 seek=1 count=4095 oflag=direct conv=fsync,notrunc status=none
dd if=/dev/zero of="$1" bs=4096 count=1 oflag=direct conv=fsync,notrunc status=none
