# Makes the cluster's first keys and monitor map, once. $1: directory; $2: cluster id; then name and address in turn.
set -eu
umask 077
seed=$1 fsid=$2
shift 2
[ ! -d "$seed" ] || exit 0
new=$seed.new
rm -rf "$new"
mkdir "$new"
ceph-authtool --create-keyring "$new/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
ceph-authtool "$new/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mds 'allow *' --cap mgr 'allow *'
ceph-authtool "$new/keyring" --gen-key -n client.bootstrap-osd --cap mon 'profile bootstrap-osd' --cap mgr 'allow r'
map=$new/monmap
monmaptool --create --fsid "$fsid" --enable-all-features "$map" >/dev/null
while [ $# -ge 2 ]; do
  monmaptool --addv "$1" "$2" "$map" >/dev/null
  shift 2
done
chown -R ceph:ceph "$new"
# It must be on disk before anybody uses it: a second set of keys would make a second cluster.
sync -f "$new"
mv -T "$new" "$seed"
sync -f "$seed"
