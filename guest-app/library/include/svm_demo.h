/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The svm-demo device from a C program: ioctls of /dev/svmN, the doorbell page, descriptors and
 * completion records.
 *
 * This is the C version of the crate svm-abi, which is the only source of the interface: the test
 * guest-app/library/tests/header.rs uses a C compiler to compare every name, number, offset and
 * alignment. docs/device.md and docs/device-reference.md explain the parts and how they work
 * together; examples/sum.c is a complete program.
 */
#ifndef SVM_DEMO_H
#define SVM_DEMO_H

#include <linux/types.h>
#include <sys/ioctl.h>

/* PCI identification, and the version of the device that this header describes: major in 15:8. */
#define SVM_DEMO_VENDOR_ID 0x1234
#define SVM_DEMO_DEVICE_ID 0x5356
#define SVM_DEMO_DEVICE_VERSION 0x0102

/* Upper limits of devices; struct svm_demo_info has the values of a device. */
#define SVM_DEMO_MAX_CONTEXTS 256
#define SVM_DEMO_MAX_RING_LOG2 15
#define SVM_DEMO_MAX_TRANSFER_LOG2 32
#define SVM_DEMO_MAX_BATCH_LOG2 10

/*
 * Arguments of ioctls. Each begins with its size in bytes and with flags, which are 0; reserved
 * fields are 0, too. Later versions are longer: a program need not pass fields that it does not
 * know.
 */

/* The program's context and device. The driver fills in all fields except size and flags. */
struct svm_demo_info {
	__u32 size;
	__u32 flags;
	__u32 device_version;
	__u32 context;
	__u32 pasid;
	__u32 contexts;
	__u32 ring_log2_max;
	__u32 transfer_log2_max;
	__u64 operations; /* Bit n: the device performs operation n. */
	__u32 atc_entries;
	__u32 page_requests;
	__u32 batch_log2_max;
	__u32 reserved;
};

/* The submission ring: 2^ring_log2 descriptors at an address aligned to 64 bytes. */
struct svm_demo_queue {
	__u32 size;
	__u32 flags;
	__u64 ring;
	__u32 ring_log2;
	__u32 reserved;
};

/* An eventfd that the driver signals at completion interrupts; -1 detaches. */
struct svm_demo_eventfd {
	__u32 size;
	__u32 flags;
	__s32 fd;
	__u32 reserved;
};

/* One interrupt for count completions, or at the latest this time after the first of them. */
struct svm_demo_moderation {
	__u32 size;
	__u32 flags;
	__u32 count;
	__u32 microseconds;
};

#define SVM_DEMO_IOCTL_TYPE 0xd5
#define SVM_DEMO_IOCTL_INFO _IO(SVM_DEMO_IOCTL_TYPE, 0x00)
#define SVM_DEMO_IOCTL_QUEUE_SETUP _IO(SVM_DEMO_IOCTL_TYPE, 0x01)
#define SVM_DEMO_IOCTL_QUEUE_STOP _IO(SVM_DEMO_IOCTL_TYPE, 0x02)
#define SVM_DEMO_IOCTL_EVENTFD _IO(SVM_DEMO_IOCTL_TYPE, 0x03)
#define SVM_DEMO_IOCTL_MODERATION _IO(SVM_DEMO_IOCTL_TYPE, 0x04)

/*
 * The doorbell page: mmap of SVM_DEMO_DOORBELL_SIZE bytes at offset 0, shared. Offsets of its 64-bit
 * registers; TAIL is written with one access of 8 bytes, the others are read-only. The slot of
 * descriptor n in the ring is free again when HEAD > n, and not before.
 */
#define SVM_DEMO_DOORBELL_SIZE 0x1000
#define SVM_DEMO_DOORBELL_TAIL 0x00
#define SVM_DEMO_DOORBELL_HEAD 0x08
#define SVM_DEMO_DOORBELL_STATUS 0x10
#define SVM_DEMO_DOORBELL_LOST 0x18
#define SVM_DEMO_DOORBELL_COUNTERS 0x80

/* SVM_DEMO_DOORBELL_STATUS: state in 7:0, reason of the halt in 15:8. */
enum svm_demo_state {
	SVM_DEMO_STATE_DISABLED = 0,
	SVM_DEMO_STATE_ENABLED = 1,
	SVM_DEMO_STATE_STOPPING = 2,
	SVM_DEMO_STATE_HALTED = 3,
};

enum svm_demo_halt {
	SVM_DEMO_HALT_NONE = 0,
	SVM_DEMO_HALT_BAD_PASID = 1,
	SVM_DEMO_HALT_BAD_RING = 2,
	SVM_DEMO_HALT_BAD_DOORBELL = 3,
	SVM_DEMO_HALT_RING_FAULT = 4,
	SVM_DEMO_HALT_FUNCTION_DISABLED = 5,
};

/*
 * SVM_DEMO_DOORBELL_LOST: the last completion record that the device could not write, 0 if there is
 * none: the reason, as enum svm_demo_error, in 7:0, and the number of its descriptor in 63:8.
 */
#define SVM_DEMO_LOST_ERROR_MASK 0xff
#define SVM_DEMO_LOST_DESCRIPTOR_SHIFT 8

