# What keeps this host from moving guests to another one; a line each, nothing when all is well.
# $1 address for migrations, $2 libvirt URI, $3 largest unfragmented echo, $4 management and $5 storage address
export LC_ALL=C
answers() {
  ping -n -q -c 1 -W 2 "$1" >/dev/null 2>&1 || ping -n -q -c 2 -i 0.3 -W 2 "$1" >/dev/null 2>&1 || echo "$2"
}
whole() {
  ping -n -q -c 1 -W 2 "$1" >/dev/null 2>&1 || return 0
  ping -n -q -M do -s "$2" -c 2 -i 0.2 -W 2 "$1" >/dev/null 2>&1 || echo "packets of full size do not reach $1"
}
port() {
  timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null
  [ $? -ne 124 ] || echo "port $2 of $1 is filtered"
}
libvirt() {
  error=$(timeout 5 virsh -q -c "$1" version 2>&1 >/dev/null)
  code=$?
  [ $code -ne 124 ] || error="no answer within 5 s"
  [ $code -eq 0 ] || echo "no libvirt at $1: $(printf %s "$error" | tail -n 1)"
}
answers "$4" "its management address $4 does not answer" &
answers "$5" "its storage address $5 does not answer" &
[ "$1" = "$4" ] || [ "$1" = "$5" ] || answers "$1" "its migration address $1 does not answer" &
whole "$1" "$3" &
port "$1" 49152 &
libvirt "$2" &
wait
