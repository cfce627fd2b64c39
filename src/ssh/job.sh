# Starts, looks at or removes a detached job. Arguments: start|look|forget, name, then what the verb needs.
# A job is the unit rackhand-NAME.service; its traces are files in $dir: NAME.log (made at the start),
# NAME.sh (the script, gone when it ended) and NAME.end (how it ended). $dir is on tmpfs: a reboot clears it.
set -eu
umask 077
dir=/run/rackhand/jobs
mkdir -p "$dir"
cd "$dir"
name=$2
unit="rackhand-$name.service"

active() {
    # While systemd executes itself anew it does not answer; that is no sign that the unit has ended.
    tries=0
    until now=$(systemctl show -p ActiveState --value "$unit") && [ -n "$now" ]; do
        tries=$((tries + 1))
        if [ "$tries" -ge 50 ]; then
            echo "systemd does not answer" >&2
            exit 1
        fi
        sleep 0.2
    done
    case $now in
    active | activating | deactivating | reloading) return 0 ;;
    *) return 1 ;;
    esac
}

state() {
    # The order matters: the end is written before the unit becomes inactive.
    if active; then
        echo running
    elif [ -e "$name.end" ]; then
        echo "ended $(cat "$name.end")"
    elif [ -e "$name.log" ]; then
        echo died
    else
        echo absent
    fi
}

case $1 in
start)
    exec 9>lock
    flock 9
    now=$(state)
    if [ "$now" = absent ]; then
        cat >"$name.sh"
        got=$(stat -c %s "$name.sh")
        if [ "$got" != "$4" ]; then
            rm -f "$name.sh"
            echo "only $got of $4 bytes of the script arrived" >&2
            exit 1
        fi
        chmod 0700 "$name.sh"
        : >"$name.log"
        # A file, not a line of the unit: a reload of systemd in between would write the dollars of that line anew, doubled.
        cat >finish.new <<'END'
echo "$SERVICE_RESULT $EXIT_CODE $EXIT_STATUS" >"$1.new"
mv "$1.new" "$1.end"
rm -f "$1.sh"
END
        mv finish.new finish
        if ! systemd-run --quiet --collect --unit="$unit" \
            -p RuntimeMaxSec="$3" -p TimeoutStopSec=20 -p StandardInput=null \
            -p StandardOutput="append:$dir/$name.log" -p StandardError="append:$dir/$name.log" \
            -p "ExecStopPost=/bin/sh $dir/finish $dir/$name" \
            /bin/sh "$dir/$name.sh" 9>&- >&2; then
            rm -f "$name.sh" "$name.log"
            exit 1
        fi
        now=started
    fi
    echo "$now"
    ;;
look)
    state
    [ ! -e "$name.log" ] || tail -c 16384 "$name.log"
    ;;
forget)
    exec 9>lock
    flock 9
    now=$(state)
    if [ "$now" = running ]; then
        # It may end by itself in between; then there is nothing to stop.
        systemctl stop "$unit" >&2 || if active; then exit 1; fi
    fi
    rm -f "$name.sh" "$name.log" "$name.end"
    echo "$now"
    ;;
esac
