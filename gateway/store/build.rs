// SPDX-License-Identifier: Apache-2.0
//! A new migration file must rebuild this crate: the macro that embeds them sees changed files, but not new ones.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
