#!/usr/bin/env bash
# Installs what building rackhand and running its lab needs on Debian 12 or 13; needs root. Safe to repeat.
set -euo pipefail

packages=(
  # build: the virt crate links libvirt's client library
  gcc libc6-dev pkg-config libvirt-dev
  # tests of the backup repository: what a restore without rackhand uses
  zstd
  # lab: host image, containers, networks, loop disks
  mmdebstrap systemd-container iproute2 iputils-ping iputils-arping e2fsprogs util-linux squashfs-tools
  # lab: BMCs
  openipmi ipmitool
  # lab: virtual machines as hosts, and trying guest images
  qemu-system-x86 qemu-utils kmod
  # lab: guest images
  mtools syslinux syslinux-common xz-utils
  # the scripts of tests and benchmarks; rustup's installer
  python3 python3-venv curl ca-certificates
  # the transport, and login shells that are not POSIX for its tests
  openssh-client openssh-server fish tcsh
)

missing=()
for p in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
  [ "$(id -u)" = 0 ] || { echo "deps.sh: needs root to install: ${missing[*]}" >&2; exit 1; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

# Rust: Debian 12 has none that is new enough, so rustup's own installer is what is left there.
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
export PATH=$HOME/.cargo/bin:$PATH
new_enough() {
  local have
  have=$(cargo --version 2>/dev/null | cut -d' ' -f2)
  [ -n "$have" ] && [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -n1)" = "$wanted" ]
}
if ! new_enough; then
  echo "deps.sh: Rust $wanted or newer is missing; installing it for this user with rustup" >&2
  installer=$(mktemp)
  trap 'rm -f "$installer"' EXIT
  curl --proto '=https' --tlsv1.2 --silent --show-error --fail --output "$installer" https://sh.rustup.rs
  sh "$installer" -y --quiet --profile minimal --component clippy,rustfmt
  new_enough || { echo "deps.sh: still no Rust $wanted; install it by hand, see https://rustup.rs" >&2; exit 1; }
fi
