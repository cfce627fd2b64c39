# Clears a disk whose OSD was never finished. $1: the disk; $2: its volume group, if any.
set -eu
if [ -n "$2" ]; then
  exec ceph-volume lvm zap --destroy "$1"
fi
# The label goes last: as long as it is there, a run that is killed here can tell what this disk was.
dd if=/dev/zero of="$1" bs=4096 seek=1 count=4095 oflag=direct conv=fsync,notrunc status=none
dd if=/dev/zero of="$1" bs=4096 count=1 oflag=direct conv=fsync,notrunc status=none
