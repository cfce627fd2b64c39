# For sourcing: how long an address did not answer. Linux `ping -D` writes the time of each answer in brackets.

# Sends an echo request each 10 ms to ADDRESS, answers go to LOG; comes back, with the process id in `pinger`, when
# the first answer is there. Usage: ping_begin ADDRESS LOG
ping_begin() {
  ping -n -D -i 0.01 "$1" >"$2" 2>&1 &
  pinger=$!
  for _ in $(seq 1200); do
    ! grep -q 'bytes from' "$2" || return 0
    sleep 0.1
  done
  echo "ping: $1 does not answer" >&2
  return 1
}

# Ends a ping after one more answer, so that a gap that lasts still counts whole; the longest time between two answers,
# in ms, is then in `gap`. Usage: ping_end PID LOG
ping_end() {
  local answers
  answers=$(grep -c 'bytes from' "$2")
  for _ in $(seq 600); do
    [ "$(grep -c 'bytes from' "$2")" -le "$answers" ] || break
    sleep 0.02
  done
  kill -INT "$1"
  wait "$1" || true
  pinger=
  gap=$(awk -F'[][]' '/bytes from/ { if (last && $2 - last > worst) worst = $2 - last; last = $2 } END { printf "%.0f", worst * 1000 }' "$2")
}
