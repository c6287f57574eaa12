// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes a case smaller as long as something holds of it.

use super::case::{At, Case, Change, Cover, Invalidation, Step};

/// How often a case may be tried.
const TRIES: usize = 200;

/// The smallest case that is found of which something holds, as it does of the given one.
pub fn minimise(case: Case, mut holds: impl FnMut(&Case) -> bool) -> Case {
    let mut least = case;
    let mut tries = 0;
    'again: loop {
        for smaller in smaller(&least) {
            tries += 1;
            if tries > TRIES {
                return least;
            }
            if holds(&smaller) {
                least = smaller;
                continue 'again;
            }
        }
        return least;
    }
}

/// Cases that are a little smaller.
fn smaller(case: &Case) -> Vec<Case> {
    let mut found = Vec::new();
    let mut offer = |change: &dyn Fn(&mut Case)| {
        let mut other = case.clone();
        change(&mut other);
        if other != *case {
            found.push(other);
        }
    };
    // The second half of the steps, the first half, and each alone.
    let steps = case.steps.len();
    offer(&|case| case.steps.truncate(steps / 2));
    offer(&|case| drop(case.steps.drain(..steps / 2)));
    for n in (0..steps).rev() {
        offer(&|case| {
            case.steps.remove(n);
        });
    }
    for n in (1..case.spaces.len()).rev() {
        offer(&|case| remove_space(case, n));
    }
    for (n, space) in case.spaces.iter().enumerate() {
        for page in (0..space.pages.len()).rev() {
            offer(&|case| remove_page(case, n, page));
        }
    }
    for n in 0..case.context.len() {
        offer(&|case| {
            case.context.remove(n);
        });
    }
    for (n, space) in case.spaces.iter().enumerate() {
        for fault in 0..space.faults.len() {
            offer(&|case| {
                case.spaces[n].faults.remove(fault);
            });
        }
        offer(&|case| case.spaces[n].pass_through = false);
        for (page, of) in space.pages.iter().enumerate() {
            for fault in 0..of.faults.len() {
                offer(&|case| {
                    case.spaces[n].pages[page].faults.remove(fault);
                });
            }
        }
    }
    for n in 0..steps {
        for simpler in simpler_steps(&case.steps[n]) {
            offer(&|case| case.steps[n] = simpler);
        }
    }
    offer(&|case| case.queued = true);
    offer(&|case| {
        if let Some(unit) = &mut case.wish.unit {
            unit.snoop_control = false;
            unit.caching_mode = false;
        }
    });
    offer(&|case| case.wish.one_gib_pages = true);
    offer(&|case| case.wish.device.execute = false);
    offer(&|case| case.wish.device.privileged = false);
    found
}

/// A step that does a little less.
fn simpler_steps(step: &Step) -> Vec<Step> {
    let mut found = Vec::new();
    match *step {
        Step::Request(request) => {
            for flag in 0..3 {
                let mut simpler = request;
                match flag {
                    0 => simpler.no_write = false,
                    1 => simpler.execute = false,
                    _ => simpler.privileged = false,
                }
                found.push(Step::Request(simpler));
            }
            if let At::Page(page, _) = request.at {
                let mut simpler = request;
                simpler.at = At::Page(page, 0);
                found.push(Step::Request(simpler));
            }
        }
        Step::PageRequest(request) => {
            for flag in 0..3 {
                let mut simpler = request;
                match flag {
                    0 => simpler.execute = false,
                    1 => simpler.privileged = false,
                    _ => simpler.group = 0,
                }
                found.push(Step::PageRequest(simpler));
            }
        }
        Step::Invalidate(invalidation) => {
            found.push(Step::Invalidate(Invalidation {
                reserved: None,
                ..invalidation
            }));
            found.push(Step::Invalidate(Invalidation {
                mask: 0,
                ..invalidation
            }));
        }
        Step::Change(change, _) => found.push(Step::Change(change, Cover::Global)),
    }
    found.retain(|simpler| simpler != step);
    found
}

/// The place that a step names of a space, if it names one.
fn place(step: &mut Step) -> Option<(&mut usize, Option<&mut usize>)> {
    fn page(at: &mut At) -> Option<&mut usize> {
        match at {
            At::Page(page, _) => Some(page),
            _ => None,
        }
    }
    match step {
        Step::Request(r) => Some((&mut r.space, page(&mut r.at))),
        Step::PageRequest(r) => Some((&mut r.space, page(&mut r.at))),
        Step::Invalidate(i) => Some((&mut i.space, page(&mut i.at))),
        Step::Change(Change::Page(space, page, _), _) => Some((space, Some(page))),
        Step::Change(Change::Space(space, _), _) => Some((space, None)),
        Step::Change(Change::Context(_), _) => None,
    }
}

/// Takes a space away, and the steps that use it.
fn remove_space(case: &mut Case, number: usize) {
    case.spaces.remove(number);
    case.steps
        .retain_mut(|step| place(step).is_none_or(|(space, _)| *space != number));
    for step in &mut case.steps {
        if let Some((space, _)) = place(step) {
            *space -= usize::from(*space > number);
        }
    }
}

/// Takes a page away, and the steps that use it.
fn remove_page(case: &mut Case, number: usize, page: usize) {
    case.spaces[number].pages.remove(page);
    case.steps.retain_mut(|step| match place(step) {
        Some((space, Some(other))) => *space != number || *other != page,
        _ => true,
    });
    for step in &mut case.steps {
        if let Some((space, Some(other))) = place(step) {
            *other -= usize::from(*space == number && *other > page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Like;
    use crate::differential::generate;

    #[test]
    fn what_has_nothing_to_do_with_it_goes() {
        let case = generate::case(Like::SvmVtd, 1, 0);
        let wanted = case.steps[3];
        let least = minimise(case, |case| case.steps.contains(&wanted));
        assert_eq!(least.steps, [wanted]);
        assert!(least.context.is_empty());
    }

    #[test]
    fn smaller_cases_name_what_they_have() {
        for n in 0..50 {
            for mut case in smaller(&generate::case(Like::SvmVtd, 2, n)) {
                for step in &mut case.steps {
                    let Some((space, page)) = place(step) else {
                        continue;
                    };
                    let pages = &case.spaces[*space].pages;
                    assert!(page.is_none_or(|page| *page < pages.len()));
                }
            }
        }
    }
}