/* Positions in the block at SVM_DEMO_DOORBELL_COUNTERS, in units of 8 bytes. */
enum svm_demo_counter {
	SVM_DEMO_COUNTER_DESCRIPTORS = 0,
	SVM_DEMO_COUNTER_FAILED_DESCRIPTORS = 1,
	SVM_DEMO_COUNTER_LOST_COMPLETIONS = 2,
	SVM_DEMO_COUNTER_TRANSLATION_REQUESTS = 3,
	SVM_DEMO_COUNTER_ATC_HITS = 4,
	SVM_DEMO_COUNTER_ATC_MISSES = 5,
	SVM_DEMO_COUNTER_ATC_EVICTIONS = 6,
	SVM_DEMO_COUNTER_INVALIDATIONS = 7,
	SVM_DEMO_COUNTER_INVALIDATED_ENTRIES = 8,
	SVM_DEMO_COUNTER_PAGE_REQUESTS = 9,
	SVM_DEMO_COUNTER_PRG_RESPONSES = 10,
	SVM_DEMO_COUNTER_BYTES_READ = 11,
	SVM_DEMO_COUNTER_BYTES_WRITTEN = 12,
	SVM_DEMO_COUNTER_INTERRUPTS = 13,
};

enum svm_demo_operation {
	SVM_DEMO_OP_NOP = 0,
	SVM_DEMO_OP_COPY = 1,
	SVM_DEMO_OP_FILL = 2,
	SVM_DEMO_OP_COMPARE = 3,
	SVM_DEMO_OP_CRC32C = 4,
	SVM_DEMO_OP_FETCH_ADD = 5,
	SVM_DEMO_OP_CHASE = 6,
	SVM_DEMO_OP_DRAIN = 7,
	SVM_DEMO_OP_COMPARE_SWAP = 8,
	SVM_DEMO_OP_GATHER = 9,
	SVM_DEMO_OP_PREFETCH = 10,
	SVM_DEMO_OP_TRANSLATE = 11,
	SVM_DEMO_OP_CACHE_CONTROL = 12,
	SVM_DEMO_OP_BATCH = 13,
};

#define SVM_DEMO_FLAG_FENCE 0x01
#define SVM_DEMO_FLAG_INTERRUPT 0x02
#define SVM_DEMO_FLAG_BLOCK_ON_FAULT 0x04

/* Bits of operand0. */
#define SVM_DEMO_OPERAND_WRITE 0x01 /* PREFETCH, TRANSLATE: requests write permission. */
#define SVM_DEMO_OPERAND_EXECUTE 0x02 /* TRANSLATE: requests permission to execute. */
#define SVM_DEMO_OPERAND_ALL 0x01 /* CACHE_CONTROL: the whole address space. */

/* Result of TRANSLATE. */
#define SVM_DEMO_TRANSLATION_SIZE 0x7fULL /* Log2 of the size in bytes. */
#define SVM_DEMO_TRANSLATION_READ 0x80ULL
#define SVM_DEMO_TRANSLATION_WRITE 0x100ULL
#define SVM_DEMO_TRANSLATION_UNTRANSLATED_ONLY 0x200ULL
#define SVM_DEMO_TRANSLATION_GLOBAL 0x400ULL
#define SVM_DEMO_TRANSLATION_EXECUTE 0x800ULL
#define SVM_DEMO_TRANSLATION_ADDRESS 0xfffffffffffff000ULL /* 0 without the laboratory. */

/* A descriptor in the ring, or in the array of a batch. All addresses are pointers of the process. */
struct svm_demo_descriptor {
	__u8 operation;
	__u8 flags;
	__u8 reserved0[6];
	__u64 completion;
	__u64 source;
	__u64 destination;
	__u64 length;
	__u64 operand0;
	__u64 operand1;
	__u64 reserved1;
} __attribute__((aligned(64)));

/* The array of SVM_DEMO_OP_BATCH: its alignment in bytes, and the largest number of descriptors. */
#define SVM_DEMO_BATCH_ALIGNMENT 64
#define SVM_DEMO_BATCH_MAX_ENTRIES 1024

#define SVM_DEMO_STATUS_PENDING 0
#define SVM_DEMO_STATUS_SUCCESS 1
#define SVM_DEMO_STATUS_FAILURE 2

/* Set in access if the access that failed was a write. */
#define SVM_DEMO_ACCESS_WRITE 0x01

/*
 * A completion record, aligned to its size. A record with another alignment, or whose memory cannot
 * be written, is lost; poll() reports this by POLLERR, and read() once by EBADMSG. The device
 * writes the first 8 bytes last, in one access: read the status with acquire semantics before the
 * rest.
 */
struct svm_demo_completion {
	__u8 status;
	__u8 error;
	__u8 access;
	__u8 reserved[5];
	__u64 bytes_done;
	__u64 fault_address;
	__u64 result;
} __attribute__((aligned(32)));

