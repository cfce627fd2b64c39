#!/usr/bin/env bash
# A Debian package of a built binary: completions, manual pages, the example inventory. Prints the file's path.
# Usage: scripts/deb.sh BINARY [DIRECTORY]
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "$1")
out=$(realpath -m "${2:-target/deb}")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
architecture=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
install -D -m 755 "$binary" "$root/usr/bin/rackhand"
strip --strip-unneeded "$root/usr/bin/rackhand"
# Sent to storage hosts; found beside rackhand.
install -D -m 755 "$(dirname "$binary")/rackhand-store" "$root/usr/bin/rackhand-store"
install -D -m 644 completions/rackhand.bash "$root/usr/share/bash-completion/completions/rackhand"
install -D -m 644 completions/_rackhand "$root/usr/share/zsh/vendor-completions/_rackhand"
install -D -m 644 completions/rackhand.fish "$root/usr/share/fish/vendor_completions.d/rackhand.fish"
install -D -m 644 inventory.example.yaml "$root/usr/share/doc/rackhand/examples/inventory.yaml"
install -D -m 644 LICENSE "$root/usr/share/doc/rackhand/copyright"
install -D -m 644 CHANGELOG.md "$root/usr/share/doc/rackhand/CHANGELOG.md"
"$binary" --quiet man "$root/usr/share/man/man1"
gzip -9n "$root"/usr/share/man/man1/*.1 "$root/usr/share/doc/rackhand/CHANGELOG.md"
# The libraries that it is linked with, as the packages of this machine name them.
mkdir -p "$work/debian" "$root/DEBIAN"
printf 'Source: rackhand\n\nPackage: rackhand\nArchitecture: any\n' > "$work/debian/control"
libraries=$(cd "$work" && dpkg-shlibdeps -O "$root/usr/bin/rackhand" 2>/dev/null | sed 's/^shlibs:Depends=//')
cat > "$root/DEBIAN/control" <<EOF
Package: rackhand
Version: $version
Architecture: $architecture
Maintainer: The rackhand authors <rackhand@users.noreply.github.com>
Section: admin
Priority: optional
Installed-Size: $(du -sk "$root/usr" | cut -f1)
Depends: $libraries, openssh-client
Recommends: curl
Description: agentless Ceph and KVM for ops teams, over SSH
 From an inventory of hosts, rackhand builds a hyperconverged Ceph and KVM
 cluster over SSH, creates guests, and moves them between hosts.
EOF
mkdir -p "$out"
file=$out/rackhand_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$root" "$file" >/dev/null
echo "$file"
