#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Fetch and unpack one Debian source package without touching the system's package configuration.
#
# usage: fetch_source.sh PACKAGE DIRECTORY
#
# The machine's own package sources (deb822 *.sources or classic *.list) are copied with every
# entry turned into a source entry; lists and cache live under DIRECTORY/PACKAGE.apt, so that several
# may be fetched at once. apt verifies signatures as always. The unpacked tree ends up as
# DIRECTORY/PACKAGE.
set -eu

package=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
apt=$dir/$package.apt
rm -rf "$apt" "$dir/$package.unpack"
mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial" "$dir/$package.unpack"

for file in /etc/apt/sources.list.d/*.sources; do
    [ -f "$file" ] || continue
    sed 's/^Types:.*/Types: deb-src/' "$file" >"$apt/parts/$(basename "$file")"
done
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -f "$file" ] || continue
    sed -nE 's/^[[:space:]]*deb(-src)?[[:space:]]+/deb-src /p' "$file" | sort -u \
        >"$apt/parts/$(basename "$file" .list).list"
done

# Hooks that images install (cache cleaners and the like) must not run on a private update.
cat >"$apt/apt.conf" <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$apt/parts";
Dir::State::lists "$apt/lists";
Dir::Cache "$apt/cache";
APT::Get::List-Cleanup "false";
Acquire::Languages "none";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF
[ "$(id -u)" -ne 0 ] || echo 'APT::Sandbox::User "root";' >>"$apt/apt.conf"

# A foreign archive without source entries makes the update fail in part: what counts is whether
# the package is found afterwards.
apt-get -c "$apt/apt.conf" update -qq >"$apt/update.log" 2>&1 || true
if ! (cd "$dir/$package.unpack" && apt-get -c "$apt/apt.conf" source -qq "$package") >"$apt/source.log" 2>&1; then
    cat "$apt/update.log" "$apt/source.log" >&2
    echo "fetch_source: Debian source package '$package' could not be fetched" >&2
    exit 1
fi
rm -rf "${dir:?}/$package"
mv "$dir/$package.unpack/$package"-*/ "$dir/$package"
rm -rf "$dir/$package.unpack" "$apt"
