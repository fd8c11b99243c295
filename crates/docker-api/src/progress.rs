//! Progress of pulls, loads and imports: messages from any thread become lines of JSON.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_base::size::human_decimal;
use berth_docker::stream::{ErrorDetail, JsonMessage, ProgressDetail};
use berth_http::Body;
use berth_http::body::{self, Sender};
use berth_image::{Progress, Reporter};
use berth_tasks::Scope;
use http::{Response, StatusCode};
use tokio::sync::Notify;

use crate::error::Error;
use crate::respond::{self, Answer};

/// Messages that wait for the client. One that only moves a bar replaces its predecessor, so
/// that a slow client bounds the queue by the number of bars, not by time.
#[derive(Default)]
struct Queue {
    messages: Mutex<VecDeque<Progress>>,
    arrived: Notify,
}

impl Queue {
    fn with_reporter() -> (Arc<Self>, Reporter) {
        let queue = Arc::new(Self::default());
        let pushed = Arc::clone(&queue);
        (queue, Arc::new(move |message| pushed.push(message)))
    }

    fn push(&self, message: Progress) {
        let mut messages = self.messages();
        let replaced = message.current.is_some().then(|| {
            messages.iter_mut().rev().find(|other| {
                other.id == message.id && other.status == message.status && other.current.is_some()
            })
        });
        match replaced.flatten() {
            Some(earlier) => *earlier = message,
            None => messages.push_back(message),
        }
        drop(messages);
        self.arrived.notify_one();
    }

    fn pop(&self) -> Option<Progress> {
        self.messages().pop_front()
    }

    /// Cancel safe.
    async fn next(&self) -> Progress {
        loop {
            if let Some(message) = self.pop() {
                return message;
            }
            self.arrived.notified().await;
        }
    }

    fn messages(&self) -> MutexGuard<'_, VecDeque<Progress>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers with the messages of `work` as they come. A failure before the first message has its
/// status; one after it is the last line. The work is dropped when the client leaves.
pub async fn stream<F>(scope: &Scope, work: impl FnOnce(Reporter) -> F) -> Answer
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (queue, reporter) = Queue::with_reporter();
    let mut work = Box::pin(work(reporter));
    let mut ended = None;
    let first = tokio::select! {
        biased;
        message = queue.next() => Some(message),
        result = &mut work => {
            // Its last messages may have come with its end.
            let message = queue.pop();
            if let (None, Err(error)) = (&message, &result) {
                return Err(error.clone());
            }
            ended = Some(result);
            message
        }
    };
    Ok(answer(scope, queue, first, ended, work))
}

/// Like [`stream`], but a failure is always a line: what dockerd does for loads.
pub fn stream_failures<F>(scope: &Scope, work: impl FnOnce(Reporter) -> F) -> Response<Body>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (queue, reporter) = Queue::with_reporter();
    let work = Box::pin(work(reporter));
    answer(scope, queue, None, None, work)
}

fn answer<F>(
    scope: &Scope,
    queue: Arc<Queue>,
    first: Option<Progress>,
    ended: Option<Result<(), Error>>,
    work: Pin<Box<F>>,
) -> Response<Body>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (sender, body) = body::channel(respond::QUEUED_CHUNKS);
    scope.spawn("progress of a client", async move {
        let client = sender.clone();
        tokio::select! {
            () = deliver(&sender, &queue, first, ended, work) => {}
            () = client.closed() => {}
        }
    });
    respond::respond(StatusCode::OK, respond::JSON, body)
}

async fn deliver<F>(
    client: &Sender,
    queue: &Queue,
    first: Option<Progress>,
    ended: Option<Result<(), Error>>,
    mut work: Pin<Box<F>>,
) where
    F: Future<Output = Result<(), Error>>,
{
    if let Some(first) = first
        && client.send(respond::line(&message(first))).await.is_err()
    {
        return;
    }
    let result = match ended {
        Some(result) => result,
        None => loop {
            let progress = tokio::select! {
                biased;
                progress = queue.next() => progress,
                result = &mut work => break result,
            };
            if client
                .send(respond::line(&message(progress)))
                .await
                .is_err()
            {
                return;
            }
        },
    };
    while let Some(rest) = queue.pop() {
        if client.send(respond::line(&message(rest))).await.is_err() {
            return;
        }
    }
    if let Err(error) = result {
        // The last line; whether the client is still there does not matter any more.
        client.send(respond::line(&failure(error))).await.ok();
    }
}

