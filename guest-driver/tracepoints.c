// SPDX-License-Identifier: GPL-2.0-only
/*
 * Defines the tracepoints of tracepoints.h, and a function for each that trace.rs calls:
 * "trace_*()" are inline functions, which Rust cannot call.
 */
#define CREATE_TRACE_POINTS
#include "tracepoints.h"

void svm_demo_trace_open(u32 device, u16 context, u32 pasid);
void svm_demo_trace_start(u32 device, u16 context, u64 ring, u32 entries, int result);
void svm_demo_trace_stop(u32 device, u16 context, int result);
void svm_demo_trace_close(u32 device, u16 context, int result);
void svm_demo_trace_revoke(u32 device, u16 context, int result);
void svm_demo_trace_halt(u32 device, u16 context, u8 reason, u64 consumed);
void svm_demo_trace_interrupt(u32 device, u16 context, u32 vector);

void svm_demo_trace_open(u32 device, u16 context, u32 pasid)
{
	trace_svm_demo_open(device, context, pasid);
}

void svm_demo_trace_start(u32 device, u16 context, u64 ring, u32 entries, int result)
{
	trace_svm_demo_start(device, context, ring, entries, result);
}

void svm_demo_trace_stop(u32 device, u16 context, int result)
{
	trace_svm_demo_stop(device, context, result);
}

void svm_demo_trace_close(u32 device, u16 context, int result)
{
	trace_svm_demo_close(device, context, result);
}

void svm_demo_trace_revoke(u32 device, u16 context, int result)
{
	trace_svm_demo_revoke(device, context, result);
}

void svm_demo_trace_halt(u32 device, u16 context, u8 reason, u64 consumed)
{
	trace_svm_demo_halt(device, context, reason, consumed);
}

void svm_demo_trace_interrupt(u32 device, u16 context, u32 vector)
{
	trace_svm_demo_interrupt(device, context, vector);
}
