/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The character device of a function, between C and Rust: node.c and chardev.rs.
 */
#ifndef SVM_DEMO_NODE_H
#define SVM_DEMO_NODE_H

#include <linux/types.h>

struct device;
struct file_operations;
struct inode;
struct svm_demo_node;

/* The attributes. */
enum svm_demo_attribute {
	SVM_DEMO_DEVICE_VERSION,
	SVM_DEMO_CONTEXTS,
	SVM_DEMO_CONTEXTS_AVAILABLE,
	SVM_DEMO_CONTEXTS_PER_USER,
	SVM_DEMO_OPERATIONS,
};

int svm_demo_number_get(void);
void svm_demo_number_put(u32 number);

struct svm_demo_node *svm_demo_node_new(struct device *parent, u32 number,
					const struct file_operations *operations, void *owner);
void svm_demo_node_close(struct svm_demo_node *node);
void svm_demo_node_remove(struct svm_demo_node *node);
void svm_demo_node_get(struct svm_demo_node *node);
void svm_demo_node_put(struct svm_demo_node *node);
void svm_demo_node_event(struct svm_demo_node *node, char *variable);

struct svm_demo_node *svm_demo_node_of(struct inode *inode);
void *svm_demo_node_enter(struct svm_demo_node *node);
void svm_demo_node_leave(struct svm_demo_node *node);

/* In chardev.rs. "owner" is the result of svm_demo_node_enter(). */
u64 svm_demo_attribute_read(const void *owner, u32 attribute);
void svm_demo_set_contexts_per_user(const void *owner, u32 contexts);

#endif /* SVM_DEMO_NODE_H */
