//! Signals on their way to a container: those that we are sent, and changes of the window's size.

use std::future::Future;

use berth_docker_client::{Client, Query, Request, query};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::warn;
use crate::failure::Failure;

/// What is forwarded, by the name that the API takes. SIGCHLD, SIGPIPE and SIGURG are about
/// ourselves, SIGWINCH has [`watch_size`].
const FORWARDED: &[(i32, &str)] = &[
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (18, "CONT"),
    (20, "TSTP"),
];

/// Sends the container each signal that we get. Signals are caught from the call on; the future
/// never ends.
pub fn forward<'a>(
    client: &'a Client,
    container: &'a str,
) -> Result<impl Future<Output = ()> + 'a, Failure> {
    let mut caught: Vec<(Signal, &str)> = Vec::new();
    for (number, name) in FORWARDED {
        caught.push((signal(SignalKind::from_raw(*number))?, name));
    }
    Ok(async move {
        loop {
            let name = std::future::poll_fn(|cx| {
                for (signal, name) in &mut caught {
                    if signal.poll_recv(cx).is_ready() {
                        return std::task::Poll::Ready(*name);
                    }
                }
                std::task::Poll::Pending
            })
            .await;
            let path = format!("/containers/{}/kill", query::segment(container));
            let request = Request::post(path).query(Query::new().with("signal", name));
            // A container that has just ended needs no signal.
            client.tell(request).await.ok();
        }
    })
}

/// How often one has to ask a client to leave that waits for a container.
const INSISTENCE: u32 = 3;

/// Ends, with the exit code, when the user insists on leaving: at the third SIGINT or SIGTERM.
///
/// Caught from the call on, also where signals are not forwarded: as long as the container runs, a
/// Ctrl-C that is not for it is for nobody. Docker's client does the same.
pub fn insistence() -> Result<impl Future<Output = u8>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        for _ in 0..INSISTENCE {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        warn(format!(
            "\ngot {INSISTENCE} SIGTERM/SIGINTs, forcefully exiting"
        ));
        1
    })
}

/// Gives the terminal at `path` (a container or an exec) our size, now and at each change.
pub fn watch_size<'a>(
    client: &'a Client,
    path: String,
) -> Result<impl Future<Output = ()> + 'a, Failure> {
    let mut changes = signal(SignalKind::window_change())?;
    Ok(async move {
        loop {
            resize(client, &path, 0).await;
            if changes.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    })
}

/// Gives the terminal a size that is not ours, so that the next change to our size is one: only
/// then does a shell that was left before draw its prompt again.
pub async fn unsettle(client: &Client, path: &str) {
    resize(client, path, 1).await;
}

async fn resize(client: &Client, path: &str, more: u16) {
    let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdout()) else {
        return;
    };
    if size.ws_row == 0 && size.ws_col == 0 {
        return;
    }
    let query = Query::new()
        .with("h", size.ws_row.saturating_add(more).to_string())
        .with("w", size.ws_col.saturating_add(more).to_string());
    // The process may not have begun, or have ended already.
    client
        .tell(Request::post(format!("{path}/resize")).query(query))
        .await
        .ok();
}
