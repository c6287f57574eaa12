// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The device for Linux's own selftests of VFIO (tools/testing/selftests/vfio): a driver of their
 * library. It copies memory by descriptors, and sends an interrupt by a descriptor that does nothing.
 * The device's context has no PASID, so its addresses are those that VFIO maps. docs/device.md explains
 * the device.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include <libvfio.h>

#include "svm_demo.h"

/* Registers of context 0, in BAR 0. */
#define CONTEXT 0x1000
#define CONTROL 0x00
#define STATUS 0x08
#define PASID 0x10
#define RING 0x18
#define RING_LOG2 0x20
#define VECTOR 0x28

#define CONTROL_START 1
#define CONTROL_STOP 2
#define PASID_NONE (1UL << 29)
#define VECTOR_ENABLED (1UL << 31)
#define STATE(status) ((status) & 0xff)

/* Which of BAR 2's pages is the doorbell of context 0, and its MSI-X vector. */
#define DOORBELL_BAR 2
#define MSIX_VECTOR 0

#define RING_ENTRIES_LOG2 11
#define RING_ENTRIES (1UL << RING_ENTRIES_LOG2)

/* One descriptor more ends a series of copies. */
#define MAX_COPIES 1024
#define MAX_COPY (1UL << 20)

/* What the device and this driver keep in the memory that the library gives to a driver. */
struct shared {
	struct svm_demo_descriptor descriptors[RING_ENTRIES];
	struct svm_demo_completion ended;
	struct svm_demo_ring ring;
	__u64 failed;
};

static struct shared *shared(struct vfio_pci_device *device)
{
	return device->driver.region.vaddr;
}

static volatile __u64 *context_register(struct vfio_pci_device *device, unsigned int offset)
{
	return (volatile __u64 *)((char *)device->bars[0].vaddr + CONTEXT + offset);
}

static __u64 failed_descriptors(struct vfio_pci_device *device)
{
	return svm_demo_register(shared(device)->ring.doorbell, SVM_DEMO_DOORBELL_COUNTERS +
				 SVM_DEMO_COUNTER_FAILED_DESCRIPTORS * sizeof(__u64));
}

static void await_state(struct vfio_pci_device *device, enum svm_demo_state state)
{
	while (STATE(*context_register(device, STATUS)) != state)
		sched_yield();
}

static void push(struct vfio_pci_device *device, const struct svm_demo_descriptor *descriptor)
{
	VFIO_ASSERT_EQ(svm_demo_push(&shared(device)->ring, descriptor), 0);
}

/* Pushes a descriptor that moves no data and leaves a record, and submits all. */
static void push_last(struct vfio_pci_device *device, __u8 operation, __u8 flags)
{
	struct svm_demo_descriptor last = {
		.operation = operation,
		.flags = flags,
		.completion = to_iova(device, &shared(device)->ended),
	};

	shared(device)->ended.status = SVM_DEMO_STATUS_PENDING;
	push(device, &last);
	svm_demo_submit(&shared(device)->ring);
}

static void await_last(struct vfio_pci_device *device)
{
	while (svm_demo_status(&shared(device)->ended) == SVM_DEMO_STATUS_PENDING)
		sched_yield();
}

static int svm_demo_probe(struct vfio_pci_device *device)
{
	if (!vfio_pci_device_match(device, SVM_DEMO_VENDOR_ID, SVM_DEMO_DEVICE_ID))
		return -EINVAL;
	return 0;
}

static void svm_demo_init(struct vfio_pci_device *device)
{
	struct vfio_pci_driver *driver = &device->driver;

	VFIO_ASSERT_GE(driver->region.size, sizeof(struct shared));
	vfio_pci_device_reset(device);
	vfio_pci_cmd_set(device, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);

	memset(shared(device), 0, sizeof(struct shared));
	shared(device)->ring = (struct svm_demo_ring){
		.descriptors = shared(device)->descriptors,
		.doorbell = device->bars[DOORBELL_BAR].vaddr,
		.entries = RING_ENTRIES,
	};
	*context_register(device, PASID) = PASID_NONE;
	*context_register(device, RING) = to_iova(device, shared(device)->descriptors);
	*context_register(device, RING_LOG2) = RING_ENTRIES_LOG2;
	*context_register(device, VECTOR) = MSIX_VECTOR | VECTOR_ENABLED;
	*context_register(device, CONTROL) = CONTROL_START;
	await_state(device, SVM_DEMO_STATE_ENABLED);

	vfio_pci_msix_enable(device, MSIX_VECTOR, 1);
	driver->msi = MSIX_VECTOR;
	driver->max_memcpy_size = MAX_COPY;
	driver->max_memcpy_count = MAX_COPIES;
}

static void svm_demo_remove(struct vfio_pci_device *device)
{
	*context_register(device, CONTROL) = CONTROL_STOP;
	await_state(device, SVM_DEMO_STATE_DISABLED);
	vfio_pci_msix_disable(device);
	vfio_pci_device_reset(device);
}

static void svm_demo_memcpy_start(struct vfio_pci_device *device, iova_t src, iova_t dst, u64 size,
				  u64 count)
{
	struct svm_demo_descriptor copy = {
		.operation = SVM_DEMO_OP_COPY,
		.source = src,
		.destination = dst,
		.length = size,
	};

	shared(device)->failed = failed_descriptors(device);
	for (u64 i = 0; i < count; i++)
		push(device, &copy);
	push_last(device, SVM_DEMO_OP_DRAIN, 0);
}

static int svm_demo_memcpy_wait(struct vfio_pci_device *device)
{
	await_last(device);
	return failed_descriptors(device) == shared(device)->failed ? 0 : -EIO;
}

static void svm_demo_send_msi(struct vfio_pci_device *device)
{
	push_last(device, SVM_DEMO_OP_NOP, SVM_DEMO_FLAG_INTERRUPT);
	await_last(device);
}

const struct vfio_pci_driver_ops svm_demo_ops = {
	.name = "svm-demo",
	.probe = svm_demo_probe,
	.init = svm_demo_init,
	.remove = svm_demo_remove,
	.memcpy_start = svm_demo_memcpy_start,
	.memcpy_wait = svm_demo_memcpy_wait,
	.send_msi = svm_demo_send_msi,
};
