// SPDX-License-Identifier: MIT OR Apache-2.0
//! The recipe of the guest: the only file to change for new packages; for the kernel's series it is
//! [`super::series`].

/// The Debian release that the root is made from.
pub const SUITE: &str = "trixie";

/// The suite that newer packages come from.
pub const BACKPORTS: &str = "trixie-backports";

/// Series of QEMU: the plug-in knows its layout.
pub const QEMU_SERIES: &str = "11.1";

/// Source packages taken from [`BACKPORTS`]: QEMU's dependencies and the kernel's.
pub const BACKPORTED: &[&str] = &["seabios", "ipxe", "elfutils", "linux", "edk2"];

/// Packages of the root: QEMU, busybox, and the tools to build kernel modules in Rust.
pub const PACKAGES: &[&str] = &[
    "bc",
    "bindgen",
    "bison",
    "busybox-static",
    "cpio",
    "dwarves",
    "flex",
    "gcc",
    "kmod",
    "libc6-dev",
    "libdw1t64",
    "libelf-dev",
    "libelf1t64",
    "libssl-dev",
    "make",
    "perl",
    "pkg-config",
    "python3",
    "qemu-system-x86",
    "rsync",
    "rust-src",
    "rustc",
    "xz-utils",
    "zstd",
];

/// Packages of the toolchain for a kernel with sanitizers. It compiles C with clang, because the
/// kernel supports Rust together with KASAN only with clang.
pub const TOOLCHAIN_PACKAGES: &[&str] = &[
    "bc",
    "bindgen",
    "bison",
    "clang",
    "cpio",
    "flex",
    "gcc",
    "kmod",
    "libc6-dev",
    "libdw1t64",
    "libelf-dev",
    "libelf1t64",
    "libssl-dev",
    "lld",
    "llvm",
    "lz4",
    "make",
    "perl",
    "python3",
    "rust-src",
    "rustc",
    "xz-utils",
];

/// Modules of the distribution's kernel that guests load, each with all that it depends on.
pub const MODULES: &[&str] = &["zram", "vfio-pci", "vfio_iommu_type1"];

/// Drivers of other devices, and the module for file systems in user space: every guest contains
/// them, and loads them only if needed.
pub const DEVICE_MODULES: &[&str] = &["virtio_blk", "nvme", "e1000e", "fuse"];

/// Revision of the build procedure of components; increment it if the procedure changes without a
/// change of another constant or script here.
pub const REVISION: u32 = 1;

/// Free space that making root and kernel takes at its peak, in MiB.
pub const SPACE_MIB: u64 = 5120;

/// Free space that making a kernel takes at its peak, with a toolchain if it needs one, in MiB.
pub const DEBUG_SPACE_MIB: u64 = 9216;

/// The file that holds these constants, for messages.
pub const FILE: &str = "vmm-glue/launch/src/prepare/recipe.rs";
