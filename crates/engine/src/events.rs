//! What has happened: the last events in a ring, and live delivery.
//!
//! Docker keeps 256 events for `since`; so do we, and a little more, because a burst of starts
//! fills that in no time. A subscriber that reads too slowly loses its place and is ended, rather
//! than holding up the engine.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use berth_base::Timestamp;
use berth_docker::event::{Actor, Message};
use berth_docker::filters::Filters;
use futures_util::Stream;
use tokio::sync::{broadcast, mpsc};

use crate::error::{Error, Result};
use crate::options::EventOptions;

/// How many past events are kept.
pub const KEPT: usize = 1024;
/// How many live events may wait for a slow subscriber.
pub const QUEUED: usize = 4096;

const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Filters for the objects of the types that events have; an image is looked for in other places,
/// too.
const OBJECTS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "network",
    "node",
    "plugin",
    "secret",
    "service",
    "volume",
];

/// The engine's events. Clones share them.
#[derive(Debug, Clone)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    recent: Mutex<VecDeque<Message>>,
    live: broadcast::Sender<Message>,
}

impl Default for Events {
    fn default() -> Self {
        Self(Arc::new(Inner {
            recent: Mutex::new(VecDeque::with_capacity(KEPT)),
            live: broadcast::Sender::new(QUEUED),
        }))
    }
}

impl Events {
    /// Records and delivers one event. `status`, `id` and `from` are filled for the kinds that
    /// Docker fills them for.
    pub fn publish(
        &self,
        kind: &str,
        action: &str,
        id: &str,
        attributes: BTreeMap<String, String>,
    ) {
        let now = Timestamp::now();
        let legacy = matches!(kind, "container" | "image");
        let from = match kind {
            "container" => attributes.get("image").cloned().unwrap_or_default(),
            _ => String::new(),
        };
        let message = Message {
            status: if legacy {
                action.to_owned()
            } else {
                String::new()
            },
            id: if legacy { id.to_owned() } else { String::new() },
            from,
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor {
                id: id.to_owned(),
                attributes,
            },
            scope: "local".to_owned(),
            time: now.unix_seconds(),
            time_nano: now.unix_nanos(),
        };
        // Both under the lock, so that a subscriber sees each event exactly once.
        let mut recent = self.recent();
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(message.clone());
        // Nobody listening is no failure.
        self.0.live.send(message).ok();
    }

    pub fn listeners(&self) -> usize {
        self.0.live.receiver_count()
    }