fn failure(error: Error) -> JsonMessage {
    JsonMessage {
        error_detail: Some(ErrorDetail {
            code: 0,
            message: error.message.clone(),
        }),
        error: error.message,
        ..JsonMessage::default()
    }
}

fn message(progress: Progress) -> JsonMessage {
    if let Some(stream) = progress.stream {
        return JsonMessage {
            stream,
            ..JsonMessage::default()
        };
    }
    let number = |value: Option<u64>| i64::try_from(value.unwrap_or(0)).unwrap_or(i64::MAX);
    let detail = ProgressDetail {
        current: number(progress.current),
        total: number(progress.total),
        ..ProgressDetail::default()
    };
    JsonMessage {
        progress: bar(&detail),
        // dockerd has the field, empty, in every message about a part.
        progress_detail: (!progress.id.is_empty() && is_part(&progress.status)).then_some(detail),
        status: progress.status,
        id: progress.id,
        ..JsonMessage::default()
    }
}

/// Whether a message speaks of a layer; only the first line of a pull has an id that is none.
fn is_part(status: &str) -> bool {
    !status.starts_with("Pulling from ")
}

/// The width of the bar between its brackets.
const BAR_WIDTH: i64 = 50;

/// The bar that older clients print as it is.
fn bar(detail: &ProgressDetail) -> String {
    let human = |bytes: i64| human_decimal(approximate(bytes), 4);
    match (detail.current, detail.total) {
        (..=0, ..=0) => String::new(),
        (current, ..=0) => format!("{:>8}", human(current)),
        (current, total) => {
            let share = i128::from(current) * i128::from(BAR_WIDTH) / i128::from(total);
            let done = usize::try_from(share.clamp(0, BAR_WIDTH.into())).unwrap_or(0);
            let bar = "=".repeat(done);
            let rest = usize::try_from(BAR_WIDTH).unwrap_or(0) - done;
            let numbers = if current > total {
                format!("{:>8}", human(current))
            } else {
                format!("{:>8}/{}", human(current), human(total))
            };
            format!("[{bar}>{}] {numbers}", " ".repeat(rest))
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a size for people, with four digits"
)]
fn approximate(bytes: i64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_that_moves_replaces_its_predecessor() {
        let queue = Queue::default();
        queue.push(Progress::status("a", "Pulling fs layer"));
        queue.push(Progress::of("a", "Downloading", 1, 9));
        queue.push(Progress::of("b", "Downloading", 1, 9));
        queue.push(Progress::of("a", "Downloading", 5, 9));
        let got: Vec<_> = std::iter::from_fn(|| queue.pop())
            .map(|message| (message.id, message.current))
            .collect();
        let expect = [
            ("a".into(), None),
            ("a".to_string(), Some(5)),
            ("b".to_string(), Some(1)),
        ];
        assert_eq!(got, expect);
    }

    #[test]
    fn lines_look_like_dockerds() {
        let check = |progress: Progress, expect: &str| {
            assert_eq!(serde_json::to_string(&message(progress)).unwrap(), expect);
        };
        check(
            Progress::status("1", "Pulling from library/x"),
            r#"{"status":"Pulling from library/x","id":"1"}"#,
        );
        check(
            Progress::status("abc", "Pull complete"),
            r#"{"status":"Pull complete","progressDetail":{},"id":"abc"}"#,
        );
        check(
            Progress::of("abc", "Downloading", 500, 1000),
            concat!(
                r#"{"status":"Downloading","progressDetail":{"current":500,"total":1000},"#,
                r#""progress":"[=========================>                         ]     "#,
                r#"500B/1kB","id":"abc"}"#
            ),
        );
        check(Progress::stream("x\n"), r#"{"stream":"x\n"}"#);
    }
}
