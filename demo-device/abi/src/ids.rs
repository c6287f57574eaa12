// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI identification and the function's BARs.

/// PCI vendor id (PCIe 7.5.1.1.1): the id that QEMU uses for devices without a vendor.
pub const VENDOR_ID: u16 = 0x1234;
/// PCI device id (PCIe 7.5.1.1.2): "SV".
pub const DEVICE_ID: u16 = 0x5356;
/// PCI revision id (PCIe 7.5.1.1.5).
pub const REVISION_ID: u8 = 1;
/// Base class and sub-class (PCIe 7.5.1.1.6): processing accelerator.
pub const CLASS: u16 = 0x1200;

/// BAR of the registers of [`super::registers`]; for the driver only. 64-bit, not prefetchable.
pub const REGISTERS_BAR: u8 = 0;
/// BAR of the doorbell pages of [`super::doorbell`]; one page per context, mapped by processes.
pub const DOORBELLS_BAR: u8 = 2;
/// BAR of the MSI-X table and pending bits.
pub const MSIX_BAR: u8 = 4;

/// Version of the interface that these files describe: major in bits 15:8, minor in bits 7:0.
/// A driver or program works with a device of the same major number.
pub const ABI_VERSION: u16 = 0x0102;
/// Upper half of the `IDENT` register: "SVMD" in ASCII.
pub const IDENT_MAGIC: u32 = 0x5356_4d44;

/// The largest number of contexts of a function. `CAPABILITIES` has the actual number.
pub const MAX_CONTEXTS: u16 = 256;
/// The largest ring, as log2 of its number of descriptors.
pub const MAX_RING_LOG2: u8 = 15;
/// The longest transfer of one descriptor, as log2 of its number of bytes.
pub const MAX_TRANSFER_LOG2: u8 = 32;
/// The longest batch, as log2 of its number of descriptors.
pub const MAX_BATCH_LOG2: u8 = 10;
