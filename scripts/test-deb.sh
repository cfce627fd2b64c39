#!/usr/bin/env bash
# Installs the Debian package with its dependencies in a bare Debian of its own and runs it there. Needs root.
# Usage: scripts/test-deb.sh PACKAGE
set -euo pipefail
package=$(realpath "$1")
[ "$(id -u)" = 0 ] || { echo "test-deb.sh: needs root" >&2; exit 1; }
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT
chmod 755 "$root"
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
mmdebstrap --quiet --variant=apt --include=bash "$suite" "$root"
cp "$package" "$root/tmp/rackhand.deb"
cp /etc/resolv.conf "$root/etc/resolv.conf"
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
  ${http_proxy:+http_proxy="$http_proxy"} "$@"; }
# The way to the package archive is this machine's.
inside apt-get -qq update
inside apt-get -qq install --no-install-recommends -y /tmp/rackhand.deb >/dev/null
set -x
inside rackhand --version
inside rackhand -i /usr/share/doc/rackhand/examples/inventory.yaml inventory check
inside test -s /usr/share/man/man1/rackhand-guest-create.1.gz
inside bash -c 'source /usr/share/bash-completion/completions/rackhand
  COMP_WORDS=(rackhand sta); COMP_CWORD=1; _clap_complete_rackhand rackhand sta rackhand
  [ "${COMPREPLY[0]}" = status ]'
inside apt-get -qq remove -y rackhand >/dev/null
inside test ! -e /usr/bin/rackhand
set +x
echo "test-deb: installed, run and removed in a bare $suite"
