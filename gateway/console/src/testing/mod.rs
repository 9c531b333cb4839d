// SPDX-License-Identifier: Apache-2.0
//! What the tests of this room share: made-up screens, a browser, real guests.

pub(crate) mod browser;
pub(crate) mod qemu;
pub(crate) mod scene;
