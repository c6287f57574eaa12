// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moderation of a context's interrupts: several completions share one. The time is an argument;
//! the module does not know the causes of interrupts.

use svm_abi::registers::moderation;

/// The setting, and the completions whose interrupt is held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moderation {
    setting: u64,
    /// Completions whose interrupt is held back.
    held: u16,
    /// The time of the host's clock when the first of them was noticed.
    since: Option<u64>,
}

impl Moderation {
    /// The register's value.
    pub fn setting(&self) -> u64 {
        self.setting
    }

    /// Changes the setting. Returns whether to send an interrupt that was held back.
    #[must_use = "the interrupt that was held back has to be sent"]
    pub fn set(&mut self, setting: u64) -> bool {
        let held = self.holds_back();
        *self = Moderation {
            setting: setting & moderation::ALL,
            ..Moderation::default()
        };
        held
    }

    /// A completion asks for an interrupt. Returns whether to send one now.
    #[must_use = "the interrupt has to be sent"]
    pub fn completed(&mut self) -> bool {
        self.held += 1;
        let send = self.held >= moderation::completions(self.setting);
        if send {
            self.forget();
        }
        send
    }

    /// Whether an interrupt is held back.
    pub fn holds_back(&self) -> bool {
        self.held != 0
    }

    /// Drops an interrupt that is held back.
    pub fn forget(&mut self) {
        self.held = 0;
        self.since = None;
    }

    /// When to send the interrupt that is held back, if it has a time limit. The wait begins at the
    /// first call.
    pub fn deadline(&mut self, now: u64) -> Option<u64> {
        let most = moderation::microseconds(self.setting);
        if !self.holds_back() || most == 0 {
            return None;
        }
        Some(self.since.get_or_insert(now).saturating_add(most.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(completions: u16, microseconds: u32) -> Moderation {
        let mut m = Moderation::default();
        assert!(!m.set(moderation::encode(completions, microseconds)));
        m
    }

    #[test]
    fn without_a_setting_each_completion_is_told() {
        for completions in [0, 1] {
            let mut m = with(completions, 100);
            assert!(m.completed() && m.completed());
            assert_eq!(m.deadline(7), None);
        }
    }

    #[test]
    fn as_many_completions_as_the_number_share_an_interrupt() {
        let mut m = with(3, 0);
        let told: Vec<_> = (0..7).map(|_| m.completed()).collect();
        assert_eq!(told, [false, false, true, false, false, true, false]);
        assert_eq!(m.deadline(0), None, "without a limit of time");
        let mut most = with(u16::MAX, 0);
        let told = (0..u32::from(u16::MAX)).filter(|_| most.completed());
        assert_eq!(told.count(), 1);
    }

    #[test]
    fn the_first_completion_waits_no_longer_than_the_time() {
        let mut m = with(100, 50);
        assert_eq!(m.deadline(1000), None);
        assert!(!m.completed());
        assert_eq!(m.deadline(1010), Some(1060));
        assert!(!m.completed());
        assert_eq!(m.deadline(1059), Some(1060));
        m.forget();
        assert_eq!(m.deadline(1060), None);
    }

    #[test]
    fn a_new_setting_lets_go_what_was_held_back() {
        let mut m = with(5, 50);
        assert!(!m.completed());
        assert!(m.set(!0));
        assert_eq!(m.setting(), moderation::ALL);
        assert!(!m.set(0));
    }
}
