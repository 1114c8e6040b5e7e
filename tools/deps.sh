#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Install the Debian packages named as arguments that are missing. Silent when nothing is missing.
# Uses apt-get as root, or through sudo; where neither works, says in one line what to install.

missing=
for package in "$@"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    as_root=sudo
else
    echo "deps: please install as root: apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi

echo "deps: installing$missing"
log=$(mktemp)
install() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
}
if install >"$log" 2>&1 || { $as_root apt-get update -qq && install; } >>"$log" 2>&1; then
    rm -f "$log"
    exit 0
fi
cat "$log" >&2
rm -f "$log"
echo "deps: failed; please install as root: apt-get install -y --no-install-recommends$missing" >&2
exit 1
