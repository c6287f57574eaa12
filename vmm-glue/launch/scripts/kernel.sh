#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Makes the kernel component. Runs inside the prepared root, in its own namespaces, with the
# component's directory as /mnt: packages in /mnt/packages, result in /mnt.
#
# usage: kernel.sh RELEASE MODULE...
#
# The distribution's headers lack the Rust metadata that its kernel was built with. It is made
# anew from the distribution's own source with the distribution's own compiler, and compared with
# the symbols that the kernel exports: if those are equal, modules built against it fit.
set -eu

release=$1
shift
source=/mnt/build/source
objects=/mnt/build/objects
headers=/mnt/usr/src/linux-headers-$release

step() {
    echo "==> $*"
}

step "unpacking the packages"
mkdir -p /mnt/build/packages /mnt/modules "$objects"
for package in headers kbuild; do
    for file in /mnt/packages/linux-$package-*.deb; do
        dpkg-deb --extract "$file" /mnt
    done
done
for package in binary modules; do
    dpkg-deb --extract /mnt/packages/linux-$package-*.deb /mnt/build/packages
done
cp /mnt/build/packages/usr/lib/modules/"$release"/vmlinuz /mnt/vmlinuz
# The headers refer to /usr/lib/linux-kbuild-*; moved beside them, /usr/src is all they need.
for kbuild in /mnt/usr/lib/linux-kbuild-*; do
    name=${kbuild##*/}
    rm -f "/mnt/usr/src/$name"
    mv "$kbuild" "/mnt/usr/src/$name"
    for link in /mnt/usr/src/linux-headers-*/scripts /mnt/usr/src/linux-headers-*/tools; do
        [ ! -L "$link" ] || ln -sfn "../$name/${link##*/}" "$link"
    done
done

step "choosing the modules: $*"
ln -s usr/lib /mnt/build/packages/lib
depmod --basedir /mnt/build/packages "$release"
: >/mnt/modules/order
for module in "$@"; do
    modprobe --dirname /mnt/build/packages --set-version "$release" --show-depends "$module" |
        while read -r kind path _; do
            [ "$kind" = insmod ] || continue
            name=$(basename "${path%%.ko*}")
            [ -e "/mnt/modules/$name.ko" ] && continue
            case $path in
            *.xz) xz --decompress --stdout "$path" >"/mnt/modules/$name.ko" ;;
            *.zst) zstd --decompress --stdout "$path" >"/mnt/modules/$name.ko" ;;
            *) cp "$path" "/mnt/modules/$name.ko" ;;
            esac
            echo "$name" >>/mnt/modules/order
        done
done
rm -rf /mnt/build/packages/usr/lib/modules

step "comparing the compilers with the kernel's"
configured() {
    sed -n "s/^CONFIG_$1=\"\(.*\)\"\$/\1/p" "$headers/.config"
}
compiler=$(configured CC_VERSION_TEXT)
compiler=${compiler%% *}
command -v "$compiler" >/dev/null || {
    echo "the kernel was built with $compiler, which the prepared root does not have" >&2
    exit 1
}
# The metadata is of use to this one version only.
rustc=$(configured RUSTC_VERSION_TEXT)
[ "$(rustc --version)" = "$rustc" ] || {
    echo "the kernel was built with $rustc, and the prepared root has $(rustc --version)" >&2
    exit 1
}

sh /mnt/source.sh /mnt/packages "$source"

step "unpacking the kernel's image"
# Translated code unpacks slowly: a guest without KVM starts two seconds sooner without.
"$source/scripts/extract-vmlinux" /mnt/vmlinuz >/mnt/vmlinux

step "making the Rust metadata"
cp "$headers/.config" "$objects/.config"
# Objtool, resolve_btfids and debug information check and extend what is linked into a kernel; of this
# nothing is. The configuration that the metadata sees stays the kernel's.
kernel_make() {
    make -C "$source" O="$objects" ARCH=x86 CROSS_COMPILE=x86_64-linux-gnu- \
        CC="$compiler" KERNELRELEASE="$release" \
        CONFIG_OBJTOOL= CONFIG_DEBUG_INFO= CONFIG_DEBUG_INFO_BTF= "$@"
}
kernel_make rustavailable
if ! kernel_make -j"$(nproc)" modules_prepare; then
    step "trying again with all of the source"
    sh /mnt/source.sh /mnt/packages "$source" all
    kernel_make -j"$(nproc)" modules_prepare
fi

step "comparing the symbols of the metadata with the kernel's"
cat "$objects"/rust/exports_*_generated.h | grep -oE '_RN[A-Za-z0-9_]+' |
    sort -u >/mnt/build/expected
awk '$2 ~ /^_RN/ { print $2 }' "$headers/Module.symvers" | sort -u >/mnt/build/exported
[ -s /mnt/build/exported ] || {
    echo "the kernel exports no Rust symbol: it was built without CONFIG_RUST" >&2
    exit 1
}
comm -23 /mnt/build/expected /mnt/build/exported >/mnt/build/missing
if [ -s /mnt/build/missing ]; then
    echo "the kernel does not export these symbols that the metadata refers to:" >&2
    head -n 5 /mnt/build/missing >&2
    exit 1
fi
echo "$(wc -l </mnt/build/expected) symbols agree"

mkdir -p "$headers/rust"
cp "$objects"/rust/*.rmeta "$objects"/rust/*.so "$headers/rust/"
cp "$objects/scripts/target.json" "$headers/scripts/target.json"
