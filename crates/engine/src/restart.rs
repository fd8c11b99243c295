//! When a container that ended is started again, and how long that waits.
//!
//! Docker's rules (`restartmanager`, moby): the delay begins at 100 ms and doubles up to a
//! minute with every run shorter than 10 s; a longer run sets it back.

use std::time::Duration;

/// The first delay.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest delay.
pub const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A run of at least this long sets the delay back.
pub const STEADY_RUN: Duration = Duration::from_secs(10);

/// A restart policy, parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    No,
    Always,
    UnlessStopped,
    /// At most `limit` times in a row; zero is no limit.
    OnFailure {
        limit: u32,
    },
}

/// What is known about the run that ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub exit_code: i32,
    /// How often the policy has started the container already.
    pub restarts: u32,
    /// Somebody asked for the end (`stop`, `kill` of the main process, `rm -f`).
    pub stopped_by_user: bool,
}

impl Policy {
    /// Whether a container that just ended starts again.
    pub fn restarts_after(self, ended: Ended) -> bool {
        !ended.stopped_by_user && self.wants(ended)
    }

    /// Whether a container that is not running is started when the daemon starts. `always`
    /// starts also what a user stopped, as Docker's does.
    pub fn starts_with_daemon(self, ended: Ended) -> bool {
        match self {
            Self::Always => true,
            Self::No | Self::UnlessStopped | Self::OnFailure { .. } => self.restarts_after(ended),
        }
    }

    fn wants(self, ended: Ended) -> bool {
        match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure { limit } => {
                ended.exit_code != 0 && (limit == 0 || ended.restarts < limit)
            }
        }
    }
}

/// The delay before the next start of one container.
#[derive(Debug, Clone)]
pub struct Backoff(berth_tasks::Backoff);

impl Default for Backoff {
    fn default() -> Self {
        Self(berth_tasks::Backoff::new(FIRST_DELAY, LONGEST_DELAY))
    }
}

impl Backoff {
    /// The delay after a run that lasted `run`.
    pub fn next(&mut self, run: Duration) -> Duration {
        if run >= STEADY_RUN {
            self.0.reset();
        }
        self.0.next_delay()
    }

    /// A start by hand begins anew.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_to_a_minute_and_a_steady_run_resets_it() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let delays: Vec<u128> = (0..12).map(|_| backoff.next(short).as_millis()).collect();
        assert_eq!(
            delays,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000
            ]
        );
        assert_eq!(backoff.next(STEADY_RUN), FIRST_DELAY);
        assert_eq!(backoff.next(short), FIRST_DELAY * 2);
    }

    #[test]
    fn policies_restart_as_dockers() {
        let ended = |exit_code, restarts, stopped_by_user| Ended {
            exit_code,
            restarts,
            stopped_by_user,
        };
        let check = |policy: Policy, ended, now, with_daemon| {
            assert_eq!(policy.restarts_after(ended), now, "{policy:?} {ended:?}");
            assert_eq!(
                policy.starts_with_daemon(ended),
                with_daemon,
                "{policy:?} {ended:?}"
            );
        };
        check(Policy::No, ended(1, 0, false), false, false);
        check(Policy::Always, ended(0, 9, false), true, true);
        check(Policy::Always, ended(0, 0, true), false, true);
        check(Policy::UnlessStopped, ended(0, 0, false), true, true);
        check(Policy::UnlessStopped, ended(0, 0, true), false, false);
        let twice = Policy::OnFailure { limit: 2 };
        check(twice, ended(1, 1, false), true, true);
        check(twice, ended(1, 2, false), false, false);
        check(twice, ended(0, 0, false), false, false);
        check(
            Policy::OnFailure { limit: 0 },
            ended(3, 99, false),
            true,
            true,
        );
    }
}
