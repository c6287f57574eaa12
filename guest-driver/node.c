// SPDX-License-Identifier: GPL-2.0-only
/*
 * The character device of a function: a class, a number, a cdev, attributes in sysfs.
 *
 * "struct cdev" and the macros of attributes have no abstraction in Rust. This file does not know
 * the device: "owner" belongs to chardev.rs.
 */
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/idr.h>
#include <linux/kdev_t.h>
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "node.h"

#define NODES (1U << MINORBITS)

struct svm_demo_node {
	struct device dev;
	struct cdev cdev;
	/* For reading: "owner" stays. One lock per node, because a bind may take long. */
	struct rw_semaphore lock;
	/* NULL once the node was closed. */
	void *owner;
};

static DEFINE_IDA(numbers);

/* The class and the device numbers exist while there are nodes. */
static DEFINE_MUTEX(users_lock);
static unsigned int users;
static dev_t first;

static struct svm_demo_node *node_of(struct device *dev)
{
	return container_of(dev, struct svm_demo_node, dev);
}

static int attribute_read(struct device *dev, u32 attribute, u64 *value)
{
	void *owner = svm_demo_node_enter(node_of(dev));

	if (IS_ERR(owner))
		return PTR_ERR(owner);
	*value = svm_demo_attribute_read(owner, attribute);
	svm_demo_node_leave(node_of(dev));
	return 0;
}

static ssize_t show_number(struct device *dev, u32 attribute, char *to)
{
	u64 value;
	int result = attribute_read(dev, attribute, &value);

	return result ? result : sysfs_emit(to, "%llu\n", value);
}

static ssize_t device_version_show(struct device *dev, struct device_attribute *attribute, char *to)
{
	u64 value;
	int result = attribute_read(dev, SVM_DEMO_DEVICE_VERSION, &value);

	return result ? result : sysfs_emit(to, "%llu.%llu\n", value >> 8, value & 0xff);
}
static DEVICE_ATTR_RO(device_version);

static ssize_t contexts_show(struct device *dev, struct device_attribute *attribute, char *to)
{
	return show_number(dev, SVM_DEMO_CONTEXTS, to);
}
static DEVICE_ATTR_RO(contexts);

static ssize_t contexts_available_show(struct device *dev, struct device_attribute *attribute,
				       char *to)
{
	return show_number(dev, SVM_DEMO_CONTEXTS_AVAILABLE, to);
}
static DEVICE_ATTR_RO(contexts_available);

static ssize_t operations_show(struct device *dev, struct device_attribute *attribute, char *to)
{
	u64 value;
	int result = attribute_read(dev, SVM_DEMO_OPERATIONS, &value);

	return result ? result : sysfs_emit(to, "%#llx\n", value);
}
static DEVICE_ATTR_RO(operations);

static ssize_t contexts_per_user_show(struct device *dev, struct device_attribute *attribute,
				      char *to)
{
	return show_number(dev, SVM_DEMO_CONTEXTS_PER_USER, to);
}

static ssize_t contexts_per_user_store(struct device *dev, struct device_attribute *attribute,
				       const char *from, size_t length)
{
	void *owner;
	u32 value;
	int result = kstrtou32(from, 0, &value);

	if (result)
		return result;
	owner = svm_demo_node_enter(node_of(dev));
	if (IS_ERR(owner))
		return PTR_ERR(owner);
	svm_demo_set_contexts_per_user(owner, value);
	svm_demo_node_leave(node_of(dev));
	return length;
}
static DEVICE_ATTR_RW(contexts_per_user);

static struct attribute *svm_demo_attrs[] = {
	&dev_attr_device_version.attr,
	&dev_attr_contexts.attr,
	&dev_attr_contexts_available.attr,
	&dev_attr_contexts_per_user.attr,
	&dev_attr_operations.attr,
	NULL,
};
ATTRIBUTE_GROUPS(svm_demo);

static const struct class node_class = {
	.name = "svm_demo",
	.dev_groups = svm_demo_groups,
};

