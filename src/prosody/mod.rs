//! Prosody's rooms: what the modules report of each, and what each should be.

pub mod wire;
