#!/bin/sh
# Removes what install.sh installed.
#
#   uninstall.sh [--prefix DIR] [--purge]
#
# With --purge the configuration and the state go as well, now or after an uninstall that left them. Directories go if install.sh made them and nothing else is in them.
set -eu

prefix=/usr/local
purge=no
while [ $# -gt 0 ]; do
    case $1 in
    --prefix)
        [ $# -ge 2 ] || { echo "uninstall.sh: --prefix takes a directory" >&2; exit 2; }
        prefix=$2
        shift 2
        ;;
    --purge)
        purge=yes
        shift
        ;;
    *)
        echo "usage: uninstall.sh [--prefix DIR] [--purge]" >&2
        exit 2
        ;;
    esac
done
root=${DESTDIR:-}
notes=$root$prefix/share/nitro-agent/installed

if [ ! -f "$notes" ] && [ "$purge" = no ]; then
    echo "uninstall.sh: nothing was installed below $prefix: no $notes" >&2
    exit 1
fi
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemctl disable --now --quiet nitro-agent.service || true
fi

# The last first; directories once they are empty.
list=$(mktemp)
trap 'rm -f "$list"' EXIT
[ ! -f "$notes" ] || tac "$notes" >"$list"
if [ "$purge" = yes ]; then
    rm -f "$root/etc/nitro-agent/nitro-agent.conf"
    rmdir --ignore-fail-on-non-empty "$root/etc/nitro-agent" 2>/dev/null || true
    rm -rf "$root/var/lib/private/nitro-agent" "$root/var/lib/nitro-agent" "$root/run/nitro-agent"
fi
grep -v '/$' "$list" | while IFS= read -r path; do
    rm -f "$root$path"
done
grep '/$' "$list" | while IFS= read -r path; do
    [ ! -d "$root$path" ] || rmdir --ignore-fail-on-non-empty "$root${path%/}"
done

if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
