/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Builds a linked list in ordinary memory and lets the device sum it: pointers mean the same to
 * both. Without a library: ioctls, the doorbell page, one descriptor, one completion record.
 *
 *     cc -O2 -Wall -I guest-app/include -o sum guest-app/examples/sum.c && ./sum /dev/svm0
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "svm_demo.h"

#define RING_LOG2 4
#define NODES 1000

struct node {
	struct node *next;
	uint64_t value;
};

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	return 2;
}

/* The status of a record; what the device wrote before it is visible afterwards. */
static uint8_t status_of(struct svm_completion *record)
{
	return __atomic_load_n(&record->status, __ATOMIC_ACQUIRE);
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "/dev/svm0";
	static _Alignas(4096) struct svm_descriptor ring[1 << RING_LOG2];
	static _Alignas(32) struct svm_completion record;
	struct svm_queue queue = { .ring = (uintptr_t)ring, .ring_log2 = RING_LOG2 };
	struct svm_info info;
	volatile uint64_t *tail;
	struct node *head = NULL;
	uint64_t expected = 0;
	int device;

	/* Opening binds a context of the device to this process. */
	device = open(path, O_RDWR | O_CLOEXEC);
	if (device < 0)
		return fail(path);
	if (ioctl(device, SVM_IOCTL_INFO, &info) < 0)
		return fail("SVM_IOCTL_INFO");
	if (info.abi_version >> 8 != SVM_ABI_VERSION >> 8) {
		fprintf(stderr, "%s has version %x of the interface, %x was expected\n", path,
			info.abi_version, SVM_ABI_VERSION);
		return 2;
	}
	void *page = mmap(NULL, SVM_DOORBELL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
	if (page == MAP_FAILED)
		return fail("the doorbell page");
	tail = (volatile uint64_t *)((char *)page + SVM_DOORBELL_TAIL);
	if (ioctl(device, SVM_IOCTL_QUEUE_SETUP, &queue) < 0)
		return fail("SVM_IOCTL_QUEUE_SETUP");

	for (uint64_t n = 0; n < NODES; n++) {
		struct node *node = malloc(sizeof(*node));

		if (!node)
			return fail("malloc");
		node->next = head;
		node->value = n * n;
		expected += node->value;
		head = node;
	}

	ring[0] = (struct svm_descriptor){
		.operation = SVM_OP_CHASE,
		.flags = SVM_FLAG_INTERRUPT | SVM_FLAG_BLOCK_ON_FAULT,
		.completion = (uintptr_t)&record,
		.source = (uintptr_t)head,
		.length = NODES,
		.operand0 = offsetof(struct node, next),
		.operand1 = offsetof(struct node, value),
	};
	/* List and descriptor are written before the doorbell. */
	atomic_thread_fence(memory_order_seq_cst);
	*tail = 1;

	while (status_of(&record) == SVM_STATUS_PENDING) {
		struct pollfd wait = { .fd = device, .events = POLLIN };

		if (poll(&wait, 1, -1) < 0 && errno != EINTR)
			return fail("poll");
		if (wait.revents & (POLLERR | POLLHUP)) {
			fprintf(stderr, "the context has halted, or the device is gone\n");
			return 2;
		}
	}
	if (record.status != SVM_STATUS_SUCCESS) {
		fprintf(stderr, "error %u at %#llx, see enum svm_error\n", record.error,
			(unsigned long long)record.fault_address);
		return 1;
	}
	printf("the device sums %llu nodes to %llu, the processor to %llu\n",
	       (unsigned long long)record.bytes_done, (unsigned long long)record.result,
	       (unsigned long long)expected);
	ioctl(device, SVM_IOCTL_QUEUE_STOP);
	return record.result == expected ? 0 : 1;
}
