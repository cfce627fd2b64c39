# Makes a monitor's store from keys and a map. $1: name; $2: cluster id; $3: directory of keys and map.
set -eu
umask 077
name=$1 fsid=$2 seed=$3
store=/var/lib/ceph/mon/ceph-$name
if [ ! -d "$store/store.db" ]; then
  new=/var/lib/ceph/mon/.rackhand-new
  rm -rf "$new"
  # An empty directory may be there; anything else in it stops here.
  [ ! -d "$store" ] || rmdir "$store"
  ceph-mon --mkfs -i "$name" --mon-data "$new" --monmap "$seed/monmap" --keyring "$seed/keyring" --setuser ceph --setgroup ceph
  echo "$fsid" >"$new/rackhand-fsid"
  chown ceph:ceph "$new/rackhand-fsid"
  sync -f "$new"
  mv -T "$new" "$store"
fi
admin=/etc/ceph/ceph.client.admin.keyring
if [ ! -s "$admin" ] && grep -q '^\[client.admin\]' "$seed/keyring"; then
  awk '/^\[/ { here = $0 == "[client.admin]" } here' "$seed/keyring" >"$admin.new"
  mv "$admin.new" "$admin"
fi
case $seed in
  */rackhand-join) rm -rf "$seed" ;;
esac
