# What keeps this host from moving guests to another one, or from taking them; a line each, nothing when all is well. The
# first word says of what kind it is.
# $1 address for migrations, $2 libvirt URI, $3 largest unfragmented echo, $4 management and $5 storage address
export LC_ALL=C
answers() {
  ping -n -q -c 1 -W 2 "$1" >/dev/null 2>&1 || ping -n -q -c 2 -i 0.3 -W 2 "$1" >/dev/null 2>&1 || echo "net $2"
}
whole() {
  ping -n -q -c 1 -W 2 "$1" >/dev/null 2>&1 || return 0
  ping -n -q -M do -s "$2" -c 2 -i 0.2 -W 2 "$1" >/dev/null 2>&1 || echo "net packets of full size do not reach $1"
}
port() {
  timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null
  [ $? -ne 124 ] || echo "net port $2 of $1 is filtered"
}
libvirt() {
  error=$(timeout 5 virsh -q -c "$1" version 2>&1 >/dev/null)
  code=$?
  [ $code -ne 124 ] || error="no answer within 5 s"
  [ $code -eq 0 ] || echo "net no libvirt at $1: $(printf %s "$error" | tail -n 1)"
}
# QEMU has certificates of its own beside libvirt's, which the connection below proves.
issued() {
  [ ! -e "$1" ] || cmp -s "$1" "$2" || echo "tls QEMU's certificate $2 is not the one that was issued to this host"
}
room() {
  left=$(df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }')
  [ "${left:-$2}" -ge "$2" ] || echo "room $1 is full: $left KiB left, QEMU needs $2 KiB for its sockets and state"
}
issued /etc/pki/CA/cacert.pem /etc/pki/qemu/ca-cert.pem
issued /etc/pki/libvirt/servercert.pem /etc/pki/qemu/server-cert.pem
issued /etc/pki/libvirt/clientcert.pem /etc/pki/qemu/client-cert.pem
room /run 1024
answers "$4" "its management address $4 does not answer" &
answers "$5" "its storage address $5 does not answer" &
[ "$1" = "$4" ] || [ "$1" = "$5" ] || answers "$1" "its migration address $1 does not answer" &
whole "$1" "$3" &
port "$1" 49152 &
libvirt "$2" &
wait
