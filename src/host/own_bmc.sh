# Prints the LAN settings of this host's own BMC as ipmitool has them, and what its web server says to Redfish.
# Only looks; prints nothing where there is no BMC or no ipmitool.
PATH=$PATH:/usr/sbin:/sbin
command -v ipmitool >/dev/null || exit 0
[ -c /dev/ipmi0 ] || [ -c /dev/ipmi/0 ] || [ -c /dev/ipmidev/0 ] || exit 0
settings=$(timeout 10 ipmitool lan print 2>/dev/null) || exit 0
echo "$settings"
address=$(echo "$settings" | sed -n 's/^IP Address  *: *//p')
command -v curl >/dev/null && [ -n "$address" ] || exit 0
curl --silent --insecure --max-time 3 --output /dev/null --write-out 'redfish %{http_code}\n' \
    "https://$address/redfish/v1/"
exit 0
