#!/usr/bin/env bash
# Compares `rackhand facts` with Ansible and pyinfra on 100 sshd processes of this machine. Usage: run.sh [RACKHAND].
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
rackhand=${1:-target/release/rackhand}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/rackhand/bench-ssh
if ! cmp -s "$here/requirements.txt" "$cache/requirements.txt"; then
  mkdir -p "$cache"
  python3 -m venv "$cache/venv"
  "$cache/venv/bin/pip" install -q -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$cache/"
fi
exec python3 "$here/bench.py" --rackhand "$(realpath "$rackhand")" --tools "$cache/venv/bin"
