/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The svm-demo device from a C program: ioctls of /dev/svmN, the doorbell page, descriptors and
 * completion records.
 *
 * It says in C what the crate svm-abi says in Rust, which is the one source: the test
 * guest-app/tests/header.rs has a C compiler compare every name and number of the two. What the
 * parts mean and how they work together is in docs/device.md and docs/device-reference.md;
 * examples/sum.c is a whole program.
 */
#ifndef SVM_DEMO_H
#define SVM_DEMO_H

#include <stdint.h>
#include <sys/ioctl.h>

/* PCI identification, and the version of this interface: major in 15:8, minor in 7:0. */
#define SVM_VENDOR_ID 0x1234
#define SVM_DEVICE_ID 0x5356
#define SVM_ABI_VERSION 0x0102

/* What a program needs to know of its context and device. */
struct svm_info {
	uint32_t abi_version;
	uint32_t context;
	uint32_t pasid;
	uint32_t contexts;
	uint32_t ring_log2_max;
	uint32_t transfer_log2_max;
	uint64_t operations; /* Bit n: the device performs operation n. */
	uint32_t atc_entries;
	uint32_t page_requests;
	uint32_t batch_log2_max;
	uint32_t reserved;
};

/* The submission ring: 2^ring_log2 descriptors at an address aligned to 64 bytes. */
struct svm_queue {
	uint64_t ring;
	uint32_t ring_log2;
	uint32_t flags; /* 0 */
};

/* An eventfd to be signalled at completion interrupts; -1 detaches. */
struct svm_eventfd {
	int32_t fd;
	uint32_t flags; /* 0 */
};

/* One interrupt for so many completions, or so long after the first of them. */
struct svm_moderation {
	uint32_t count;
	uint32_t microseconds;
};

#define SVM_IOCTL_INFO _IOR('S', 0x80, struct svm_info)
#define SVM_IOCTL_QUEUE_SETUP _IOW('S', 0x81, struct svm_queue)
#define SVM_IOCTL_QUEUE_STOP _IO('S', 0x82)
#define SVM_IOCTL_EVENTFD _IOW('S', 0x83, struct svm_eventfd)
#define SVM_IOCTL_MODERATION _IOW('S', 0x84, struct svm_moderation)

/*
 * The doorbell page: mmap of SVM_DOORBELL_SIZE bytes at offset 0, shared. Offsets of its 64-bit
 * registers; TAIL is written with one access of 8 bytes, the others are read-only.
 */
#define SVM_DOORBELL_SIZE 0x1000
#define SVM_DOORBELL_TAIL 0x00
#define SVM_DOORBELL_HEAD 0x08
#define SVM_DOORBELL_STATUS 0x10
#define SVM_DOORBELL_COUNTERS 0x80

/* SVM_DOORBELL_STATUS: state in 7:0, why it halted in 15:8. */
enum svm_state {
	SVM_STATE_DISABLED = 0,
	SVM_STATE_ENABLED = 1,
	SVM_STATE_STOPPING = 2,
	SVM_STATE_HALTED = 3,
};

enum svm_halt {
	SVM_HALT_NONE = 0,
	SVM_HALT_BAD_PASID = 1,
	SVM_HALT_BAD_RING = 2,
	SVM_HALT_BAD_DOORBELL = 3,
	SVM_HALT_RING_FAULT = 4,
	SVM_HALT_FUNCTION_DISABLED = 5,
};

/* Places in the block at SVM_DOORBELL_COUNTERS, in units of 8 bytes. */
enum svm_counter {
	SVM_COUNTER_DESCRIPTORS = 0,
	SVM_COUNTER_FAILED_DESCRIPTORS = 1,
	SVM_COUNTER_LOST_COMPLETIONS = 2,
	SVM_COUNTER_TRANSLATION_REQUESTS = 3,
	SVM_COUNTER_ATC_HITS = 4,
	SVM_COUNTER_ATC_MISSES = 5,
	SVM_COUNTER_ATC_EVICTIONS = 6,
	SVM_COUNTER_INVALIDATIONS = 7,
	SVM_COUNTER_INVALIDATED_ENTRIES = 8,
	SVM_COUNTER_PAGE_REQUESTS = 9,
	SVM_COUNTER_PRG_RESPONSES = 10,
	SVM_COUNTER_BYTES_READ = 11,
	SVM_COUNTER_BYTES_WRITTEN = 12,
	SVM_COUNTER_INTERRUPTS = 13,
};

enum svm_operation {
	SVM_OP_NOP = 0,
	SVM_OP_COPY = 1,
	SVM_OP_FILL = 2,
	SVM_OP_COMPARE = 3,
	SVM_OP_CRC32C = 4,
	SVM_OP_FETCH_ADD = 5,
	SVM_OP_CHASE = 6,
	SVM_OP_DRAIN = 7,
	SVM_OP_COMPARE_SWAP = 8,
	SVM_OP_GATHER = 9,
	SVM_OP_PREFETCH = 10,
	SVM_OP_TRANSLATE = 11,
	SVM_OP_CACHE_CONTROL = 12,
	SVM_OP_BATCH = 13,
};

#define SVM_FLAG_FENCE 0x01
#define SVM_FLAG_INTERRUPT 0x02
#define SVM_FLAG_BLOCK_ON_FAULT 0x04

/* A descriptor in the ring, or in the array of a batch. All addresses are pointers of the process. */
struct svm_descriptor {
	uint8_t operation;
	uint8_t flags;
	uint8_t reserved0[6];
	uint64_t completion;
	uint64_t source;
	uint64_t destination;
	uint64_t length;
	uint64_t operand0;
	uint64_t operand1;
	uint64_t reserved1;
};

#define SVM_STATUS_PENDING 0
#define SVM_STATUS_SUCCESS 1
#define SVM_STATUS_FAILURE 2

/* Set in access if the access that failed was a write. */
#define SVM_ACCESS_WRITE 0x01

/*
 * A completion record, aligned to its size. The device writes the first 8 bytes last, in one access:
 * read the status with acquire semantics before the rest.
 */
struct svm_completion {
	uint8_t status;
	uint8_t error;
	uint8_t access;
	uint8_t reserved[5];
	uint64_t bytes_done;
	uint64_t fault_address;
	uint64_t result;
};

enum svm_error {
	SVM_ERROR_BAD_OPERATION = 1,
	SVM_ERROR_RESERVED = 2,
	SVM_ERROR_MISALIGNED = 3,
	SVM_ERROR_BAD_LENGTH = 4,
	SVM_ERROR_PAGE_FAULT = 5,
	SVM_ERROR_RESPONSE_FAILURE = 6,
	SVM_ERROR_RETRIES_EXHAUSTED = 7,
	SVM_ERROR_NOT_PRESENT = 8,
	SVM_ERROR_UNSUPPORTED_REQUEST = 9,
	SVM_ERROR_COMPLETER_ABORT = 10,
	SVM_ERROR_MEMORY_ACCESS = 11,
	SVM_ERROR_CHAIN_TOO_LONG = 12,
	SVM_ERROR_BAD_ADDRESS = 13,
	SVM_ERROR_COMPLETION_TIMEOUT = 14,
	SVM_ERROR_RESPONSE_TIMEOUT = 15,
	SVM_ERROR_UNSUPPORTED_ACCESS = 16,
	SVM_ERROR_ENTRY_FAILED = 17,
	SVM_ERROR_NESTED_BATCH = 18,
};

/* An entry of the list of SVM_OP_GATHER, which is aligned to 16 bytes. */
struct svm_gather_entry {
	uint64_t address;
	uint64_t length;
};

#endif /* SVM_DEMO_H */