enum svm_demo_error {
	SVM_DEMO_ERROR_BAD_OPERATION = 1,
	SVM_DEMO_ERROR_RESERVED = 2,
	SVM_DEMO_ERROR_MISALIGNED = 3,
	SVM_DEMO_ERROR_BAD_LENGTH = 4,
	SVM_DEMO_ERROR_PAGE_FAULT = 5,
	SVM_DEMO_ERROR_RESPONSE_FAILURE = 6,
	SVM_DEMO_ERROR_RETRIES_EXHAUSTED = 7,
	SVM_DEMO_ERROR_NOT_PRESENT = 8,
	SVM_DEMO_ERROR_UNSUPPORTED_REQUEST = 9,
	SVM_DEMO_ERROR_COMPLETER_ABORT = 10,
	SVM_DEMO_ERROR_MEMORY_ACCESS = 11,
	SVM_DEMO_ERROR_CHAIN_TOO_LONG = 12,
	SVM_DEMO_ERROR_BAD_ADDRESS = 13,
	SVM_DEMO_ERROR_COMPLETION_TIMEOUT = 14,
	SVM_DEMO_ERROR_RESPONSE_TIMEOUT = 15,
	SVM_DEMO_ERROR_UNSUPPORTED_ACCESS = 16,
	SVM_DEMO_ERROR_ENTRY_FAILED = 17,
	SVM_DEMO_ERROR_NESTED_BATCH = 18,
};

/* An entry of the list of SVM_DEMO_OP_GATHER. */
struct svm_demo_gather_entry {
	__u64 address;
	__u64 length;
} __attribute__((aligned(16)));

/* The largest number of entries of such a list. */
#define SVM_DEMO_GATHER_MAX_ENTRIES 65536

#ifndef SVM_DEMO_NO_HELPERS
/*
 * Submitting work to the device, and waiting for it. Inline, without a library.
 *
 * The tail needs a single store of 8 bytes. A 32-bit compiler would make two of it.
 */
#if __SIZEOF_POINTER__ < 8
#error "svm_demo.h: the doorbell takes one store of 8 bytes, which this target does not have: build for 64 bits, or define SVM_DEMO_NO_HELPERS for the structures alone"
#endif

#include <errno.h>
#include <poll.h>
#include <unistd.h>

/* A ring that was passed to SVM_DEMO_IOCTL_QUEUE_SETUP; next and head start at 0. */
struct svm_demo_ring {
	struct svm_demo_descriptor *descriptors;
	volatile void *doorbell;
	__u64 entries; /* A power of two. */
	__u64 next; /* Number of the next descriptor. */
	__u64 head; /* The last value read from HEAD. */
};

/* Reads a register of the doorbell page. All ones if the device is gone. */
static inline __u64 svm_demo_register(const volatile void *doorbell, unsigned int offset)
{
	return *(const volatile __u64 *)((const volatile char *)doorbell + offset);
}

/*
 * Writes a descriptor to its slot. Returns 0, -EAGAIN if the ring is full, or -ENODEV. The device
 * sees it after svm_demo_submit().
 */
static inline int svm_demo_push(struct svm_demo_ring *ring,
				const struct svm_demo_descriptor *descriptor)
{
	if (ring->next - ring->head >= ring->entries) {
		__u64 head = svm_demo_register(ring->doorbell, SVM_DEMO_DOORBELL_HEAD);

		if (head > ring->next)
			return -ENODEV;
		ring->head = head;
		if (ring->next - head >= ring->entries)
			return -EAGAIN;
	}
	ring->descriptors[ring->next & (ring->entries - 1)] = *descriptor;
	ring->next++;
	return 0;
}

/* Submits all pushed descriptors to the device. All earlier writes are visible to it. */
static inline void svm_demo_submit(struct svm_demo_ring *ring)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	*(volatile __u64 *)((volatile char *)ring->doorbell + SVM_DEMO_DOORBELL_TAIL) = ring->next;
}

/* The status of a record; everything that the device wrote before it is visible afterwards. */
static inline __u8 svm_demo_status(const struct svm_demo_completion *record)
{
	return __atomic_load_n(&record->status, __ATOMIC_ACQUIRE);
}

/*
 * Sleeps until the device has written a record whose descriptor asks for an interrupt. Returns 0;
 * -EBADMSG if a record was lost, this one or another; -EIO if the context no longer works; -ENODEV
 * if the device is gone; and other errors of poll() and read().
 */
static inline int svm_demo_wait(int device, const struct svm_demo_completion *record)
{
	while (svm_demo_status(record) == SVM_DEMO_STATUS_PENDING) {
		struct pollfd events = { .fd = device, .events = POLLIN };
		__u64 interrupts;
		int error = 0;

		/* With O_NONBLOCK, poll() sleeps instead. */
		if (read(device, &interrupts, sizeof(interrupts)) < 0)
			error = errno;
		if (error == EAGAIN && poll(&events, 1, -1) < 0)
			error = errno;
		if (error == 0 || error == EAGAIN || error == EINTR)
			continue;
		/* The record may have arrived before the error. */
		return svm_demo_status(record) == SVM_DEMO_STATUS_PENDING ? -error : 0;
	}
	return 0;
}
#endif /* SVM_DEMO_NO_HELPERS */

#endif /* SVM_DEMO_H */
