# Reads the block-style subset of a version 2 network-config that rackhand writes;
# prints one line a NIC: MAC, address, gateway or -, resolver or -.
function flush() {
    if (mac != "" && address != "") print mac, address, (gateway == "" ? "-" : gateway), (resolver == "" ? "-" : resolver)
    mac = address = gateway = resolver = to = list = ""
}
{
    match($0, /^ */)
    indent = RLENGTH
    gsub(/["']/, "")
    sub(/^ */, "")
}
indent == 2 && /:$/ { flush() }
indent == 4 { list = "" }
$1 == "macaddress:" { mac = tolower($2) }
indent == 4 && $1 == "addresses:" { list = "address" }
indent == 6 && $1 == "addresses:" { list = "resolver" }
$1 == "-" && list == "address" && address == "" && $2 ~ /^[0-9.]+\/[0-9]+$/ { address = $2 }
$1 == "-" && list == "resolver" && resolver == "" && $2 ~ /^[0-9.]+$/ { resolver = $2 }
$2 == "to:" { to = $3 }
$1 == "via:" && to ~ /^(default|0\.0\.0\.0\/0)$/ && $2 ~ /^[0-9.]+$/ { gateway = $2 }
END { flush() }
