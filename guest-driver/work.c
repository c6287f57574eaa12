// SPDX-License-Identifier: GPL-2.0-only
/*
 * INIT_DELAYED_WORK() is a macro, which Rust cannot call.
 */
#include <linux/workqueue.h>

void svm_demo_work_init(struct delayed_work *work, work_func_t function);

void svm_demo_work_init(struct delayed_work *work, work_func_t function)
{
	INIT_DELAYED_WORK(work, function);
}
