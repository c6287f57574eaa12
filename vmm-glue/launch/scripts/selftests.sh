#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Makes the component of Linux's own selftests of VFIO and IOMMUFD: programs without libraries. Runs
# inside the prepared root, with the component's directory as /mnt: the packages of the kernel's
# source and of two libraries in /mnt/packages, and the driver of the device with its header.
set -eu

work=/mnt/build
source=$work/source
libraries=$work/libraries

step() {
    echo "==> $*"
}

step "unpacking the source"
mkdir -p "$source" "$libraries"
package=$(echo /mnt/packages/linux-source-*.deb)
name=${package##*/}
name=${name%%_*}
set -f
dpkg-deb --fsys-tarfile "$package" |
    tar --extract --to-stdout --wildcards "./usr/src/$name.tar.xz" |
    xz --decompress --threads=0 --stdout |
    tar --extract --directory "$source" --strip-components=1 --wildcards --anchored \
        "$name/Makefile" "$name/Kbuild" "$name/scripts/*" "$name/include/*" "$name/arch/x86/*" \
        "$name/drivers/iommu/iommufd/*.h" "$name/tools/include/*" "$name/tools/scripts/*" \
        "$name/tools/testing/selftests/*"
set +f
for library in /mnt/packages/libcap-dev_*.deb /mnt/packages/uuid-dev_*.deb; do
    dpkg-deb --extract "$library" "$libraries"
done

step "installing the kernel's headers"
make --silent -C "$source" O="$work/objects" ARCH=x86 headers

step "compiling"
tests=$source/tools/testing/selftests
vfio=$tests/vfio
# The device's driver takes the place of all others in their library.
sed -e '/^extern struct vfio_pci_driver_ops/d' -e '/^#if/d' -e '/^#endif/d' \
    -e '/&[a-z_]*_ops,/d' \
    -e 's/^static struct vfio_pci_driver_ops \*driver_ops\[\].*/extern struct vfio_pci_driver_ops svm_demo_ops;\n&\n\t\&svm_demo_ops,/' \
    "$vfio/lib/vfio_pci_driver.c" >"$vfio/lib/driver_of_the_device.c"
grep -q '&svm_demo_ops,' "$vfio/lib/driver_of_the_device.c"
rm "$vfio/lib/vfio_pci_driver.c"
cp /mnt/svm_demo.c "$vfio/lib/"

compile() {
    output=$1
    shift
    gcc -O1 -w -D_GNU_SOURCE= -pthread -static -isystem "$work/objects/usr/include" \
        -isystem "$libraries/usr/include" -I "$source/tools/include" -I "$vfio/lib/include" \
        -I "$tests" -I /mnt "$@" -L "$libraries/usr/lib/x86_64-linux-gnu" -luuid -lcap \
        -o "/mnt/programs/$output"
}

mkdir /mnt/programs
for test in vfio_pci_device_test vfio_iommufd_setup_test vfio_dma_mapping_test \
    vfio_dma_mapping_mmio_test vfio_pci_driver_test; do
    compile "$test" "$vfio/$test.c" "$vfio"/lib/*.c
done
for test in iommufd iommufd_fail_nth; do
    compile "$test" "$tests/iommu/$test.c"
done
