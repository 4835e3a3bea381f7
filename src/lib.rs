//! usher is a sidecar for Prosody in a Jitsi Meet deployment. It answers two questions: whether a conference may
//! start and for how long, and when waiting visitors may enter.
//!
//! The map. A module depends only on modules above it in this list; a test holds the `use` lines against it.
//!
//! | module | owns |
//! | --- | --- |
//! | [`text`], `error_chain` | escaping, truncating; errors with their causes on one line |
//! | [`domain`] | the nouns, pure: conference, booking, allocation, requester, policy (the decision) |
//! | [`stomp`] | STOMP 1.0, 1.1 and 1.2: frames and bytes, sans I/O |
//! | [`clock`], `backoff`, [`metrics`], `batch` | one small thing each |
//! | [`config`] | one file per section: keys, defaults, ranges, what reloads |
//! | [`auth`] | verifying JWTs, their keys, what a token grants, service tokens |
//! | [`store`] | durable state |
//! | [`reservation`] | decide, allocate, find, end, expire; or ask an external system (`gateway`) |
//! | [`queue`] | which visitors wait, and which conferences are live |
//! | [`prosody`] | what Prosody's modules report of a room, and what the room should be |
//! | [`session`] | a WebSocket and the STOMP conversation on it |
//! | [`lifecycle`] | signals, the listening socket, systemd |
//! | [`http`] | routes, the one error body, the accept loop |
//! | [`service`] | configuration to parts (`build`), `health`, start, reload, stop |
//! | `cli` (in the binary) | one file per command |

#![cfg_attr(not(test), deny(clippy::too_many_lines))]

pub mod auth;
mod backoff;
mod batch;
pub mod clock;
pub mod config;
pub mod domain;
mod error_chain;
pub mod http;
pub mod lifecycle;
pub mod metrics;

pub mod prosody;
pub mod queue;
pub mod reservation;
pub mod service;
pub mod session;
pub mod stomp;
pub mod store;
pub mod text;

pub use service::{Service, serve};
