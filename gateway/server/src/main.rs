// SPDX-License-Identifier: Apache-2.0
//! The program. Everything is in the library, so that tests start the same gateway.

fn main() -> std::process::ExitCode {
    portcullis_server::cli::run()
}
