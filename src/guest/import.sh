# Takes an image file on stdin and converts it into a disk image of Ceph. Arguments: bytes, format, pool/image.
# Progress and the end go to stdout, one word first; a host that loses its operator cleans up after itself.
set -u
size=$1 format=$2 target=$3
dir=$(mktemp -d /var/tmp/rackhand-import.XXXXXX) || { echo "FAIL no temporary directory"; exit 0; }
trap 'rm -rf "$dir"' EXIT HUP TERM INT PIPE
free=$(df --output=avail -B1 "$dir" | tail -n 1)
if [ "$free" -le "$size" ]; then
  echo "FAIL /var/tmp has $free bytes free, $size are needed"
  exit 0
fi
head -c "$size" >"$dir/image"
got=$(stat -c %s "$dir/image")
if [ "$got" != "$size" ]; then
  echo "FAIL only $got of $size bytes arrived"
  exit 0
fi
read -r go || go=
[ "$go" = GO ] || { echo "FAIL not confirmed"; exit 0; }
echo "RECEIVED"
# Converting a file whose end is missing succeeds, with zeros for what is not there. 3 is lost space, which does no harm.
if [ "$format" = qcow2 ]; then
  timeout -k 5 "$4" qemu-img check -q -f qcow2 "$dir/image" >"$dir/err" 2>&1 </dev/null
  code=$?
  if [ "$code" != 0 ] && [ "$code" != 3 ]; then
    echo "FAIL the file is damaged: $(grep -m 1 . "$dir/err" | cut -c -200)"
    exit 0
  fi
fi
# Nothing of the image is trusted: its format is given, and it has no backing file.
timeout -k 5 "$4" qemu-img convert -p -m 8 -W -f "$format" -O raw "$dir/image" "rbd:$target:id=admin:conf=/etc/ceph/ceph.conf" 2>"$dir/err" </dev/null
code=$?
if [ "$code" = 0 ]; then
  echo
  echo "DONE"
else
  echo
  echo "FAIL qemu-img ended with $code: $(tail -n 2 "$dir/err" | tr '\n' ' ')"
fi
