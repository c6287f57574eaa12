#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Makes the Rust metadata of a distribution's kernel, which its headers lack and modules in Rust
# need, and adds it to the headers.
#
# usage: rust-metadata.sh RELEASE SOURCE [OBJECTS]
#
#   RELEASE  release of the kernel, as `uname -r` prints it; its headers are installed
#   SOURCE   the unpacked source that the kernel was built from (linux-source-7.3 and the like)
#   OBJECTS  directory for what is made on the way [default: a temporary one]
#
# It is made from the same source, configuration and compilers as the kernel was, and compared with
# the symbols that the kernel exports: if those are equal, modules that are built against it fit.
set -eu

[ $# -ge 2 ] || {
    sed -n 's/^# \{0,1\}//; 3,12p' "$0" >&2
    exit 2
}
release=$1
source=$2
headers=/lib/modules/$release/build
[ -f "$headers/.config" ] || {
    echo "$headers has no .config: install the headers of $release" >&2
    exit 1
}
[ -f "$source/rust/Makefile" ] || {
    echo "$source is no kernel source: unpack the source package of $release there" >&2
    exit 1
}
grep -q '^CONFIG_RUST=y' "$headers/.config" || {
    echo "the kernel $release was built without CONFIG_RUST: no module in Rust fits it" >&2
    exit 1
}
compiler=$(sed -n 's/^CONFIG_CC_VERSION_TEXT="\([^ ]*\) .*/\1/p' "$headers/.config")
command -v "$compiler" >/dev/null || {
    echo "the kernel $release was built with $compiler, which is not installed" >&2
    exit 1
}
if [ $# -ge 3 ]; then
    objects=$3
    mkdir -p "$objects"
else
    objects=$(mktemp -d)
    trap 'rm -rf "$objects"' EXIT
fi

cp "$headers/.config" "$objects/.config"
kernel_make() {
    make -C "$source" O="$objects" CC="$compiler" KERNELRELEASE="$release" "$@"
}
kernel_make rustavailable
kernel_make -j"$(nproc)" modules_prepare

cat "$objects"/rust/exports_*_generated.h | grep -oE '_RN[A-Za-z0-9_]+' | sort -u >"$objects/expected"
awk '$2 ~ /^_RN/ { print $2 }' "$headers/Module.symvers" | sort -u >"$objects/exported"
comm -23 "$objects/expected" "$objects/exported" >"$objects/missing"
if [ -s "$objects/missing" ]; then
    echo "$release does not export these symbols: $source is not its source" >&2
    head -n 5 "$objects/missing" >&2
    exit 1
fi

mkdir -p "$headers/rust"
cp "$objects"/rust/*.rmeta "$objects"/rust/*.so "$headers/rust/"
cp "$objects/scripts/target.json" "$headers/scripts/target.json"
echo "$headers has its Rust metadata: $(wc -l <"$objects/expected") symbols agree"
