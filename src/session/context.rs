//! What all sessions share, and what a session asks of it.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::Instant;

use super::action::{Authenticated, Env, Join};
use super::destination::Destination;
use super::error::SessionError;
use super::limits::{ClientAddress, ConnectionLimits, LimitGuard};
use super::subscription::{StateSubscription, Topic};
use super::timer_wheel::TimerWheel;
use crate::auth::{TokenError, Verifier};
use crate::queue::{Queue, SubscriberRef, TokenKey};
use crate::{clock, config};

/// What all sessions share.
#[derive(Debug)]
pub struct SessionContext {
    /// Joins visitors to the queue.
    pub queue: Queue,
    /// Verifies tokens.
    pub verifier: Verifier,
    /// `[queue]`.
    pub settings: Arc<config::Queue>,
    /// `[xmpp]`.
    pub xmpp: Arc<config::Xmpp>,
    /// Counts connections and watchers.
    pub limits: ConnectionLimits,
    /// Runs the sessions' timers.
    pub timers: Arc<TimerWheel>,
}

impl SessionContext {
    pub(super) fn env(&self) -> Env<'_> {
        Env {
            queue: &self.settings,
            xmpp: &self.xmpp,
            now: clock::now(),
        }
    }

    /// Verifies a token. It waits only if the key must be fetched.
    pub(super) async fn authenticate(&self, token: &str) -> Result<Authenticated, TokenError> {
        let verified = self.verifier.verify(token, clock::now()).await?;
        let mut key = [0; 16];
        key.copy_from_slice(&digest(&SHA256, token.as_bytes()).as_ref()[..16]);
        Ok(Authenticated {
            grant: verified.grant().clone(),
            key: TokenKey(key),
            expiry: verified.expiry(),
        })
    }

    /// Joins the queue, or starts to watch it.
    pub(super) fn join(
        &self,
        destination: Destination,
        join: &Join,
        client_address: Option<ClientAddress>,
        subscriber: SubscriberRef,
    ) -> Result<Topic, SessionError> {
        match destination {
            Destination::Visitor(conference) => {
                let token = (!join.is_service).then_some(join.token);
                // The session's connection is counted already.
                let address = client_address.filter(|_| join.is_further_wait);
                let limit = address
                    .map(|address| self.count_wait(address))
                    .transpose()?;
                Ok(Topic::Visitor {
                    number: join.number,
                    ticket: self.queue.join(conference, token, subscriber)?,
                    is_released: false,
                    limit,
                })
            }
            Destination::State(conference) => {
                let watchers = &self.limits.watchers;
                let limit = watchers.add(join.token, self.settings.max_per_token);
                Ok(Topic::State(Box::new(StateSubscription {
                    conference,
                    last_sent: None,
                    next_update_at: Instant::now(),
                    _limit: limit.ok_or(SessionError::WatcherLimit)?,
                })))
            }
        }
    }

    fn count_wait(
        &self,
        address: ClientAddress,
    ) -> Result<Box<LimitGuard<ClientAddress>>, SessionError> {
        let connections = &self.limits.connections;
        let limit = connections.add(address, self.settings.max_per_address);
        limit.map(Box::new).ok_or(SessionError::AddressLimit)
    }
}
