//! usher from outside: HTTP, the command line, and the faults of the world.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, a panic is the report"
)]

mod bookings;
mod check;
#[path = "../../src/session/websocket/client_frame.rs"]
mod client_frame;
mod clock;
mod commands;
mod conformance;
mod connections;
mod database;
mod disk;
mod docs;
mod flood;
mod forget;
mod harness;
mod house;
mod keys;
mod language;
mod layers;
mod live;
mod manners;
mod metrics;
mod names;
mod nginx;
mod pace;
mod pauses;
mod places;
mod process;
mod prosody;
mod prosody_faults;
mod queue;
mod reservations;
mod scopes;
mod scripted;
mod stomp;
mod systemd;
mod upstream;
mod websocket;
