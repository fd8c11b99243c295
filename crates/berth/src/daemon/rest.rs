//! Gives memory back when a burst of work is over.
//!
//! Work begins with a request. From then on the processor time that the process takes is looked at
//! each second, which counts all threads and what goes on in the background, until it is at rest.
//! A daemon that nobody asks anything sleeps.

use std::time::Duration;

use berth_tasks::Shutdown;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;
use tokio::time::timeout;

/// How often it is looked at, until all is at rest.
const INTERVAL: Duration = Duration::from_secs(1);
/// So little processor time in an interval is rest.
const REST: Duration = Duration::from_millis(5);
/// Memory is worth giving back when so much was done since the last time.
const WORK: Duration = Duration::from_millis(20);

/// Runs as long as the daemon. `request` is notified when one begins, and when it is answered.
pub async fn keep(request: &Notify, shutdown: Shutdown) {
    let mut given_back = Duration::ZERO;
    loop {
        let mut before = spent();
        loop {
            if timeout(INTERVAL, shutdown.requested()).await.is_ok() {
                return;
            }
            let now = spent();
            if now.saturating_sub(before) < REST {
                break;
            }
            before = now;
        }
        if spent().saturating_sub(given_back) > WORK {
            berth_sys::memory::trim();
            berth_sys::memory::unmap_program();
            given_back = spent();
        }
        tokio::select! {
            () = request.notified() => {}
            () = shutdown.requested() => return,
        }
    }
}

/// The processor time of all threads so far.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}
