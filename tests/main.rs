// SPDX-License-Identifier: Apache-2.0
//! The contents page of the tests that speak to a whole gateway.

mod architecture;
mod journeys {
    mod first_day;
}
mod support;