/* Creates class and numbers for the first user. */
static int class_get(void)
{
	int result = 0;

	mutex_lock(&users_lock);
	if (!users) {
		result = alloc_chrdev_region(&first, 0, NODES, "svm_demo");
		if (!result) {
			result = class_register(&node_class);
			if (result)
				unregister_chrdev_region(first, NODES);
		}
	}
	if (!result)
		users++;
	mutex_unlock(&users_lock);
	return result;
}

static void class_put(void)
{
	mutex_lock(&users_lock);
	if (!--users) {
		class_unregister(&node_class);
		unregister_chrdev_region(first, NODES);
	}
	mutex_unlock(&users_lock);
}

/* Allocates the lowest free N of /dev/svmN, or returns -errno. */
int svm_demo_number_get(void)
{
	return ida_alloc_max(&numbers, NODES - 1, GFP_KERNEL);
}

void svm_demo_number_put(u32 number)
{
	ida_free(&numbers, number);
}

static void node_release(struct device *dev)
{
	kfree(node_of(dev));
}

/*
 * Creates /dev/svmN. From then on "operations" and attributes may find "owner", until
 * svm_demo_node_close() returns.
 */
struct svm_demo_node *svm_demo_node_new(struct device *parent, u32 number,
					const struct file_operations *operations, void *owner)
{
	struct svm_demo_node *node;
	int result = class_get();

	if (result)
		return ERR_PTR(result);
	node = kzalloc(sizeof(*node), GFP_KERNEL);
	if (!node) {
		class_put();
		return ERR_PTR(-ENOMEM);
	}
	init_rwsem(&node->lock);
	node->owner = owner;
	device_initialize(&node->dev);
	node->dev.class = &node_class;
	node->dev.parent = parent;
	node->dev.devt = MKDEV(MAJOR(first), number);
	node->dev.release = node_release;
	cdev_init(&node->cdev, operations);
	node->cdev.owner = operations->owner;

	result = dev_set_name(&node->dev, "svm%u", number);
	if (!result)
		result = cdev_device_add(&node->cdev, &node->dev);
	if (result) {
		put_device(&node->dev);
		class_put();
		return ERR_PTR(result);
	}
	return node;
}

/* Waits for users of the owner; afterwards it cannot be found any more. */
void svm_demo_node_close(struct svm_demo_node *node)
{
	down_write(&node->lock);
	node->owner = NULL;
	up_write(&node->lock);
}

/* Removes /dev/svmN, and releases the reference of svm_demo_node_new(). */
void svm_demo_node_remove(struct svm_demo_node *node)
{
	cdev_device_del(&node->cdev, &node->dev);
	put_device(&node->dev);
	class_put();
}

void svm_demo_node_get(struct svm_demo_node *node)
{
	get_device(&node->dev);
}

void svm_demo_node_put(struct svm_demo_node *node)
{
	put_device(&node->dev);
}

/* Reports a change of the device to user space, with a variable "KEY=value". */
void svm_demo_node_event(struct svm_demo_node *node, char *variable)
{
	char *variables[] = { variable, NULL };

	kobject_uevent_env(&node->dev.kobj, KOBJ_CHANGE, variables);
}

/* The node that is being opened. */
struct svm_demo_node *svm_demo_node_of(struct inode *inode)
{
	return container_of(inode->i_cdev, struct svm_demo_node, cdev);
}

/*
 * Returns the owner, which stays until svm_demo_node_leave(). -ENODEV if the node was closed,
 * -EINTR if a signal came first.
 */
void *svm_demo_node_enter(struct svm_demo_node *node)
{
	if (down_read_interruptible(&node->lock))
		return ERR_PTR(-EINTR);
	if (node->owner)
		return node->owner;
	up_read(&node->lock);
	return ERR_PTR(-ENODEV);
}

void svm_demo_node_leave(struct svm_demo_node *node)
{
	up_read(&node->lock);
}
