/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Builds a linked list in ordinary memory and lets the device sum it: pointers mean the same to
 * both. Without a library: ioctls, the doorbell page, one descriptor, one completion record.
 *
 *     cc -O2 -Wall -I guest-app/library/include -o sum guest-app/library/examples/sum.c && ./sum /dev/svm0
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
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

/* Their types have the alignment that the device needs. */
static struct svm_demo_descriptor descriptors[1 << RING_LOG2];
static struct svm_demo_completion record;

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "/dev/svm0";
	struct svm_demo_queue queue = {
		.size = sizeof(queue),
		.ring = (uintptr_t)descriptors,
		.ring_log2 = RING_LOG2,
	};
	struct svm_demo_info info = { .size = sizeof(info) };
	struct svm_demo_ring ring = { .descriptors = descriptors, .entries = 1 << RING_LOG2 };
	struct svm_demo_descriptor work;
	struct node *head = NULL;
	uint64_t expected = 0;
	int device, result;
	void *page;

	/* Opening binds a context of the device to this process. */
	device = open(path, O_RDWR | O_CLOEXEC);
	if (device < 0)
		return fail(path);
	if (ioctl(device, SVM_DEMO_IOCTL_INFO, &info) < 0)
		return fail("SVM_DEMO_IOCTL_INFO");
	if (info.device_version >> 8 != SVM_DEMO_DEVICE_VERSION >> 8) {
		fprintf(stderr, "%s is of version %x, %x was expected\n", path,
			info.device_version, SVM_DEMO_DEVICE_VERSION);
		return 2;
	}
	page = mmap(NULL, SVM_DEMO_DOORBELL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
	if (page == MAP_FAILED)
		return fail("the doorbell page");
	ring.doorbell = page;
	if (ioctl(device, SVM_DEMO_IOCTL_QUEUE_SETUP, &queue) < 0)
		return fail("SVM_DEMO_IOCTL_QUEUE_SETUP");

	for (uint64_t n = 0; n < NODES; n++) {
		struct node *node = malloc(sizeof(*node));

		if (!node)
			return fail("malloc");
		node->next = head;
		node->value = n * n;
		expected += node->value;
		head = node;
	}

	work = (struct svm_demo_descriptor){
		.operation = SVM_DEMO_OP_CHASE,
		.flags = SVM_DEMO_FLAG_INTERRUPT | SVM_DEMO_FLAG_BLOCK_ON_FAULT,
		.completion = (uintptr_t)&record,
		.source = (uintptr_t)head,
		.length = NODES,
		.operand0 = offsetof(struct node, next),
		.operand1 = offsetof(struct node, value),
	};
	result = svm_demo_push(&ring, &work);
	if (result == 0) {
		svm_demo_submit(&ring);
		result = svm_demo_wait(device, &record);
	}
	if (result < 0) {
		errno = -result;
		return fail("the device");
	}
	if (record.status != SVM_DEMO_STATUS_SUCCESS) {
		fprintf(stderr, "error %u at %#llx, see enum svm_demo_error\n", record.error,
			(unsigned long long)record.fault_address);
		return 1;
	}
	printf("the device sums %llu nodes to %llu, the processor to %llu\n",
	       (unsigned long long)record.bytes_done, (unsigned long long)record.result,
	       (unsigned long long)expected);
	ioctl(device, SVM_DEMO_IOCTL_QUEUE_STOP);
	return record.result == expected ? 0 : 1;
}
