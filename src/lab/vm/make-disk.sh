# Makes a host's disk: the bare root, the kernel's modules, and the libraries that provisioning's packages need.
# An emulated machine takes minutes to unpack and compile those; this machine takes seconds. Nothing of Ceph or libvirt
# is among them: a host of this disk has still to be provisioned. Runs in a mount namespace of its own.
# $1: tree with the modules; $2: the bare root; $3: an empty directory beside the tree; $4: the disk; $5: its size.
set -eu
mkdir "$3/upper" "$3/layer" "$3/mnt"
mnt=$3/mnt
mount -t overlay -o "index=off,metacopy=off,lowerdir=$1:$2,upperdir=$3/upper,workdir=$3/layer" overlay "$mnt"

libraries=$(sed -n 's/^Package: //p' "$mnt/var/lib/lab-packages/Packages" \
    | grep -E '^(lib|python3|iso-codes$|binutils)' | grep -vE 'ceph|rados|rbd|rgw|libvirt')
mount -t proc proc "$mnt/proc"
mount -t tmpfs -o mode=755 dev "$mnt/dev"
for node in "null 3" "zero 5" "full 7" "random 8" "urandom 9"; do
    mknod -m 666 "$mnt/dev/${node% *}" c 1 "${node#* }"
done
ln -s /proc/self/fd "$mnt/dev/fd"
# Nothing is started on this machine.
printf '#!/bin/sh\nexit 101\n' >"$mnt/usr/sbin/policy-rc.d"
chmod 755 "$mnt/usr/sbin/policy-rc.d"
chroot "$mnt" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive sh -euc '
    apt-get -q update
    apt-get -q -y --no-install-recommends install "$@"
    rm -rf /var/lib/apt/lists/*' sh $libraries >&2
rm "$mnt/usr/sbin/policy-rc.d"
umount "$mnt/dev" "$mnt/proc"

mke2fs -q -F -t ext4 -m 1 -E lazy_itable_init=1,lazy_journal_init=1 -d "$mnt" "$4" "$5"
umount "$mnt"
