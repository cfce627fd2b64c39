# Says what a host is, in sections that begin with "@@ NAME". Only looks; needs nothing but a stock installation.
# Every process started here costs on every host: so files are read many at a time (grep -sH prints PATH:LINE), and
# the shell does itself what it can.
LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL PATH
exec 2>/dev/null </dev/null
echo '@@ begin 1'

echo '@@ time'
date +%s.%N
[ -e /run/systemd/timesync/synchronized ] && echo timesyncd
command -v chronyc >/dev/null && timeout 2 chronyc -c -n tracking

echo '@@ files'
cd /sys/class/dmi/id
grep -sH '' sys_vendor product_name product_serial product_uuid bios_version \
    /proc/sys/kernel/hostname /proc/sys/kernel/osrelease /proc/sys/kernel/random/boot_id /proc/uptime \
    /run/systemd/container /sys/class/net/*/speed /sys/class/net/*/device/numa_node \
    /sys/class/infiniband/*/ports/*/rate /sys/class/infiniband/*/ports/*/state \
    /sys/class/infiniband/*/ports/*/link_layer \
    /sys/devices/system/node/node*/cpulist /sys/devices/system/node/node*/meminfo
cd /

echo '@@ hardware'
grep -hE '^(processor|model name|physical id|core id|MemTotal|MemAvailable|SwapTotal|HugePages_Total|Hugepagesize)' \
    /proc/cpuinfo /proc/meminfo
grep -m1 -owE 'vmx|svm|hypervisor' /proc/cpuinfo
if [ -c /dev/kvm ] && (: <>/dev/kvm); then echo kvm; fi

echo '@@ os'
(
    . /etc/os-release
    echo "ID=$ID"
    echo "VERSION_ID=$VERSION_ID"
    echo "PRETTY_NAME=$PRETTY_NAME"
)
echo "MACHINE=$(uname -m)"

echo '@@ net'
ip -j -d addr
echo

echo '@@ links'
printf '%s\n' /sys/class/infiniband/*/device/net/*
find /dev/disk/by-id /dev/disk/by-path /dev/mapper /sys/class/net/*/device/driver -maxdepth 1 -type l -printf '%p %l\n'

echo '@@ block'
lsblk -J -b -o NAME,PATH,TYPE,SIZE,ROTA,MODEL,SERIAL,TRAN,FSTYPE,LABEL,MOUNTPOINT,RO

echo '@@ content'
# A container sees every loop device of its machine, but has nodes for its own alone.
nodes=
for device in /sys/class/block/*; do
    name=/dev/${device##*/}
    case $name in /dev/sr* | /dev/zram* | /dev/ram* | /dev/fd*) continue ;; esac
    read -r size <"$device/size" && [ "$size" != 0 ] || continue
    case $name in /dev/loop*) [ -e "$device/loop/backing_file" ] || [ -e "$device/partition" ] || continue ;; esac
    if [ -e "$device/dm/name" ] && read -r mapped <"$device/dm/name"; then name=/dev/mapper/$mapped; fi
    [ -b "$name" ] && nodes="$nodes $name"
done
for node in $nodes; do echo "node $node"; done
signatures() { wipefs --noheadings -n -O DEVICE,TYPE "$@"; }
# One that cannot be read makes wipefs give up on the rest.
if ! found=$(signatures $nodes); then
    found=$(for node in $nodes; do signatures "$node"; done)
fi
echo "$found"
# The labels of Ceph's disks: names and values of printable characters, each after its binary length.
for node in $nodes; do
    case "
$found " in *"
${node##*/} "*ceph_bluestore*)
        printf '\nlabel\n%s\n' "${node##*/}"
        head -c 4096 "$node"
        ;;
    esac
done | tr -cs '[:alnum:]_-' '\n' | grep -A1 -xE 'label|ceph_fsid'

echo '@@ software'
for program in ceph ceph-osd libvirtd virtqemud qemu-system-x86_64; do
    command -v $program >/dev/null || continue
    if command -v dpkg-query >/dev/null; then
        dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' ceph-common ceph-osd libvirt-daemon qemu-system-x86
    else
        rpm -q --qf 'installed %{NAME} %{VERSION}-%{RELEASE}\n' ceph-common ceph-osd libvirt-daemon qemu-kvm-core
    fi
    break
done

echo '@@ space'
df -Pk / /var/lib

echo '@@ end'
