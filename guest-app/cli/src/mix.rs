// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operations of a load, and how often each occurs.

use std::str::FromStr;

use svmctl::abi::descriptor::Operation;

use svm_cases::harness::random::Random;

/// Kinds of work for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An operation that must succeed.
    Operation(Operation),
    /// A copy from an unmapped address, which must fail.
    Fault,
}

impl Kind {
    /// Name on the command line and in tables.
    pub fn key(self) -> &'static str {
        match self {
            Kind::Operation(operation) => operation.key(),
            Kind::Fault => "fault",
        }
    }

    /// All of them, in the order of the operations' numbers.
    pub fn all() -> impl Iterator<Item = Kind> {
        let operations = Operation::ALL.iter().copied().map(Kind::Operation);
        operations.chain([Kind::Fault])
    }

    /// Index in [`Kind::all`].
    pub fn index(self) -> usize {
        match self {
            Kind::Operation(operation) => operation as usize,
            Kind::Fault => KINDS - 1,
        }
    }
}

/// Number of kinds.
pub const KINDS: usize = Operation::ALL.len() + 1;

/// Kinds with weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(Kind, u64)>);

impl Default for Mix {
    /// All kinds, with more weight on those that move data.
    fn default() -> Mix {
        let weight = |kind| match kind {
            Kind::Operation(Operation::Copy) => 8,
            Kind::Operation(Operation::Fill | Operation::Crc32c | Operation::Compare) => 4,
            Kind::Operation(Operation::Gather | Operation::Batch) => 2,
            _ => 1,
        };
        Mix(Kind::all().map(|kind| (kind, weight(kind))).collect())
    }
}

impl FromStr for Mix {
    type Err = String;

    /// Parses names with weights, such as `copy=4,crc32c`. The default weight is 1.
    fn from_str(text: &str) -> Result<Mix, String> {
        let mut mix = Vec::new();
        for item in text.split(',') {
            let (name, weight) = item.split_once('=').unwrap_or((item, "1"));
            let weight = weight
                .parse()
                .ok()
                .filter(|weight| (1..=1000).contains(weight))
                .ok_or_else(|| format!("`{weight}` is no weight from 1 to 1000"))?;
            let kind = Kind::all().find(|kind| kind.key() == name).ok_or_else(|| {
                let names: Vec<_> = Kind::all().map(Kind::key).collect();
                format!(
                    "no operation is called `{name}`; there are: {}",
                    names.join(", ")
                )
            })?;
            mix.push((kind, weight));
        }
        Ok(Mix(mix))
    }
}

impl Mix {
    /// Keeps only the operations that a device has, by its bits. `None` if none are left.
    pub fn of_device(&self, operations: u64) -> Option<Mix> {
        let has = |kind: Kind| match kind {
            Kind::Operation(operation) => operations >> operation as u8 & 1 != 0,
            Kind::Fault => true,
        };
        let kinds: Vec<_> = self
            .0
            .iter()
            .copied()
            .filter(|(kind, _)| has(*kind))
            .collect();
        (!kinds.is_empty()).then_some(Mix(kinds))
    }

    /// Chooses one of the kinds at random.
    pub fn draw(&self, random: &mut Random) -> Kind {
        let total = self.0.iter().map(|(_, weight)| weight).sum();
        let mut left = random.below(total);
        for (kind, weight) in &self.0 {
            if left < *weight {
                return *kind;
            }
            left -= weight;
        }
        // Not reached: the weights add up to `total`.
        Kind::Operation(Operation::Nop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_written_with_weights() {
        let mix: Mix = "copy=3,fault".parse().unwrap();
        let mut random = Random::new(1);
        let mut copies = 0;
        for _ in 0..4000 {
            match mix.draw(&mut random) {
                Kind::Operation(Operation::Copy) => copies += 1,
                Kind::Fault => {}
                other => panic!("{other:?}"),
            }
        }
        assert!((2800..3200).contains(&copies), "{copies}");
    }

    #[test]
    fn what_is_no_mix_is_said() {
        let error = |text: &str| text.parse::<Mix>().unwrap_err();
        assert!(error("copi=1").contains("compare_swap"));
        assert!(error("copy=0").contains("1 to 1000"));
        assert!(error("").contains("no operation"));
    }

    #[test]
    fn a_device_gets_only_what_it_performs() {
        let all = Mix::default();
        let mix = all.of_device(1 << Operation::Nop as u8).unwrap();
        assert_eq!(mix.0.len(), 2);
        let copies: Mix = "copy".parse().unwrap();
        assert_eq!(copies.of_device(0), None);
    }

    #[test]
    fn kinds_have_distinct_places() {
        let places: Vec<_> = Kind::all().map(Kind::index).collect();
        assert_eq!(places, (0..KINDS).collect::<Vec<_>>());
    }
}
