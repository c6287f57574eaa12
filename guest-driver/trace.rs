// SPDX-License-Identifier: GPL-2.0-only

//! The tracepoints, which `tracepoints.h` declares, for `perf`, `trace-cmd` and
//! `/sys/kernel/tracing/events/svm_demo`.
//!
//! `kernel::tracepoint::declare_trace!` looks for its tracepoints in `kernel::bindings`, which
//! cannot contain those of an out-of-tree module; hence the C functions.

/// Declares the C functions, and the methods that the driver calls.
macro_rules! tracepoints {
    ($($(#[doc = $doc:literal])+ $name:ident = $symbol:ident($($argument:ident: $type:ty),*);)+) => {
        unsafe extern "C" {
            // Each is safe: it takes plain values, may be called in any context, and has no
            // requirements.
            $(safe fn $symbol(device: u32, context: u16, $($argument: $type),*);)+
        }

        impl Tracer {
            $($(#[doc = $doc])+ pub(crate) fn $name(self, $($argument: $type),*) {
                $symbol(self.device, self.context, $($argument),*);
            })+
        }
    };
}

/// The subject of tracepoints: a context of a device.
#[derive(Clone, Copy)]
pub(crate) struct Tracer {
    /// N of `/dev/svmN`.
    pub(crate) device: u32,
    /// Number of the context.
    pub(crate) context: u16,
}

tracepoints! {
    /// A file has opened the context.
    open = svm_demo_trace_open(pasid: u32);
    /// The context was started, or not.
    start = svm_demo_trace_start(ring: u64, entries: u32, result: i32);
    /// The context was stopped and waited for.
    stop = svm_demo_trace_stop(result: i32);
    /// The file was closed.
    close = svm_demo_trace_close(result: i32);
    /// The context was revoked.
    revoke = svm_demo_trace_revoke(result: i32);
    /// The context was found halted.
    halt = svm_demo_trace_halt(reason: u8, head: u64);
    /// An interrupt of the context's vector.
    interrupt = svm_demo_trace_interrupt(vector: u32);
}

/// A result for tracepoints: 0 or a negative error number.
pub(crate) fn result<T>(result: &kernel::error::Result<T>) -> i32 {
    result.as_ref().err().map_or(0, |error| error.to_errno())
}
