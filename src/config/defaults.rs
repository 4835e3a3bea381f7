//! What holds where the configuration says nothing. `config.toml` repeats these values for the
//! people who read it; a test compares the two.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

use chrono_tz::Tz;

use super::{Backend, LogFormat, LogLevel, OnFailure};
use crate::domain::booking::StartPolicy;
use crate::domain::policy::PolicyKind;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8060));
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// A limit of 20 000 open files less a thousand for the database, the log and calls to others.
pub(super) const MAX_CONNECTIONS: usize = 19_000;
pub(super) const LOG_FORMAT: LogFormat = LogFormat::Auto;
pub(super) const LOG_LEVEL: LogLevel = LogLevel::Info;
pub(super) const DATABASE_URL: &str = "sqlite:usher.db";
pub(super) const DOMAIN: &str = "meet.example.com";
pub(super) const MUC_PREFIX: &str = "conference";
pub(super) const ACCEPTED_ISSUER: &str = "jitsi";
pub(super) const ACCEPTED_AUDIENCE: &str = "jitsi";
pub(super) const VERIFY_DOMAIN: bool = true;
pub(super) const LEEWAY: Duration = Duration::from_secs(10);
pub(super) const KEY_CACHE: Duration = HOUR;
pub(super) const SERVICE_ISSUER: &str = "jitsi";
/// Below this, a secret or a token is worth a notice.
pub(super) const SECRET_SHORT_BYTES: usize = 16;
pub(super) const BACKEND: Backend = Backend::Local;
pub(super) const POLICY: PolicyKind = PolicyKind::Open;
pub(super) const DURATION: Duration = HOUR.saturating_mul(6);
pub(super) const EARLY_START: Duration = Duration::from_secs(10 * 60);
pub(super) const STARTERS: StartPolicy = StartPolicy::Anyone;
pub(super) const TIME_ZONE: Tz = Tz::UTC;
pub(super) const DECISIONS_KEPT: Duration = DAY.saturating_mul(30);
pub(super) const DECISIONS_MAX: u64 = 100_000;
pub(super) const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(20);
/// Two seconds less than Prosody waits for us.
pub(super) const UPSTREAM_DEADLINE: Duration = Duration::from_secs(18);
pub(super) const RETRY_COUNT: u32 = 3;
pub(super) const RETRY_DELAY: Duration = Duration::from_secs(3);
pub(super) const RETRY_STATUS: RangeInclusive<u16> = 500..=599;
pub(super) const FORWARD_IDENTITY: bool = false;
pub(super) const ON_FAILURE: OnFailure = OnFailure::Deny;
pub(super) const FAILURES_MAX: u32 = 3;
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(10);
pub(super) const OUTBOX_KEPT: Duration = DAY.saturating_mul(7);
pub(super) const OUTBOX_MAX: u32 = 10_000;
pub(super) const QUEUE_PATH: &str = "/waiting-queue";
pub(super) const STATE_INTERVAL: Duration = Duration::from_secs(15);
pub(super) const RELEASE_PER_SECOND: u32 = 0;
pub(super) const LIVE_TTL: Duration = DAY;
pub(super) const HEART_BEAT: Duration = Duration::from_secs(10);
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const RECONNECT_GRACE: Duration = Duration::from_secs(30);
pub(super) const WAITING_MAX: u32 = 10_000;
pub(super) const TRUSTED_PROXIES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];
