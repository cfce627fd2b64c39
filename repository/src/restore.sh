#!/bin/sh
# Brings back the disks of the restore point beside this script, with zstd, sha256sum and rbd alone.
# Usage: sh restore.sh POOL [--as NAME] [--disk N]     (RBD='rbd --id admin' names another rbd)
set -eu
rbd=${RBD:-rbd}
fail() { echo "restore.sh: $*" >&2; exit 1; }
usage() { echo "usage: sh restore.sh POOL [--as NAME] [--disk N]" >&2; exit 2; }

pool='' name='' only=''
while [ $# -gt 0 ]; do
  case $1 in
    --as) [ $# -ge 2 ] || usage; name=$2; shift 2 ;;
    --disk) [ $# -ge 2 ] || usage; only=$2; shift 2 ;;
    -*) usage ;;
    *) [ -z "$pool" ] || usage; pool=$1; shift ;;
  esac
done
[ -n "$pool" ] || usage

point=$(cd "$(dirname "$0")" && pwd)
guest=$(dirname "$point")
cluster=$(dirname "$guest")
work=$(mktemp -d)
writer=''
cleanup() { [ -z "$writer" ] || kill "$writer" 2>/dev/null || :; rm -rf "$work"; }
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# The line of a disk in a point: INDEX SIZE FROM TO TEMPLATE IMAGE, `-` for none.
disk_line() {
  sed -n "s/^disk \($2 .*\)\$/\1/p" "$1/point.txt"
}

# What disk $1 needs, first to last, a line each: DISK SNAPSHOT DIRECTORY.
layers() {
  directory=$point
  : > "$work/layers.$1"
  while :; do
    [ -f "$directory/point.txt" ] || fail "$directory is not there, and disk $1 needs it"
    line=$(disk_line "$directory" "$1")
    [ -n "$line" ] || fail "$directory has no disk $1, and a later point needs it"
    set -- $line
    { echo "$1 $4 $directory"; cat "$work/layers.$1"; } > "$work/new"
    mv "$work/new" "$work/layers.$1"
    if [ "$3" = - ]; then break; fi
    directory=$guest/$(sed -n 's/^parent //p' "$directory/point.txt")
    # Its name for as long as its successor takes its place.
    replaced=$guest/.replaced-${directory##*/}
    if [ ! -d "$directory" ] && [ -d "$replaced" ]; then directory=$replaced; fi
  done
  if [ "$5" != - ]; then
    directory=$cluster/templates/$5
    [ -f "$directory/point.txt" ] || fail "the template $directory is not there, and disk $1 needs it"
    line=$(disk_line "$directory" '[0-9]*')
    index=$1
    set -- $line
    { echo "$1 $4 $directory"; cat "$work/layers.$index"; } > "$work/new"
    mv "$work/new" "$work/layers.$index"
  fi
}

check() {
  while read -r disk _ directory; do
    echo "checking $directory/disk-$disk.rbdiff.zst" >&2
    (cd "$directory" && grep "  disk-$disk\.rbdiff\.zst\$" SHA256SUMS | sha256sum -c >/dev/null) ||
      fail "$directory/disk-$disk.rbdiff.zst is not what was stored"
  done < "$work/layers.$1"
}

# restore INDEX IMAGE
restore() {
  first=$(head -n 1 "$work/layers.$1")
  set -- "$1" "$2" $first
  size=$(disk_line "$5" "$3" | cut -d' ' -f2)
  $rbd create --size "${size}B" "$pool/$2"
  while read -r disk snapshot directory; do
    echo "applying $directory/disk-$disk.rbdiff.zst to $pool/$2" >&2
    rm -f "$work/stream"
    mkfifo "$work/stream"
    # A path, not `-`: rbd writes one request at a time from its standard input.
    zstd -dcq "$directory/disk-$disk.rbdiff.zst" > "$work/stream" &
    writer=$!
    $rbd import-diff --no-progress "$work/stream" "$pool/$2" </dev/null ||
      fail "$pool/$2 is incomplete: remove it with: $rbd rm $pool/$2 (after: $rbd snap purge $pool/$2)"
    wait "$writer" || fail "zstd failed; $pool/$2 is incomplete"
    writer=''
  done < "$work/layers.$1"
  while read -r _ snapshot _; do
    $rbd snap rm --no-progress "$pool/$2@$snapshot" </dev/null
  done < "$work/layers.$1"
}

disks=$(sed -n 's/^disk \([0-9]*\) .*/\1/p' "$point/point.txt")
[ -z "$only" ] || disks=$(printf '%s\n' $disks | grep -x -e "$only") || fail "this point has no disk $only"
image_of() {
  if [ -n "$name" ]; then echo "$name.disk$1"; else disk_line "$point" "$1" | cut -d' ' -f6-; fi
}
for index in $disks; do
  layers "$index"
  check "$index"
  image=$(image_of "$index")
  if $rbd info "$pool/$image" >/dev/null 2>&1; then fail "$pool/$image is there already; choose another name with --as"; fi
done
for index in $disks; do
  restore "$index" "$(image_of "$index")"
  echo "restored $pool/$(image_of "$index")"
done
