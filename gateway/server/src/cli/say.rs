// SPDX-License-Identifier: Apache-2.0
//! What verbs print. Whoever reads it may go away (`| head`), and the disk below it may be full: a verb goes on to its
//! end all the same, where `println!` would end it in the middle of what it does, and an exit code of its own says
//! that not all was heard.

use std::{
    fmt,
    io::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether something could not be printed.
static UNHEARD: AtomicBool = AtomicBool::new(false);

/// Prints a line on the standard output.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::cli::say::out(format_args!("{}\n", format_args!($($words)*)))
    };
}

/// Prints a line on the standard error.
macro_rules! complain {
    ($($words:tt)*) => {
        $crate::cli::say::error(format_args!("{}\n", format_args!($($words)*)))
    };
}

pub(super) use {complain, say};

/// Prints on the standard output as it is.
pub(super) fn out(words: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    heard(out.write_fmt(words));
}

/// Prints a question on the standard output, whose line does not end. Nobody answers what they did not read, so an error
/// is not passed over.
pub(super) fn ask(words: fmt::Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_fmt(words)?;
    out.flush()
}

/// Prints on the standard error as it is.
pub(super) fn error(words: fmt::Arguments<'_>) {
    // Nowhere is left to say that this failed.
    let _ = io::stderr().lock().write_fmt(words);
}

/// Whether all that was printed could be.
pub(super) fn is_heard() -> bool {
    heard(io::stdout().flush());
    !UNHEARD.load(Ordering::Relaxed)
}

fn heard(printed: io::Result<()>) {
    let Err(error) = printed else { return };
    let first = !UNHEARD.swap(true, Ordering::Relaxed);
    // Who closed it has seen what they wanted.
    if first && error.kind() != io::ErrorKind::BrokenPipe {
        complain!("portcullis: what was done could not all be printed: {error}");
    }
}
