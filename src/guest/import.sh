# Takes an image file on stdin and converts it into a disk image of Ceph. Arguments: bytes, format, pool/image, seconds, and
# the program that unpacks it, if any. Progress and the end go to stdout, one word first; a host that loses its operator
# cleans up after itself.
set -u
size=$1 format=$2 target=$3 limit=$4 unpack=$5
fail() { printf 'FAIL %s\n' "$*"; exit 0; }
dir=$(mktemp -d /var/tmp/rackhand-import.XXXXXX) || fail "no temporary directory"
trap 'rm -rf "$dir"' EXIT HUP TERM INT PIPE
image=$dir/image
# Bytes that may be written: the monitor beside it stops when a twentieth of its file system is left (mon_data_avail_crit).
room() { df --output=avail,size -B1 "$dir" | awk 'END { room = $1 - $2 / 18; printf "%.0f", (room > 0 ? room : 0) }'; }
room=$(room)
[ "$room" -gt "$size" ] || fail "/var/tmp has $room bytes to spare, $size are needed"
head -c "$size" >"$image"
got=$(stat -c %s "$image")
[ "$got" = "$size" ] || fail "only $got of $size bytes arrived"
read -r go || go=
[ "$go" = GO ] || fail "not confirmed"
echo "RECEIVED"
first() { grep -m 1 . "$dir/err" | cut -c -200; }
if [ -n "$unpack" ]; then
  room=$(room)
  { timeout -k 5 "$limit" "$unpack" -dc <"$image" 2>"$dir/err"; echo $? >"$dir/code"; } | head -c "$((room + 1))" >"$dir/disk"
  got=$(stat -c %s "$dir/disk")
  [ "$got" -le "$room" ] || fail "unpacked it has more than the $room bytes that /var/tmp can spare"
  [ "$(cat "$dir/code")" = 0 ] || fail "$unpack cannot unpack it: $(first)"
  mv "$dir/disk" "$image"
fi
# Nothing of the image is trusted: its format is given, and it may name no file but itself.
timeout -k 5 60 qemu-img info --output=json -f "$format" "$image" >"$dir/info" 2>"$dir/err" </dev/null ||
  fail "it cannot be read as $format: $(first)"
if grep -Eq '"(full-)?backing-filename"|"data-file"' "$dir/info" ||
  grep -o '"filename": "[^"]*"' "$dir/info" | grep -qvxF "\"filename\": \"$image\""; then
  fail "it refers to another file"
fi
# Converting a file whose end is missing succeeds, with zeros for what is not there. 3 is lost space, which does no harm; 63
# says that the format has no check.
if [ "$format" != raw ]; then
  timeout -k 5 "$limit" qemu-img check -q -f "$format" "$image" >"$dir/err" 2>&1 </dev/null
  case $? in 0 | 3 | 63) ;; *) fail "the file is damaged: $(first)" ;; esac
fi
timeout -k 5 "$limit" qemu-img convert -p -m 8 -W -f "$format" -O raw "$image" "rbd:$target:id=admin:conf=/etc/ceph/ceph.conf" 2>"$dir/err" </dev/null
code=$?
echo
[ "$code" = 0 ] || fail "qemu-img ended with $code: $(tail -n 2 "$dir/err" | tr '\n' ' ')"
echo "DONE"
