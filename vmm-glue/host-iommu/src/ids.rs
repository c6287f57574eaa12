// SPDX-License-Identifier: MIT OR Apache-2.0
//! Allocation of I/O address space ids: PASIDs, from the system's own numbers or from an allocator
//! that somebody else has, for instance a host by virtual commands. It knows no IOMMU.
//!
//! There is always a default allocator. Custom allocators come and go with the units that have
//! them. Those with the same [`Provider`] share their ids; of different ones, one is active, and
//! the others wait in the order in which they came.

use crate::mutant::{Mutant, breaks};
use std::collections::BTreeMap;

/// The greatest id: PASIDs have 20 bits.
pub const MAX_ID: u32 = 0xf_ffff;

/// An owner of ids, which may look them up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SetId(pub u32);

/// Whose ids an allocator has: allocators of one provider give from the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Provider(pub u32);

/// One registration of an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AllocatorId(pub u32);

/// A custom allocator.
pub trait Allocator {
    /// Allocates an id from `min` to `max`; none if there is none.
    fn allocate(&mut self, min: u32, max: u32) -> Option<u32>;

    /// Frees an id that it allocated.
    fn free(&mut self, id: u32);
}

/// Why an allocator is not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Ids of the default allocator are in use (EAGAIN).
    #[error("{0} ids of the default allocator are in use; free them first")]
    DefaultInUse(usize),
    /// It is registered (EEXIST).
    #[error("this allocator is registered already")]
    Registered,
}

/// Why an id is not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// It is not allocated (ENOENT).
    #[error("id {0} is not allocated")]
    NotAllocated(u32),
    /// It belongs to another owner (EACCES).
    #[error("id {0} belongs to another set")]
    OtherSet(u32),
}

/// Something that should not happen, for a log. It has no other effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// An id that is not allocated was freed.
    #[error("id {0} is freed but not allocated")]
    FreedUnknown(u32),
    /// The last allocator of a provider left with ids in use. They are lost.
    #[error("the last allocator of its kind is gone with {0} ids in use")]
    LeftWithIds(usize),
    /// An allocator that is not registered was taken away.
    #[error("an allocator is unregistered but not registered")]
    UnknownAllocator,
}

#[derive(Debug)]
struct Entry<T> {
    set: SetId,
    data: T,
}

/// The ids of one provider, or those of the default allocator.
struct Space<T> {
    ids: BTreeMap<u32, Entry<T>>,
}

impl<T> Default for Space<T> {
    fn default() -> Self {
        Space {
            ids: BTreeMap::new(),
        }
    }
}

impl<T> Space<T> {
    /// The lowest id from `min` to `max` that is not in use.
    fn lowest_free(&self, min: u32, max: u32) -> Option<u32> {
        if min > max {
            return None;
        }
        let mut free = min;
        for id in self.ids.range(min..=max).map(|(id, _)| *id) {
            if id != free {
                break;
            }
            free += 1;
        }
        (free <= max).then_some(free)
    }
}

/// The allocators of one provider, which share their ids.
struct Sharing<T> {
    provider: Provider,
    /// Never empty; the first one is asked.
    members: Vec<(AllocatorId, Box<dyn Allocator>)>,
    space: Space<T>,
}

/// Ids, each with an owner and something that it stands for.
pub struct IdSpaces<T> {
    default: Space<T>,
    /// In the order in which they came; the first one is active.
    custom: Vec<Sharing<T>>,
}

impl<T> Default for IdSpaces<T> {
    fn default() -> Self {
        IdSpaces {
            default: Space::default(),
            custom: Vec::new(),
        }
    }
}

impl<T> IdSpaces<T> {
    /// No id is allocated, and the default allocator is the only one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a custom allocator. The first one becomes active, which cannot be while ids of the
    /// default allocator are in use. One of another provider than the active one waits.
    pub fn register(
        &mut self,
        id: AllocatorId,
        provider: Provider,
        allocator: Box<dyn Allocator>,
    ) -> Result<(), RegisterError> {
        let known = self.custom.iter().flat_map(|s| &s.members);
        if known.into_iter().any(|(known, _)| *known == id) && !breaks(Mutant::N1_7) {
            return Err(RegisterError::Registered);
        }
        let in_use = self.default.ids.len();
        if self.custom.is_empty() && in_use > 0 && !breaks(Mutant::N1_6) {
            return Err(RegisterError::DefaultInUse(in_use));
        }
        let shares = |s: &&mut Sharing<T>| s.provider == provider && !breaks(Mutant::N1_8);
        match self.custom.iter_mut().find(shares) {
            Some(sharing) => sharing.members.push((id, allocator)),
            None => {
                let sharing = Sharing {
                    provider,
                    members: vec![(id, allocator)],
                    space: Space::default(),
                };
                match breaks(Mutant::N1_9) {
                    true => self.custom.insert(0, sharing),
                    false => self.custom.push(sharing),
                }
            }
        }
        Ok(())
    }

