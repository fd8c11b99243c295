//! Gives memory back when a burst of work is over.
//!
//! Work is told by the processor time that the process has taken: that needs no word from anyone,
//! and counts all threads. A daemon that does nothing is woken every two seconds for this.

use std::time::Duration;

use berth_tasks::Shutdown;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::timeout;

/// How often it is looked at, while memory may be worth giving back and afterwards.
const WARM: Duration = Duration::from_secs(1);
const COLD: Duration = Duration::from_secs(2);
/// So much processor time in an interval is work; so little is rest.
const WORK: Duration = Duration::from_millis(20);
const REST: Duration = Duration::from_millis(5);

/// Runs as long as the daemon.
pub async fn keep(shutdown: Shutdown) {
    let (mut warm, mut before) = (true, spent());
    while timeout(if warm { WARM } else { COLD }, shutdown.requested())
        .await
        .is_err()
    {
        let now = spent();
        let took = now.saturating_sub(before);
        before = now;
        if warm && took < REST {
            berth_sys::memory::trim();
            berth_sys::memory::unmap_program();
            warm = false;
        } else if took > WORK {
            warm = true;
        }
    }
}

/// The processor time of all threads so far.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}