    /// Past events since a time, if one was given, then live ones until the given end.
    pub fn subscribe(
        &self,
        scope: &berth_tasks::Scope,
        options: EventOptions,
    ) -> Result<EventStream> {
        options
            .filters
            .accept(FILTERS)
            .map_err(|error| Error::invalid(error.to_string()))?;
        let recent = self.recent();
        let mut live = self.0.live.subscribe();
        let past: Vec<Message> = match options.since {
            Some(since) => recent
                .iter()
                .filter(|message| message.time_nano >= since.unix_nanos())
                .filter(|message| {
                    options
                        .until
                        .is_none_or(|until| message.time_nano <= until.unix_nanos())
                })
                .filter(|message| wanted(message, &options.filters))
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        drop(recent);
        let (sender, receiver) = mpsc::channel(64);
        let shutdown = scope.shutdown();
        scope.spawn("event subscriber", async move {
            for message in past {
                if sender.send(message).await.is_err() {
                    return;
                }
            }
            let mut end = std::pin::pin!(async {
                match options.until {
                    Some(until) => {
                        // From now to then: zero when it has passed.
                        tokio::time::sleep(Timestamp::now().elapsed_at(until)).await;
                    }
                    None => std::future::pending().await,
                }
            });
            loop {
                let message = tokio::select! {
                    message = live.recv() => message,
                    () = &mut end => return,
                    () = sender.closed() => return,
                    () = shutdown.requested() => return,
                };
                match message {
                    Ok(message) if wanted(&message, &options.filters) => {
                        if sender.send(message).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "ended a subscriber of events");
                        return;
                    }
                }
            }
        });
        Ok(EventStream(receiver))
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, VecDeque<Message>> {
        self.0.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events in order.
#[derive(Debug)]
pub struct EventStream(mpsc::Receiver<Message>);

impl EventStream {
    pub async fn next(&mut self) -> Option<Message> {
        self.0.recv().await
    }
}

impl Stream for EventStream {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        self.0.poll_recv(context)
    }
}

/// Whether the filters let an event through (`daemon/events/filter.go`, moby).
fn wanted(message: &Message, filters: &Filters) -> bool {
    // `exec_start: sh -c x` and `health_status: healthy` are asked for by their beginnings; whoever
    // asks for one of them gets beginnings of all.
    let by_beginning = ["health_status", "exec_create", "exec_start"]
        .iter()
        .any(|action| filters.get("event").any(|wanted| wanted == *action));
    // Whatever has an id or a name that begins so, of every type: another filter chooses types.
    let named = |kind: &str| {
        let name = message.actor.attributes.get("name");
        filters.matches_any(kind, |wanted| {
            message.actor.id.starts_with(wanted)
                || name.is_some_and(|name| name.starts_with(wanted))
        })
    };
    filters.matches_any("event", |wanted| {
        wanted == message.action || (by_beginning && message.action.starts_with(wanted))
    }) && filters.matches("type", &message.kind)
        && filters.matches("scope", &message.scope)
        && filters.matches_labels("label", &message.actor.attributes)
        && image_wanted(message, filters)
        && OBJECTS.iter().all(|kind| named(kind))
}

/// An image is also meant by the containers that were made from it, with or without its tag.
fn image_wanted(message: &Message, filters: &Filters) -> bool {
    let attribute = match message.kind.as_str() {
        "image" => "name",
        _ => "image",
    };
    let name = message
        .actor
        .attributes
        .get(attribute)
        .map_or("", String::as_str);
    let untagged = |text: &str| match text.rsplit_once(':') {
        Some((head, tag)) if !tag.contains('/') => head.to_owned(),
        _ => text.to_owned(),
    };
    filters.matches_any("image", |wanted| {
        message.actor.id == wanted
            || name == wanted
            || (!name.is_empty() && untagged(name) == wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) -> Message {
        Message {
            kind: kind.into(),
            action: action.into(),
            scope: "local".into(),
            actor: Actor {
                id: id.into(),
                attributes: attributes
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
            },
            ..Message::default()
        }
    }

    #[test]
    fn filters_choose_as_dockers() {
        let exec = message(
            "container",
            "exec_start: sh",
            "abcdef",
            &[("name", "web"), ("image", "busybox:1"), ("tier", "front")],
        );
        let check = |filters: &str, expect: bool| {
            let filters = Filters::parse(filters).unwrap();
            assert_eq!(wanted(&exec, &filters), expect, "{filters:?}");
        };
        check("{}", true);
        check(r#"{"event":["exec_start"]}"#, true);
        check(r#"{"event":["start"]}"#, false);
        check(r#"{"event":["exec_start: sh"]}"#, true);
        check(r#"{"event":["exec_"]}"#, false);
        check(r#"{"event":["exec_create","exec_"]}"#, true);
        check(r#"{"event":["health_status"]}"#, false);
        check(r#"{"scope":["local"]}"#, true);
        check(r#"{"scope":["swarm"]}"#, false);
        check(r#"{"container":["we"]}"#, true);
        check(r#"{"container":["web"]}"#, true);
        check(r#"{"container":["abc"]}"#, true);
        check(r#"{"container":["b"]}"#, false);
        check(r#"{"image":["busybox"]}"#, true);
        check(r#"{"image":["busybox:1"]}"#, true);
        check(r#"{"image":["alpine"]}"#, false);
        check(r#"{"label":["tier=front"]}"#, true);
        check(r#"{"label":["tier=back"]}"#, false);
        check(r#"{"type":["network"]}"#, false);
        check(r#"{"type":["network","container"]}"#, true);
        check(r#"{"label":["tier"]}"#, true);
        check(r#"{"label":["tier=front","area"]}"#, false);
        for kind in OBJECTS {
            check(&format!(r#"{{"{kind}":["web"]}}"#), true);
            check(&format!(r#"{{"{kind}":["bcd"]}}"#), false);
        }
    }

    #[tokio::test]
    async fn past_and_live_events_come_once_and_in_order() {
        let scope = berth_tasks::Scope::new();
        let events = Events::default();
        for id in ["1", "2"] {
            events.publish("container", "start", id, BTreeMap::new());
        }
        let mut stream = events
            .subscribe(
                &scope,
                EventOptions {
                    since: Some(Timestamp(0)),
                    ..EventOptions::default()
                },
            )
            .unwrap();
        events.publish("container", "die", "3", BTreeMap::new());
        for id in ["1", "2", "3"] {
            assert_eq!(stream.next().await.unwrap().actor.id, id);
        }
        drop(stream);
        assert!(scope.drain(std::time::Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_past_until_ends_after_the_kept_events() {
        let scope = berth_tasks::Scope::new();
        let events = Events::default();
        events.publish("container", "start", "1", BTreeMap::new());
        let options = EventOptions {
            since: Some(Timestamp(0)),
            until: Some(Timestamp::now()),
            ..EventOptions::default()
        };
        let mut stream = events.subscribe(&scope, options).unwrap();
        assert!(stream.next().await.is_some());
        assert!(stream.next().await.is_none());
    }

    #[test]
    fn unknown_filters_are_refused() {
        let options = EventOptions {
            filters: Filters::parse(r#"{"colour":["red"]}"#).unwrap(),
            ..EventOptions::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let _guard = runtime.enter();
        let error = Events::default()
            .subscribe(&berth_tasks::Scope::new(), options)
            .unwrap_err();
        assert_eq!(error.message, "invalid filter 'colour'");
    }
}