    /// Takes a custom allocator away. Ids stay as long as another one of its provider is left; then
    /// the next provider is active, or the default allocator.
    pub fn unregister(&mut self, id: AllocatorId) -> Result<(), Warning> {
        let has = |s: &Sharing<T>| s.members.iter().any(|(known, _)| *known == id);
        let Some(at) = self.custom.iter().position(has) else {
            return Err(Warning::UnknownAllocator);
        };
        let sharing = &mut self.custom[at];
        sharing.members.retain(|(known, _)| *known != id);
        if breaks(Mutant::N1_12) && at > 0 {
            return Ok(());
        }
        if !sharing.members.is_empty() && !breaks(Mutant::N1_10) {
            return Ok(());
        }
        let left = self.custom.remove(at).space.ids.len();
        match left {
            0 => Ok(()),
            left => Err(Warning::LeftWithIds(left)),
        }
    }

    /// Allocates an id from `min` to `max`, both included: of the default allocator the lowest one
    /// that is free, of a custom one what it gives. None if there is none, or if the custom
    /// allocator gave one that is in use, which it gets back.
    pub fn allocate(&mut self, set: SetId, min: u32, max: u32, data: T) -> Option<u32> {
        let entry = Entry { set, data };
        let max = max.min(MAX_ID);
        let custom = match breaks(Mutant::N1_5) {
            true => None,
            false => self.custom.first_mut(),
        };
        let Some(sharing) = custom else {
            let first = match breaks(Mutant::N1_1) {
                true => min + 1,
                false => min,
            };
            let id = self.default.lowest_free(first, max)?;
            self.default.ids.insert(id, entry);
            return Some(id);
        };
        let (_, allocator) = sharing.members.first_mut()?;
        let id = allocator.allocate(min, max)?;
        if sharing.space.ids.contains_key(&id) {
            if !breaks(Mutant::N1_11) {
                allocator.free(id);
            }
            return None;
        }
        sharing.space.ids.insert(id, entry);
        Some(id)
    }

    /// Frees an id. It can be allocated again.
    pub fn free(&mut self, id: u32) -> Result<(), Warning> {
        let unknown = Warning::FreedUnknown(id);
        match self.custom.first_mut() {
            Some(sharing) => {
                sharing.space.ids.remove(&id).ok_or(unknown)?;
                if let Some((_, allocator)) = sharing.members.first_mut() {
                    allocator.free(id);
                }
            }
            None if breaks(Mutant::N1_2) => {}
            None => {
                self.default.ids.remove(&id).ok_or(unknown)?;
            }
        }
        Ok(())
    }

    /// What an id stands for, if it belongs to `set` (to any, if that is none), and if `getter`
    /// takes it. What it does not take is none.
    pub fn find(
        &self,
        set: Option<SetId>,
        id: u32,
        getter: impl FnOnce(&T) -> bool,
    ) -> Result<Option<&T>, FindError> {
        let space = self.active();
        let entry = space.ids.get(&id).ok_or(FindError::NotAllocated(id))?;
        if set.is_some_and(|set| set != entry.set) && !breaks(Mutant::N1_3) {
            return Err(FindError::OtherSet(id));
        }
        Ok(getter(&entry.data).then_some(&entry.data))
    }

    /// Replaces what an id stands for, and returns what it stood for. Nobody looks at the old one
    /// any more: a reference to it borrows the spaces.
    ///
    /// ```compile_fail
    /// # use host_iommu::ids::{IdSpaces, SetId};
    /// let mut spaces = IdSpaces::new();
    /// let id = spaces.allocate(SetId(1), 1, 9, "old").unwrap();
    /// let found = spaces.find(None, id, |_| true).unwrap();
    /// spaces.set_data(id, "new").unwrap();
    /// assert_eq!(found, Some(&"old"));
    /// ```
    pub fn set_data(&mut self, id: u32, data: T) -> Result<T, FindError> {
        let space = match self.custom.first_mut() {
            Some(sharing) => &mut sharing.space,
            None => &mut self.default,
        };
        let entry = space.ids.get_mut(&id).ok_or(FindError::NotAllocated(id))?;
        match breaks(Mutant::N1_4) {
            true => Ok(data),
            false => Ok(std::mem::replace(&mut entry.data, data)),
        }
    }

    /// How many ids of the active allocator are in use.
    pub fn in_use(&self) -> usize {
        self.active().ids.len()
    }

    fn active(&self) -> &Space<T> {
        self.custom.first().map_or(&self.default, |s| &s.space)
    }
}
