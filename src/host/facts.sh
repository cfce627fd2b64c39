# Says what a host is, in sections that begin with "@@ NAME". Only looks; needs nothing but a stock installation.
# Every process started here costs a millisecond on every host: so one grep reads all files (as PATH:LINE), what is
# not there is not asked for, and the shell does itself what it can.
LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL PATH
# A block is read to its end before it runs: bash would look for the rest of the script in the new stdin.
{
    echo '@@ begin 2'

    echo '@@ time'
    date +%s.%N
    [ -e /run/systemd/timesync/synchronized ] && echo timesyncd
    command -v chronyc >/dev/null && timeout 2 chronyc -c -n tracking

    echo '@@ files'
    # All lines without a tab; of /proc/cpuinfo, whose lines have one, what matters.
    tab='	'
    grep -sHoE "^[^$tab]*\$|^(processor|model name|physical id|core id)$tab.*|\<(vmx|svm|hypervisor)\>" \
        /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name /sys/class/dmi/id/product_serial \
        /sys/class/dmi/id/product_uuid /sys/class/dmi/id/bios_version \
        /proc/sys/kernel/hostname /proc/sys/kernel/osrelease /proc/sys/kernel/arch \
        /proc/sys/kernel/random/boot_id /proc/uptime /proc/cpuinfo /proc/meminfo \
        /etc/os-release /run/systemd/container \
        /sys/class/net/*/speed /sys/class/net/*/device/numa_node /sys/class/net/*/device/uevent \
        /sys/class/infiniband/*/ports/*/rate /sys/class/infiniband/*/ports/*/state \
        /sys/class/infiniband/*/ports/*/link_layer \
        /sys/devices/system/node/node*/cpulist /sys/devices/system/node/node*/meminfo

    echo '@@ hardware'
    # Kernels before 6.1 have no file for it.
    [ -e /proc/sys/kernel/arch ] || uname -m
    [ -c /dev/kvm ] && true <>/dev/kvm && echo kvm

    echo '@@ net'
    ip -j -d addr
    echo

    echo '@@ links'
    printf '%s\n' /sys/class/infiniband/*/device/net/*
    directories=
    for directory in /dev/disk/by-id /dev/disk/by-path /dev/mapper; do
        [ -d $directory ] && directories="$directories $directory"
    done
    [ -n "$directories" ] && find $directories -maxdepth 1 -type l -printf '%p %l\n'

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
        [ -b "$name" ] || continue
        echo "node $name"
        # What cannot be read is not taken for empty.
        if true <"$name"; then nodes="$nodes $name"; else echo "${name##*/} unreadable"; fi
    done
    if [ -n "$nodes" ] && ! found=$(wipefs --noheadings -n -O DEVICE,TYPE $nodes); then
        # One that cannot be read after all makes wipefs give up on the rest.
        found=$(for node in $nodes; do
            wipefs --noheadings -n -O DEVICE,TYPE "$node" || echo "${node##*/} unreadable"
        done)
    fi
    echo "$found"
    # What no one knows by a signature may be data all the same: a disk is empty when its first MiB is.
    for node in $nodes; do
        [ -e "/sys/class/block/${node##*/}/partition" ] && continue
        case "
$found " in *"
${node##*/} "*) continue ;; esac
        cmp -s -n 1048576 "$node" /dev/zero || echo "${node##*/} unknown-data"
    done
    echo '@@ labels'
    # Of Ceph's disks: names and values of printable characters, each after its binary length.
    osds=
    for node in $nodes; do
        case "
$found " in *"
${node##*/} "*ceph_bluestore*) osds="$osds $node" ;; esac
    done
    [ -n "$osds" ] && head -v -c 4096 $osds | tr -cs '[:alnum:]_/.-' '\n' | grep -A1 -xE '/dev/.*|ceph_fsid'

    echo '@@ software'
    for program in ceph ceph-osd libvirtd virtqemud qemu-system-x86_64; do
        command -v $program >/dev/null || continue
        if [ -r /var/lib/dpkg/status ]; then
            # dpkg-query reads every package there is, a quarter of the whole script's time. The fields before the
            # version are at most 13.
            grep -A13 -xE 'Package: (ceph-common|ceph-osd|libvirt-daemon|qemu-system-x86)' /var/lib/dpkg/status
        else
            rpm -q --qf 'Package: %{NAME}\nStatus: install ok installed\nVersion: %{VERSION}-%{RELEASE}\n' \
                ceph-common ceph-osd libvirt-daemon qemu-kvm-core
        fi
        break
    done

    echo '@@ space'
    df -Pk / /var/lib

    echo '@@ end'
} 2>/dev/null </dev/null
