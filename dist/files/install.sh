#!/bin/sh
# Installs nitro-agent from the directory that this script is in.
#
#   install.sh [--prefix DIR]
#
# DIR is /usr/local unless it is said. DESTDIR, if set, comes before every path, and no service is touched then. What is made is noted in
# DIR/share/nitro-agent/installed, which uninstall.sh goes by. A configuration that is there stays as it is.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
prefix=/usr/local
while [ $# -gt 0 ]; do
    case $1 in
    --prefix)
        [ $# -ge 2 ] || { echo "install.sh: --prefix takes a directory" >&2; exit 2; }
        prefix=$2
        shift 2
        ;;
    *)
        echo "usage: install.sh [--prefix DIR]" >&2
        exit 2
        ;;
    esac
done
case $prefix in
/*) ;;
*) echo "install.sh: --prefix must begin with a slash: $prefix" >&2; exit 2 ;;
esac
root=${DESTDIR:-}

(cd "$here" && sha256sum --check --quiet SHA256SUMS)

made=$(mktemp)
trap 'rm -f "$made"' EXIT

# Makes the directories of a path that are missing, and notes them.
folder() {
    [ ! -d "$root$1" ] || return 0
    folder "$(dirname "$1")"
    mkdir "$root$1"
    echo "$1/" >>"$made"
}

# put MODE SOURCE TARGET
put() {
    folder "$(dirname "$3")"
    install -m "$1" "$2" "$root$3"
    echo "$3" >>"$made"
}

# What another run installed and this one does not name is noted still.
notes=$prefix/share/nitro-agent/installed
[ ! -f "$root$notes" ] || cat "$root$notes" >"$made"

put 755 "$here/nitro-agent" "$prefix/bin/nitro-agent"
for page in "$here"/man/*.1; do
    put 644 "$page" "$prefix/share/man/man1/$(basename "$page")"
done
put 644 "$here/completions/nitro-agent.bash" "$prefix/share/bash-completion/completions/nitro-agent"
put 644 "$here/completions/_nitro-agent" "$prefix/share/zsh/site-functions/_nitro-agent"
put 644 "$here/completions/nitro-agent.fish" "$prefix/share/fish/vendor_completions.d/nitro-agent.fish"

unit=$prefix/lib/systemd/system/nitro-agent.service
put 644 "$here/nitro-agent.service" "$unit"
sed -i "s|^ExecStart=/usr/bin/|ExecStart=$prefix/bin/|" "$root$unit"

configuration=/etc/nitro-agent/nitro-agent.conf
if [ ! -e "$root$configuration" ]; then
    folder /etc/nitro-agent
    install -m 644 "$here/nitro-agent.conf" "$root$configuration"
fi

folder "$(dirname "$notes")"
echo "$notes" >>"$made"
# Each name once, where it came first: directories stay before what is in them.
awk '!seen[$0]++' "$made" >"$root$notes"
chmod 644 "$root$notes"

if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable --quiet nitro-agent.service
    systemctl restart nitro-agent.service
    echo "nitro-agent runs; what it watches is said in $configuration"
else
    echo "installed below $root$prefix; the service was not started"
fi
