#!/usr/bin/env bash
# Installs what building rackhand and running its lab needs on Debian 12 or 13; needs root. Safe to repeat.
set -euo pipefail

packages=(
  # build: the virt crate links libvirt's client library
  gcc libc6-dev pkg-config libvirt-dev
  # lab: host image, containers, networks, loop disks
  mmdebstrap systemd-container iproute2 iputils-ping iputils-arping e2fsprogs util-linux squashfs-tools
  # lab: BMCs
  openipmi ipmitool
  # lab: virtual machines as hosts, and trying guest images
  qemu-system-x86 qemu-utils kmod
  # lab: guest images
  mtools syslinux syslinux-common xz-utils
  # the transport
  openssh-client openssh-server
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
