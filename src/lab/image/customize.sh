#!/bin/sh
# Run by mmdebstrap with the new root as its argument, once everything is installed in it.
set -eu
root=$1
here=$(dirname "$0")
repository=$root/var/lib/lab-packages

# Packages for later, as a repository of the host's own, so that apt works without a network.
mkdir -p "$repository"
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get install --yes --quiet --quiet --download-only --no-install-recommends \
    $(grep -v '^#' "$here/offline-packages.list")
mv "$root"/var/cache/apt/archives/*.deb "$repository/"
cd "$repository"
for deb in *.deb; do
    dpkg-deb --field "$deb"
    echo "Filename: ./$deb"
    echo "Size: $(stat -c %s "$deb")"
    echo "SHA256: $(sha256sum "$deb" | cut -d ' ' -f 1)"
    echo
done > Packages
rm -f "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/apt.conf.d/99mmdebstrap
echo 'deb [trusted=yes] file:/var/lib/lab-packages ./' > "$root/etc/apt/sources.list"

# Every host gets its own identity when it is made.
rm -f "$root"/etc/ssh/ssh_host_*_key* "$root/etc/hostname" "$root/etc/resolv.conf"
: > "$root/etc/machine-id"
# A root without a password logs in with a key only; the shadow entry must still be a valid account.
chroot "$root" passwd --quiet --lock root
chroot "$root" systemctl --quiet enable systemd-networkd.service
# They fail on the machine's own login records.
chroot "$root" systemctl --quiet mask systemd-update-utmp.service systemd-update-utmp-runlevel.service
# Kernel file systems of the machine are none of a host's business.
chroot "$root" systemctl --quiet mask sys-kernel-debug.mount sys-kernel-tracing.mount
