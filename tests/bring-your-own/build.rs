// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compiles the model.

fn main() {
    for file in ["small_iommu.c", "small_iommu.h"] {
        println!("cargo::rerun-if-changed=model/{file}");
    }
    cc::Build::new()
        .file("model/small_iommu.c")
        .flag_if_supported("-std=c11")
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true)
        .compile("small_iommu");
}
