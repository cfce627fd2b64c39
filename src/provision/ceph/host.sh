# Everything the Ceph steps want to know of a host, in one round trip. Changes nothing, prints no secret.
# $1: the host's name in the inventory; the rest: its disks.
export LC_ALL=C
name=$1
shift

key_hash() {
  awk -v entity="[$2]" '$0 == entity { here = 1; next } /^\[/ { here = 0 } here && $1 == "key" { printf "%s", $3 }' "$1" 2>/dev/null \
    | sha256sum | cut -d ' ' -f 1
}
# One that others can read is as good as a wrong one: it is written anew.
key() {
  [ -s "$1" ] || return
  case $(stat -c %a "$1") in *[1-7]) echo "key=$2 open" ;; *) echo "key=$2 $(key_hash "$1" "$2")" ;; esac
}
file() {
  [ -e "$1" ] && echo "file=$1 $(base64 -w0 "$1")"
}
# The label of a BlueStore device holds its OSD's key: only harmless fields leave the host. Strings in it stand behind
# their length; the number is the last of them, and the checksum behind it may look like more digits.
label() {
  dd if="$1" bs=4096 count=1 2>/dev/null | tr -d '\000' \
    | grep -aoP '^[0-9a-f-]{36}$|ceph_fsid.[0-9a-f-]{36}|whoami(\x01\d|\x02\d\d|\x03\d{3}|\x04\d{4}|\x05\d{5})|ready.ready' \
    | sed -E 's/^ceph_fsid./label_fsid=/; s/^whoami./label_id=/; s/^ready.ready/label_ready=yes/; s/^([0-9a-f])/label_uuid=\1/'
}

echo "hostname=$(uname -n | cut -d . -f 1)"
# A bare host has the node of the kernel and not yet the program.
[ -c /dev/mapper/control ] && { ! command -v dmsetup || dmsetup version; } >/dev/null 2>&1 && echo lvm=yes
file /etc/ceph/ceph.conf
key /etc/ceph/ceph.client.admin.keyring client.admin
key /var/lib/ceph/bootstrap-osd/ceph.keyring client.bootstrap-osd
key "/var/lib/ceph/mgr/ceph-$name/keyring" "mgr.$name"

seed=/var/lib/ceph/rackhand-seed
if [ -d "$seed" ]; then
  echo "seed=$(sha256sum <"$seed/keyring" | cut -d ' ' -f 1)"
  monmaptool --print "$seed/monmap" 2>/dev/null | sed -nE 's/^fsid /seed_fsid=/p; s/^[0-9]+: (.*) mon\.(.*)$/seed_mon=\2 \1/p'
