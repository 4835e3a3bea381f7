//! The nouns of the service, as pure values: no I/O, no clock, no configuration file.

pub mod allocation;
pub mod booking;
pub mod conference;
pub mod policy;
pub mod requester;
pub mod reservation;
pub mod room_name;
pub mod room_rules;
pub mod scope;
pub mod secret;
pub mod timestamp;
