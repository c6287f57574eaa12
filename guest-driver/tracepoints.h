/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tracepoints of the driver: the life of contexts.
 *
 * Tracepoints are declared by C macros, even those of Rust drivers. The fields "device" and
 * "context" are the N of /dev/svmN and the number of the context in the device.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM svm_demo

#if !defined(SVM_DEMO_TRACEPOINTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define SVM_DEMO_TRACEPOINTS_H

#include <linux/tracepoint.h>

/* A file was opened, and has the context and a bond with its address space. */
TRACE_EVENT(svm_demo_open,
	TP_PROTO(u32 device, u16 context, u32 pasid),
	TP_ARGS(device, context, pasid),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u16, context)
		__field(u32, pasid)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->context = context;
		__entry->pasid = pasid;
	),
	TP_printk("device=%u context=%u pasid=%u",
		  __entry->device, __entry->context, __entry->pasid)
);

/* QUEUE_SETUP: the context was started, or not (result: 0 or -errno). */
TRACE_EVENT(svm_demo_start,
	TP_PROTO(u32 device, u16 context, u64 ring, u32 entries, int result),
	TP_ARGS(device, context, ring, entries, result),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u16, context)
		__field(u64, ring)
		__field(u32, entries)
		__field(int, result)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->context = context;
		__entry->ring = ring;
		__entry->entries = entries;
		__entry->result = result;
	),
	TP_printk("device=%u context=%u ring=0x%llx entries=%u result=%d",
		  __entry->device, __entry->context, __entry->ring, __entry->entries,
		  __entry->result)
);

/* An operation with a result, 0 or -errno. */
DECLARE_EVENT_CLASS(svm_demo_result,
	TP_PROTO(u32 device, u16 context, int result),
	TP_ARGS(device, context, result),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u16, context)
		__field(int, result)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->context = context;
		__entry->result = result;
	),
	TP_printk("device=%u context=%u result=%d",
		  __entry->device, __entry->context, __entry->result)
);

/* QUEUE_STOP: the context was stopped and waited for. */
DEFINE_EVENT(svm_demo_result, svm_demo_stop,
	TP_PROTO(u32 device, u16 context, int result),
	TP_ARGS(device, context, result)
);

/* The file was closed. With -ETIMEDOUT the context drains: it keeps its bond. */
DEFINE_EVENT(svm_demo_result, svm_demo_close,
	TP_PROTO(u32 device, u16 context, int result),
	TP_ARGS(device, context, result)
);

/* The context was revoked from its file, because the device is being removed. */
DEFINE_EVENT(svm_demo_result, svm_demo_revoke,
	TP_PROTO(u32 device, u16 context, int result),
	TP_ARGS(device, context, result)
);

/* The driver found that the context had halted by itself, and why. */
TRACE_EVENT(svm_demo_halt,
	TP_PROTO(u32 device, u16 context, u8 reason, u64 consumed),
	TP_ARGS(device, context, reason, consumed),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u16, context)
		__field(u8, reason)
		__field(u64, consumed)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->context = context;
		__entry->reason = reason;
		__entry->consumed = consumed;
	),
	TP_printk("device=%u context=%u reason=%s consumed=%llu",
		  __entry->device, __entry->context,
		  __print_symbolic(__entry->reason,
				   { 1, "BAD_PASID" },
				   { 2, "BAD_RING" },
				   { 3, "BAD_DOORBELL" },
				   { 4, "RING_FAULT" },
				   { 5, "FUNCTION_DISABLED" }),
		  __entry->consumed)
);

/* An interrupt of a vector that the context uses. */
TRACE_EVENT(svm_demo_interrupt,
	TP_PROTO(u32 device, u16 context, u32 vector),
	TP_ARGS(device, context, vector),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u16, context)
		__field(u32, vector)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->context = context;
		__entry->vector = vector;
	),
	TP_printk("device=%u context=%u vector=%u",
		  __entry->device, __entry->context, __entry->vector)
);

#endif /* SVM_DEMO_TRACEPOINTS_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE tracepoints
#include <trace/define_trace.h>
