/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The shortest program: the device copies a string on the stack to another place on the stack.
 *
 *     cc -O2 -I guest-app/library/include -o /tmp/copy guest-app/library/examples/copy.c
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include "svm_demo.h"
static struct svm_demo_descriptor descriptors[16];
static struct svm_demo_completion record;
int main(void)
{
    char text[] = "copied by the device", copy[sizeof(text)] = "";
    int device = open("/dev/svm0", O_RDWR);
    struct svm_demo_queue queue = { .size = sizeof(queue), .ring = (uintptr_t)descriptors, .ring_log2 = 4 };
    ioctl(device, SVM_DEMO_IOCTL_QUEUE_SETUP, &queue);
    struct svm_demo_ring ring = { .descriptors = descriptors, .entries = 16,
        .doorbell = mmap(0, SVM_DEMO_DOORBELL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0) };
    svm_demo_push(&ring, &(struct svm_demo_descriptor){ SVM_DEMO_OP_COPY,
        SVM_DEMO_FLAG_INTERRUPT | SVM_DEMO_FLAG_BLOCK_ON_FAULT, .completion = (uintptr_t)&record,
        .source = (uintptr_t)text, .destination = (uintptr_t)copy, .length = sizeof(text) });
    svm_demo_submit(&ring);
    svm_demo_wait(device, &record);
    return puts(copy) < 0;
}
