// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a structure is declared: once, with the bits of each field. One declaration serves to read,
//! to build and to print it. Not of the specification.
//!
//! A structure has one to eight words of 64 bits; crates for bit fields have them in one integer.

/// Declares a structure by its fields. A line has the name of the field, that of the function which
/// sets it, a type, the word and its bits:
///
/// ```text
/// layout! {
///     /// A table entry.
///     pub struct Entry([u64; 2]) {
///         /// P: Present.
///         p, with_p: bool = 0[0];
///         /// DID: Domain Identifier.
///         did, with_did: DomainId = 1[15:0];
///         /// PTR: a pointer, whose lower bits are those of other fields.
///         ptr, with_ptr: pointer = 0[63:12];
///     }
/// }
/// ```
///
/// Fields must not overlap. What `Debug` prints are the fields that are not zero, and the bits that
/// belong to none. A value must fit into its field; of a pointer, the lower bits are left out.
macro_rules! layout {
    (
        $(#[$meta:meta])*
        pub struct $name:ident($words:tt) {
            $($(#[$doc:meta])* $get:ident, $with:ident: $kind:tt = $word:literal[$($bits:tt)+];)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub $crate::spec::layout::layout!(@words $words));

        impl $name {
            /// Number of words.
            const WORDS: usize = $crate::spec::layout::layout!(@count $words);
            /// All fields zero.
            pub const ZERO: Self = Self($crate::spec::layout::layout!(@zero $words));
            /// The bits that belong to a field, by word.
            pub const FIELDS: [u64; Self::WORDS] = {
                let mut fields = [0; Self::WORDS];
                $(
                    let bits = $crate::spec::layout::layout!(@mask $($bits)+);
                    assert!(fields[$word] & bits == 0, "two fields overlap");
                    fields[$word] |= bits;
                )*
                fields
            };

            #[allow(dead_code, reason = "some structures are only read")]
            const fn word(&self, n: usize) -> u64 {
                $crate::spec::layout::layout!(@get_word $words, self, n)
            }

            #[allow(dead_code, reason = "some structures are only read")]
            const fn set(mut self, n: usize, mask: u64, value: u64) -> Self {
                debug_assert!(value & !mask == 0, "a value does not fit into its field");
                let new = self.word(n) & !mask | value & mask;
                $crate::spec::layout::layout!(@set_word $words, self, n, new);
                self
            }

            $(
                $(#[$doc])*
                #[inline]
                pub const fn $get(&self) -> $crate::spec::layout::layout!(@type $kind) {
                    let bits = self.word($word) & $crate::spec::layout::layout!(@mask $($bits)+);
                    $crate::spec::layout::layout!(@value $kind, bits, $($bits)+)
                }

                #[doc = concat!("The same with [`Self::", stringify!($get), "`] set.")]
                #[inline]
                #[must_use]
                pub const fn $with(self, value: $crate::spec::layout::layout!(@type $kind)) -> Self {
                    let mask = $crate::spec::layout::layout!(@mask $($bits)+);
                    let value = $crate::spec::layout::layout!(@bits $kind, value, $($bits)+);
                    self.set($word, mask, value)
                }
            )*
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let mut fields = f.debug_struct(stringify!($name));
                $(
                    if self.word($word) & $crate::spec::layout::layout!(@mask $($bits)+) != 0 {
                        let value = self.$get();
                        fields.field(
                            stringify!($get),
                            &$crate::spec::layout::layout!(@debug $kind, value),
                        );
                    }
                )*
                for (n, of_fields) in Self::FIELDS.iter().enumerate() {
                    let rest = self.word(n) & !of_fields;
                    if rest != 0 {
                        fields.field(&format!("reserved bits of word {n}"), &format_args!("{rest:#x}"));
                    }
                }
                fields.finish()
            }
        }
    };

    (@words u64) => { u64 };
    (@words [u64; $n:literal]) => { [u64; $n] };
    (@count u64) => { 1 };
    (@count [u64; $n:literal]) => { $n };
    (@zero u64) => { 0 };
    (@zero [u64; $n:literal]) => { [0; $n] };
    (@get_word u64, $self:ident, $n:ident) => {{
        let _ = $n;
        $self.0
    }};
    (@get_word [u64; $count:literal], $self:ident, $n:ident) => { $self.0[$n] };
    (@set_word u64, $self:ident, $n:ident, $new:ident) => {{
        let _ = $n;
        $self.0 = $new;
    }};
    (@set_word [u64; $count:literal], $self:ident, $n:ident, $new:ident) => { $self.0[$n] = $new };

    (@mask $bit:literal) => { 1u64 << $bit };
    (@mask $high:literal : $low:literal) => { $crate::spec::mask($high, $low) };
    (@low $bit:literal) => { $bit };
    (@low $high:literal : $low:literal) => { $low };

    (@type pointer) => { u64 };
    (@type DomainId) => { $crate::spec::DomainId };
    (@type SourceId) => { $crate::spec::SourceId };
    (@type $kind:ident) => { $kind };
    (@value bool, $value:ident, $($bits:tt)+) => { $value != 0 };
    (@value pointer, $value:ident, $($bits:tt)+) => { $value };
    (@value DomainId, $value:ident, $($bits:tt)+) => {
        $crate::spec::DomainId(($value >> $crate::spec::layout::layout!(@low $($bits)+)) as u16)
    };
    (@value SourceId, $value:ident, $($bits:tt)+) => {
        $crate::spec::SourceId(($value >> $crate::spec::layout::layout!(@low $($bits)+)) as u16)
    };
    (@value $kind:ident, $value:ident, $($bits:tt)+) => {
        ($value >> $crate::spec::layout::layout!(@low $($bits)+)) as $kind
    };
    (@bits pointer, $value:ident, $($bits:tt)+) => {
        $value & $crate::spec::layout::layout!(@mask $($bits)+)
    };
    (@bits DomainId, $value:ident, $($bits:tt)+) => {
        ($value.0 as u64) << $crate::spec::layout::layout!(@low $($bits)+)
    };
    (@bits SourceId, $value:ident, $($bits:tt)+) => {
        ($value.0 as u64) << $crate::spec::layout::layout!(@low $($bits)+)
    };
    (@bits $kind:ident, $value:ident, $($bits:tt)+) => {
        ($value as u64) << $crate::spec::layout::layout!(@low $($bits)+)
    };
    (@debug bool, $value:ident) => { $value };
    (@debug DomainId, $value:ident) => { $value.0 };
    (@debug SourceId, $value:ident) => { format_args!("{}", $value) };
    (@debug $kind:ident, $value:ident) => { format_args!("{:#x}", $value) };
}

pub(crate) use layout;

#[cfg(test)]
mod tests {
    layout! {
        /// An example.
        pub struct Example([u64; 2]) {
            /// A flag.
            p, with_p: bool = 0[0];
            /// A number.
            n, with_n: u8 = 0[9:4];
            /// A domain.
            did, with_did: DomainId = 1[31:16];
            /// A pointer.
            ptr, with_ptr: pointer = 1[63:32];
        }
    }

    layout! {
        /// One word.
        pub struct Single(u64) {
            /// The highest bit.
            high, with_high: bool = 0[63];
        }
    }

    #[test]
    fn what_was_built_is_read_and_printed() {
        let built = Example::ZERO
            .with_n(0x2a)
            .with_did(crate::spec::DomainId(7))
            .with_ptr(0x12_3456_789a);
        assert_eq!(built.0, [0x2a0, 0x12_0007_0000]);
        assert_eq!(
            (built.p(), built.n(), built.ptr()),
            (false, 0x2a, 0x12_0000_0000)
        );
        let other = Example([built.0[0] | 1 << 13, built.0[1]])
            .with_n(1)
            .with_p(true);
        assert_eq!(
            format!("{other:?}"),
            "Example { p: true, n: 0x1, did: 7, ptr: 0x1200000000, reserved bits of word 0: 0x2000 }"
        );
        assert_eq!(Example::FIELDS, [0x3f1, 0xffff_ffff_ffff_0000]);
        assert!(Single(1 << 63).high() && Single::ZERO.with_high(true).0 == 1 << 63);
        assert_eq!(format!("{:?}", Single::ZERO), "Single");
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_value_beyond_its_field_is_a_mistake() {
        let _ = Example::ZERO.with_n(0x40);
    }
}
