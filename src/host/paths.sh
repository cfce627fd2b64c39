# Tries the ways from this host to others. Arguments: how many at once, then for each way "ping:ID:ADDRESS:BYTES" or "name:NAME".
# Answers a line each: "ping ID whole|small|none|untried" or "name NAME ADDRESS...".
LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL PATH
batch=$1
shift

try_ping() {
    id=${1%%:*}
    rest=${1#*:}
    bytes=${rest##*:}
    address=${rest%:*}
    # Unfragmentable and of full size first; a small one tells a wrong MTU from no way at all.
    if ping -n -q -c 3 -i 0.2 -w 3 -M do -s "$bytes" "$address" | grep -q ' [1-9][0-9]* received'; then
        echo "ping $id whole"
    elif ping -n -q -c 2 -i 0.2 -w 2 "$address" | grep -q ' [1-9][0-9]* received'; then
        echo "ping $id small"
    else
        echo "ping $id none"
    fi
}

# A block is read to its end before it runs: bash would look for the rest of the script in the new stdin.
{
    # All at once would be three processes for every host of the rack.
    started=0
    for way in "$@"; do
        started=$((started + 1))
        [ $((started % batch)) -ne 0 ] || wait
        case $way in
        ping:*)
            if command -v ping >/dev/null; then
                try_ping "${way#ping:}" &
            else
                id=${way#ping:}
                echo "ping ${id%%:*} untried"
            fi
            ;;
        name:*) (echo "name ${way#name:}" $(timeout 3 getent ahosts "${way#name:}" | cut -d' ' -f1 | sort -u)) & ;;
        esac
    done
    wait
    echo end
} 2>/dev/null </dev/null