fi
for store in /var/lib/ceph/mon/ceph-*; do
  [ -d "$store/store.db" ] || continue
  id=${store##*/ceph-}
  fsid=$(cat "$store/rackhand-fsid" 2>/dev/null)
  # A store of somebody else's: only a monitor that does not run can be asked for its map this way.
  if [ -z "$fsid" ] && ! systemctl is-active -q "ceph-mon@$id"; then
    map=$(mktemp)
    # As root it would leave files of root's in the store, and the monitor could not start any more.
    chown ceph:ceph "$map" && ceph-mon -i "$id" --setuser ceph --setgroup ceph --extract-monmap "$map"
    fsid=$(monmaptool --print "$map" 2>/dev/null | sed -n 's/^fsid //p')
    rm -f "$map"
  fi >/dev/null 2>&1
  echo "store=$id $fsid"
done
# Another tool's daemons: cephadm keeps each cluster below its id.
for d in /var/lib/ceph/????????-????-????-????-????????????; do
  [ -d "$d" ] && echo "cephadm=${d##*/}"
done
# Rook, MicroCeph and Proxmox keep theirs in places of their own.
foreign() {
  tool=$1
  shift
  for place in "$@"; do
    [ -e "$place" ] && { echo "foreign=$tool $place"; break; }
  done
}
foreign Rook /var/lib/rook/mon-* /var/lib/rook/rook-ceph
foreign MicroCeph /var/snap/microceph/current/conf/ceph.conf /var/snap/microceph/common/data/mon
foreign Proxmox /etc/pve/ceph.conf
grep -qshE '^ *[0-9]+: [0-9A-F]+:(0CE4|1A85) [0-9A-F]+:0000 0A ' /proc/net/tcp /proc/net/tcp6 && echo mon_port=yes
for d in /var/lib/ceph/mon /var/lib/ceph /var/lib; do
  [ -d $d ] && { df -kP $d | awk 'NR == 2 { print "var_kib=" $2 }'; break; }
done

# What an OSD that is being made leaves outside the listed disks: its directory, its volume, the program itself.
for d in /var/lib/ceph/osd/ceph-*; do
  [ -L "$d/block" ] || continue
  device=$(readlink -f "$d/block")
  echo "osd_dir=${d##*-} $device $(lsblk -nspo NAME "$device" 2>/dev/null | tr -d '└─├│ ' | xargs)"
done
pgrep -f '[c]eph-volume ' >/dev/null 2>&1 && echo "making=yes"

units="ceph-mon@$name ceph-mgr@$name"
for d in /etc/systemd/system/ceph-osd@*.service.d; do
  [ -d "$d" ] && file "$d/rackhand-raw.conf"
done

# All of LVM in two calls: asked disk by disk, two dozen of them take longer than anyone waits.
volumes=$(pvs --noheadings --nosuffix --units b -o pv_major,pv_minor,vg_name,pv_used,lv_count 2>/dev/null)
logical=$(lvs --noheadings -o vg_name,lv_name,lv_tags 2>/dev/null)

for disk; do
  echo "disk=$disk"
  real=$(readlink -f -- "$disk") || real=
  [ -b "$real" ] || { echo missing=yes; continue; }
  echo "real=$real"
  echo "size=$(blockdev --getsize64 "$real" 2>/dev/null)"
  set -- $(lsblk -ndo KNAME,MAJ:MIN "$real" 2>/dev/null)
  node=${1:-}
  number=${2:-}
  # By its kernel name: a mapped device goes by another as well.
  lsblk -nro KNAME,NAME,TYPE,MOUNTPOINTS "$real" 2>/dev/null | while read -r kernel child type mounts; do
    [ -n "$mounts" ] && echo "mount=$mounts"
    [ "$kernel" = "$node" ] || echo "child=$child $type"
  done
  for holder in "/sys/class/block/$node/holders"/*; do
    [ -e "$holder" ] && echo "holder=${holder##*/}"
  done
  # What cannot be read to its end is not taken for empty.
  found=$(wipefs --noheadings -O TYPE "$real" 2>/dev/null) || echo unreadable=yes
  [ -n "$found" ] && echo "$found" | sort -u | sed 's/^/sig=/'
  if cmp -s -n 1048576 "$real" /dev/zero; then
    echo clean=yes
    # Ceph 19 and later keep copies of the label of an OSD, which no look at the beginning finds.
    bytes=$(blockdev --getsize64 "$real" 2>/dev/null)
    for gib in 1 10 100 1000; do
      [ "${bytes:-0}" -gt $((gib << 30)) ] || break
      case $(dd if="$real" bs=512 skip=$((gib << 21)) count=1 2>/dev/null | tr -d '\000' | head -c 23) in
        'bluestore block device'*) echo "sig=a copy of an OSD's label at $gib GiB" ;;
      esac
    done
  fi
  found=$(label "$real")
  # The group, the disk's bytes that are given to volumes, and how many volumes there are: a list of them that stays
  # empty does not prove that there are none.
  id=
  set -- $(echo "$volumes" | awk -v pv="$number" '$1 ":" $2 == pv && NF == 5 { print $3, $4, $5 }')
  if [ $# -eq 3 ]; then
    vg=$1
    echo "vg=$vg"
    [ "$2 $3" = "0 0" ] && echo unused=yes
    for line in $(echo "$logical" | awk -v vg="$vg" '$1 == vg { print $2 "|" $3 }'); do
      lv=${line%%|*}
      tags=${line#*|}
      echo "lv=$lv $tags"
      found=$(label "/dev/$vg/$lv")
      # An encrypted one shows no label, but its tags.
      id=$(echo "$tags" | tr ',' '\n' | sed -n 's/^ceph\.osd_id=\([0-9][0-9]*\)$/\1/p')
    done
  fi
  [ -n "$found" ] && echo "$found"
  of_label=$(echo "$found" | sed -n 's/^label_id=//p')
  id=${of_label:-$id}
  [ -n "$id" ] && units="$units ceph-osd@$id"
done

for unit in $units; do
  set -- $(systemctl show -p ActiveState -p UnitFileState "$unit.service" 2>/dev/null | sort | sed 's/^[^=]*=//')
  echo "unit=$unit ${1:-unknown} ${2:-absent}"
done
exit 0
