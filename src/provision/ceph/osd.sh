# Makes an OSD on an empty disk. $1: lvm or raw; $2: the disk. Looks at the disk once more first.
set -eu
export LC_ALL=C
real=$(readlink -f -- "$2")
if ! found=$(wipefs --noheadings -O TYPE "$real") || [ -n "$found" ] || ! cmp -s -n 1048576 "$real" /dev/zero; then
  echo "$2 is not empty any more; left as it is"
  exit 0
fi
case $1 in
  lvm) exec ceph-volume lvm create --bluestore --data "$2" ;;
  raw) exec ceph-volume raw prepare --bluestore --no-tmpfs --data "$2" ;;
esac
