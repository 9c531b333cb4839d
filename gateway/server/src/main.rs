// SPDX-License-Identifier: Apache-2.0
//! The program. Everything is in the library, so that tests start the same gateway.

/// The one place that says whose `malloc` this program uses.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    portcullis_server::cli::run()
}
