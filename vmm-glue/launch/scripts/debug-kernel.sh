#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Makes the component of the debug kernel. Runs inside a prepared root file system with compilers, in
# its own namespaces, with the component's directory as /mnt: the source's package in /mnt/packages,
# the configuration in /mnt/debug.config, result in /mnt.
#
# usage: debug-kernel.sh [LLVM=1]
#
#   LLVM=1    compile with clang
set -eu

source=/mnt/build/source
objects=/mnt/build/objects
compiler=${1:-}
objcopy=${compiler:+llvm-}objcopy

step() {
    echo "==> $*"
}

kernel_make() {
    make --silent -C "$source" O="$objects" ARCH=x86 $compiler \
        KBUILD_BUILD_USER=svm-demo KBUILD_BUILD_HOST=svm-demo "$@"
}

sh /mnt/source.sh /mnt/packages "$source" all

step "configuring"
mkdir -p "$objects"
kernel_make rustavailable
kernel_make KCONFIG_ALLCONFIG=/mnt/debug.config allnoconfig
# An option whose conditions are not met is dropped without a word. One below a line "Not in" may be
# unknown to a series, but not dropped.
sed -n '/^# Not in /{n;s/^\(CONFIG_[A-Z0-9_]*\)=.*/absent \1 &/p;d;}
    s/^\(CONFIG_[A-Z0-9_]*\)=.*/present \1 &/p' /mnt/debug.config >/mnt/build/wanted
is_known() {
    grep -rqsE --include='Kconfig*' "^(menu)?config[[:space:]]+${1#CONFIG_}\$" "$source"
}
while read -r may name line; do
    case $line in
    *=n) ! grep -q "^$name=" "$objects/.config" ;;
    *) grep -qxF "$line" "$objects/.config" ;;
    esac || { [ "$may" = absent ] && ! is_known "$name"; } || echo "$line"
done </mnt/build/wanted >/mnt/build/missing
if [ -s /mnt/build/missing ]; then
    echo "the kernel's source does not give these options of debug.config:" >&2
    cat /mnt/build/missing >&2
    exit 1
fi

step "compiling the kernel"
# One process more than processors: some wait for the disk.
kernel_make -j"$(($(nproc) + 1))" bzImage modules
release=$(cat "$objects/include/config/kernel.release")

step "keeping what boots, and what builds modules"
cp "$objects/arch/x86/boot/bzImage" /mnt/vmlinuz
"$objcopy" --strip-all "$objects/vmlinux" /mnt/vmlinux
cp "$objects/System.map" /mnt/System.map
headers=/mnt/usr/src/linux-headers-$release
kernel_make run-command \
    KBUILD_RUN_COMMAND="\$(srctree)/scripts/package/install-extmod-build $headers"
# That command leaves out what Rust needs.
mkdir -p "$headers/rust"
cp "$objects"/rust/*.rmeta "$objects"/rust/*.so "$headers/rust/"
cp "$objects/.config" "$headers/.config"
echo "$release" >/mnt/release
