#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Unpacks a kernel's source, unless that is done already. Runs inside the prepared root, or on a host
# that has xz while the root is still being made.
#
# usage: source.sh PACKAGES SOURCE
#
#   PACKAGES  the directory with the source's package
#   SOURCE    the directory to be made
#
# All of it is unpacked: what a build reads, for modules or with few drivers, differs from series to
# series, and nothing but the build itself knows it.
set -eu

packages=$1
source=$2
[ -d "$source" ] && exit

echo "==> unpacking the source"
rm -rf "$source.partial"
mkdir -p "$source.partial"
dpkg-deb --fsys-tarfile "$packages"/linux-source-*.deb |
    tar --extract --to-stdout --wildcards './usr/src/linux-source-*.tar.xz' |
    xz --decompress --threads=0 --stdout |
    tar --extract --directory "$source.partial" --strip-components=1
[ -f "$source.partial/Makefile" ]
mv "$source.partial" "$source"
