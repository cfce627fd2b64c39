# Carries out one request for a guest unless it is older than the guest's floor on this host. Comparing, raising and
# handing over to libvirt are one step under the guest's lock. $1: verb; $2: the guest's id; $3: generation of the claim;
# $4: seconds to wait for the lock; further ones belong to the verb. Tells one line, and what virsh said after it:
#   done | failed STATUS | older FLOOR | held | under-way | broken
set -u
umask 077
verb=$1 uuid=$2 generation=$3 patience=$4
shift 4
floors=/var/lib/rackhand/floor
run=/run/rackhand/requests
said=$run/$uuid.$verb.$generation
broken() { echo broken; echo "$*"; exit 0; }
end() {
  if [ "$1" = 0 ]; then echo "done"; else echo "failed $1"; fi
  tail -c 4000 "$said" 2>/dev/null
}
# What became of a move that libvirt has taken on.
if [ "$verb" = outcome ]; then
  said=$run/$uuid.migrate.$generation
  n=0
  until [ -e "$said.status" ]; do
    [ -e "$said" ] || broken "host has no record of this move"
    n=$((n + 1))
    [ "$n" -le $((patience * 20)) ] || { echo under-way; exit 0; }
    sleep 0.05
  done
  end "$(cat "$said.status")"
  exit 0
fi
mkdir -p "$floors" "$run" || broken "cannot make $floors or $run"
exec 9>>"$floors/$uuid.lock" || broken "cannot open $floors/$uuid.lock"
flock -w "$patience" 9 || { echo held; exit 0; }
floor=0
if [ -e "$floors/$uuid" ]; then
  floor=$(cat "$floors/$uuid") || broken "cannot read $floors/$uuid"
  case $floor in '' | *[!0-9]*) broken "$floors/$uuid holds no number" ;; esac
fi
if [ "$generation" -lt "$floor" ]; then echo "older $floor"; exit 0; fi
if [ "$generation" -gt "$floor" ]; then
  { echo "$generation" >"$floors/$uuid.new" && sync "$floors/$uuid.new" && mv "$floors/$uuid.new" "$floors/$uuid"; } ||
    broken "cannot write $floors/$uuid"
fi
if [ "$verb" = raise ]; then echo "done"; exit 0; fi
rm -f "$run/$uuid.$verb."*
: >"$said" || broken "cannot write $said"
# The request runs in a session of its own and keeps the lock: should this shell be killed at its deadline, what libvirt
# may still do is not over, and no floor is raised past it meanwhile.
case $verb in
  create)
    printf '%s\n' "$xml" >"$said.xml" || broken "cannot write $said.xml"
    setsid -w sh -c 'LC_ALL=C virsh -q -k 0 -c qemu:///system create --paused "$1.xml" >"$1" 2>&1; s=$?; rm -f "$1.xml"; exit $s' \
      sh "$said" </dev/null >/dev/null 2>&1 &
    ;;
  resume | destroy | suspend)
    setsid -w sh -c 'LC_ALL=C exec virsh -q -k 0 -c qemu:///system "$1" "$2" >"$3" 2>&1' sh "$verb" "$uuid" "$said" \
      </dev/null >/dev/null 2>&1 &
    ;;
  migrate)
    # The lock is held until the job shows, or virsh ended; then the move goes on without it.
    setsid -w sh -c '
      said=$1 uuid=$2
      shift 2
      (
        LC_ALL=C virsh -q -k 0 -c qemu:///system migrate "$@" >"$said" 2>&1
        echo $? >"$said.new"
        mv "$said.new" "$said.status"
      ) 9>&- &
      until [ -e "$said.status" ]; do
        case $(LC_ALL=C virsh -q -k 0 -c qemu:///system domjobinfo "$uuid" 2>/dev/null) in *"Outgoing migration"*) exit 0 ;; esac
        sleep 0.02
      done' sh "$said" "$uuid" "$@" </dev/null >/dev/null 2>&1 &
    ;;
  *) broken "no such request: $verb" ;;
esac
wait $!
status=$?
if [ "$verb" = migrate ]; then
  if [ ! -e "$said.status" ]; then echo under-way; exit 0; fi
  status=$(cat "$said.status")
fi
end "$status"
