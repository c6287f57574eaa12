# SPDX-License-Identifier: MIT OR Apache-2.0
# Runs Linux's selftests of IOMMUFD and VFIO in a guest that is a host. The device is that of the
# guest, and vfio-pci's for the time.
#
# usage: run.sh PROGRAM...   (of the directory selftests beside it)
device=0000:00:01.0
sys=/sys/bus/pci/devices/$device
echo vfio-pci >$sys/driver_override
echo $device >$sys/driver/unbind
echo $device >/sys/bus/pci/drivers_probe

# The tests map a GiB of shared memory again and again: in large pages that takes a fraction.
echo always >/sys/kernel/mm/transparent_hugepage/shmem_enabled
echo 64 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages

cd "$(dirname "$0")/selftests" || exit 1
for program; do
    case $program in
    vfio_*) arguments=$device ;;
    *) arguments= ;;
    esac
    echo "program $program"
    # shellcheck disable=SC2086
    ./$program $arguments 2>&1
    echo "exit $?"
done
