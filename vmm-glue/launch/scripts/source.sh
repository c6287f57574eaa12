#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Unpacks a kernel's source, unless that is done already. Runs inside the prepared root, or on a host
# that has xz while the root is still being made.
#
# usage: source.sh PACKAGES SOURCE [all]
#
#   PACKAGES  the directory with the source's package
#   SOURCE    the directory to be made
#   all       also what a build for x86 that compiles no driver does not read
#
# What a build reads differs from series to series, and nothing but the build itself knows it: so only
# the code of drivers, of file systems and of other architectures is left out at first, which is more
# than half of all files and most of the bytes. If that does not do, kernel.sh asks for all.
set -eu

packages=$1
source=$2
all=${3:-}
[ -e "$source.all" ] && exit
[ -d "$source" ] && [ -z "$all" ] && exit

package=$(echo "$packages"/linux-source-*.deb)
name=${package##*/}
name=${name%%_*}
set -f
if [ -n "$all" ]; then
    set --
else
    set -- --anchored --exclude="$name/Documentation/*/*.rst" \
        --exclude="$name/drivers/*.c" --exclude="$name/drivers/gpu/drm/*/*.h" \
        --exclude="$name/sound/*.c" --exclude="$name/fs/*/*.c" \
        --exclude="$name/tools/testing/*" --exclude="$name/tools/perf/*" \
        --exclude="$name/arch/[!x]*/*.[chS]" --exclude="$name/arch/[!x]*/*.dts*"
fi

echo "==> unpacking the source"
rm -rf "$source.partial"
mkdir -p "$source.partial"
dpkg-deb --fsys-tarfile "$package" |
    tar --extract --to-stdout --wildcards "./usr/src/$name.tar.xz" |
    xz --decompress --threads=0 --stdout |
    tar --extract --directory "$source.partial" --strip-components=1 --wildcards "$@"
[ -f "$source.partial/Makefile" ]
rm -rf "$source"
mv "$source.partial" "$source"
[ -z "$all" ] || : >"$source.all"
