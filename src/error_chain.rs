//! Errors with their causes, on one line.

use std::error::Error;

/// Formats an error with its causes: errors of the network have the details there.
pub(crate) fn format(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
