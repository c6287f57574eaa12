// SPDX-License-Identifier: GPL-2.0-only

//! The number of contexts of a device that each user has, and its limit.
//!
//! A resource limit like `RLIMIT_NPROC`: for the real user, except with `CAP_SYS_RESOURCE`. This
//! module knows nothing of contexts.

use kernel::{
    bindings,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    task::Kuid, //
};

/// The users of one device.
#[pin_data]
pub(crate) struct Quota {
    /// The users with contexts, and their numbers of contexts.
    #[pin]
    users: Mutex<KVec<(Kuid, u32)>>,
}

impl Quota {
    /// Creates an unused quota.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            users <- new_mutex!(KVec::new(), "svm_demo::Quota::users"),
        })
    }

    /// Counts one more context for the user of the current task, until the share is dropped.
    ///
    /// # Errors
    ///
    /// `EDQUOT` if that exceeds `limit`; a `limit` of 0 means no limit.
    pub(crate) fn take(self: &Arc<Self>, limit: u32) -> Result<Share> {
        let user = current!().uid();
        let mut users = self.users.lock();
        let count = users.iter_mut().find(|(other, _)| *other == user);

        if let Some((_, count)) = count {
            if limit != 0 && *count >= limit && !is_exempt() {
                return Err(Error::from_errno(-(bindings::EDQUOT as c_int)));
            }
            *count += 1;
        } else {
            users.push((user, 1), GFP_KERNEL)?;
        }
        Ok(Share {
            quota: self.clone(),
            user,
        })
    }
}

/// Whether the current task may have more than the limit.
fn is_exempt() -> bool {
    // SAFETY: The function has no requirements.
    unsafe { bindings::capable(bindings::CAP_SYS_RESOURCE as c_int) }
}

/// The share of one context. Dropping it releases it.
pub(crate) struct Share {
    quota: Arc<Quota>,
    user: Kuid,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.quota.users.lock().retain(|(user, count)| {
            if *user == self.user {
                *count -= 1;
            }
            *count != 0
        });
    }
}
