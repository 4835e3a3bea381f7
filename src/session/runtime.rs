//! The threads of the sessions. Requests, timers and the watchdog have others: whatever the clients of the queue send,
//! the kernel shares the processors between both.

use std::{io, thread};

use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime for the tasks of the sessions.
#[derive(Debug)]
pub struct SessionRuntime {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl SessionRuntime {
    /// Starts its threads, for half of the processors: a flood leaves the other half alone. Each thread has memory of its
    /// own, which visitors pay for.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread or its files.
    pub fn start() -> io::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads((processors / 2).max(1))
            .thread_name("usher-sessions")
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Where to spawn the tasks.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for SessionRuntime {
    /// Without waiting: a task of another runtime may drop this.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
