//! What every back end of the store has to do.

#![allow(clippy::unwrap_used, reason = "a failed test is told by a panic")]
use std::time::Duration;

use berth_store::{At, Durability, Error, EventKind, Expect, Options, Store, Txn};

struct Fixture {
    store: Store,
    directory: tempfile::TempDir,
}

fn open() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        retain_revisions: None,
        ..Options::default()
    };
    Fixture {
        store: Store::open(directory.path(), options).unwrap(),
        directory,
    }
}

async fn put(store: &Store, key: &str, value: &str) -> u64 {
    store.txn(Txn::put(key, value)).await.unwrap().revision
}

fn keys(store: &Store, prefix: &str, at: At) -> Vec<String> {
    store
        .range(prefix, None, 100, at)
        .unwrap()
        .items
        .into_iter()
        .map(|item| item.key)
        .collect()
}

#[tokio::test]
async fn every_change_takes_the_next_revision() {
    let fixture = open();
    assert_eq!(put(&fixture.store, "a", "1").await, 1);
    assert_eq!(put(&fixture.store, "b", "1").await, 2);
    assert_eq!(
        fixture.store.txn(Txn::delete("a")).await.unwrap().revision,
        3
    );
    assert_eq!(fixture.store.revision(), 3);
}

#[tokio::test]
async fn deleting_what_is_not_there_takes_no_revision() {
    let fixture = open();
    put(&fixture.store, "a", "1").await;
    let committed = fixture.store.txn(Txn::delete("b")).await.unwrap();
    assert_eq!((committed.revision, committed.previous), (1, None));
}

#[tokio::test]
async fn items_count_versions_and_remember_their_creation() {
    let fixture = open();
    put(&fixture.store, "a", "1").await;
    put(&fixture.store, "a", "2").await;
    let item = fixture.store.get("a").unwrap().unwrap();
    assert_eq!(
        (item.create_revision, item.mod_revision, item.version),
        (1, 2, 2)
    );
    fixture.store.txn(Txn::delete("a")).await.unwrap();
    put(&fixture.store, "a", "3").await;
    let item = fixture.store.get("a").unwrap().unwrap();
    assert_eq!((item.create_revision, item.version), (4, 1));
}

#[tokio::test]
async fn a_failed_expectation_tells_the_current_item_and_changes_nothing() {
    let fixture = open();
    put(&fixture.store, "a", "1").await;
    for expect in [Expect::Absent, Expect::Revision(7)] {
        match fixture.store.txn(Txn::put("a", "2").expect(expect)).await {
            Err(Error::Conflict {
                current: Some(item),
                ..
            }) => assert_eq!(item.value, b"1"),
            other => panic!("{other:?}"),
        }
    }
    match fixture
        .store
        .txn(Txn::put("b", "2").expect(Expect::Revision(1)))
        .await
    {
        Err(Error::Conflict { current: None, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(fixture.store.revision(), 1);
    fixture
        .store
        .txn(Txn::put("a", "2").expect(Expect::Revision(1)))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_compare_and_swap_has_one_winner_each_time() {
    let fixture = open();
    put(&fixture.store, "counter", "0").await;
    let adders: Vec<_> = (0..8)
        .map(|_| {
            let store = fixture.store.clone();
            async move {
                for _ in 0..25 {
                    loop {
                        let item = store.get("counter").unwrap().unwrap();
                        let value: u64 = String::from_utf8(item.value).unwrap().parse().unwrap();
                        let txn = Txn::put("counter", (value + 1).to_string())
                            .expect(Expect::Revision(item.mod_revision))
                            .durability(Durability::Written);
                        match store.txn(txn).await {
                            Ok(_) => break,
                            Err(Error::Conflict { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
            }
        })
        .collect();
    futures_util::future::join_all(adders).await;
    assert_eq!(fixture.store.get("counter").unwrap().unwrap().value, b"200");
}

#[tokio::test]
async fn ranges_page_in_order_and_keep_to_their_prefix() {
    let fixture = open();
    for key in ["b/2", "b/1", "a", "b/3", "c", "b"] {
        put(&fixture.store, key, "x").await;
    }
    let first = fixture.store.range("b/", None, 2, At::Latest).unwrap();
    assert_eq!(
        first.items.iter().map(|i| &*i.key).collect::<Vec<_>>(),
        ["b/1", "b/2"]
    );
    assert!(first.more);
    let rest = fixture
        .store
        .range("b/", Some("b/2"), 2, At::Latest)
        .unwrap();
    assert_eq!(
        rest.items.iter().map(|i| &*i.key).collect::<Vec<_>>(),
        ["b/3"]
    );
    assert!(!rest.more);
    assert_eq!(keys(&fixture.store, "", At::Latest).len(), 6);
}

#[tokio::test]
async fn prefixes_are_text_not_patterns() {
    let fixture = open();
    for key in ["a%b", "axb", "é/1", "é/2"] {
        put(&fixture.store, key, "x").await;
    }
    assert_eq!(keys(&fixture.store, "a%", At::Latest), ["a%b"]);
    assert_eq!(keys(&fixture.store, "é/", At::Latest), ["é/1", "é/2"]);
}

#[tokio::test]
async fn an_exact_revision_shows_the_past() {
    let fixture = open();
    put(&fixture.store, "a", "1").await;
    put(&fixture.store, "b", "1").await;
    put(&fixture.store, "a", "2").await;
    fixture.store.txn(Txn::delete("b")).await.unwrap();
    assert_eq!(keys(&fixture.store, "", At::Exact(1)), ["a"]);
    assert_eq!(keys(&fixture.store, "", At::Exact(3)), ["a", "b"]);
    assert_eq!(
        fixture
            .store
            .range("a", None, 1, At::Exact(2))
            .unwrap()
            .items[0]
            .value,
        b"1"
    );
    assert!(matches!(
        fixture.store.range("", None, 1, At::Exact(9)),
        Err(Error::Future {
            requested: 9,
            current: 4
        })
    ));
}

#[tokio::test]
async fn a_watch_delivers_every_change_from_its_revision_with_the_previous_value() {
    let fixture = open();
    put(&fixture.store, "w/a", "1").await;
    put(&fixture.store, "other", "1").await;
    let mut watch = fixture.store.watch("w/", 1);
    let batch = watch.next().await.unwrap();
    assert_eq!((batch.events.len(), batch.revision), (1, 2));
    put(&fixture.store, "w/a", "2").await;
    fixture.store.txn(Txn::delete("w/a")).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(watch.next().await.unwrap().events);
    }
    assert_eq!(seen[0].kind, EventKind::Put);
    assert_eq!(seen[0].previous.as_ref().unwrap().value, b"1");
    assert_eq!(seen[1].kind, EventKind::Delete);
    assert_eq!(seen[1].item.mod_revision, 4);
    assert_eq!(seen[1].previous.as_ref().unwrap().value, b"2");
}

#[tokio::test]
async fn a_watch_marks_progress_past_changes_that_do_not_concern_it() {
    let fixture = open();
    let mut watch = fixture.store.watch("w/", 1);
    put(&fixture.store, "other", "1").await;
    let batch = watch.next().await.unwrap();
    assert_eq!((batch.events.len(), batch.revision), (0, 1));
}

#[tokio::test]
async fn a_watch_far_behind_catches_up_without_a_gap() {
    let fixture = open();
    let changes = (0..1500).map(|n| {
        fixture
            .store
            .txn(Txn::put(format!("k{n}"), "x").durability(Durability::Written))
    });
    futures_util::future::try_join_all(changes).await.unwrap();
    let mut watch = fixture.store.watch("", 1);
    let mut revisions = Vec::new();
    while revisions.len() < 1500 {
        revisions.extend(
            watch
                .next()
                .await
                .unwrap()
                .events
                .iter()
                .map(|event| event.item.mod_revision),
        );
    }
    assert!(revisions.iter().copied().eq(1..=1500));
}

#[tokio::test]
async fn compaction_forgets_the_past_but_nothing_alive() {
    let fixture = open();
    put(&fixture.store, "a", "1").await;
    put(&fixture.store, "a", "2").await;
    put(&fixture.store, "b", "1").await;
    fixture.store.txn(Txn::delete("b")).await.unwrap();
    fixture.store.compact(4).await.unwrap();
    assert_eq!(keys(&fixture.store, "", At::Exact(4)), ["a"]);
    assert!(matches!(
        fixture.store.range("", None, 1, At::Exact(3)),
        Err(Error::Compacted { compacted: 4, .. })
    ));
    assert!(matches!(
        fixture.store.watch("", 2).next().await,
        Err(Error::Compacted { .. })
    ));
    assert!(matches!(
        fixture.store.compact(9).await,
        Err(Error::Future { .. })
    ));
    put(&fixture.store, "a", "3").await;
    let batch = fixture.store.watch("", 5).next().await.unwrap();
    assert_eq!(batch.events[0].previous.as_ref().unwrap().value, b"2");
}

#[tokio::test]
async fn a_key_with_a_time_to_live_is_deleted_with_a_revision() {
    let fixture = open();
    let txn = Txn::put("lease", "x").ttl(Duration::from_millis(30));
    fixture.store.txn(txn).await.unwrap();
    let mut watch = fixture.store.watch("lease", 2);
    let batch = tokio::time::timeout(Duration::from_secs(10), watch.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (batch.events[0].kind, batch.revision),
        (EventKind::Delete, 2)
    );
    assert_eq!(fixture.store.get("lease").unwrap(), None);
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let Fixture { store, directory } = open();
    put(&store, "a", "1").await;
    store.txn(Txn::delete("a")).await.unwrap();
    store.compact(2).await.unwrap();
    drop(store);
    let store = Store::open(directory.path(), Options::default()).unwrap();
    assert_eq!(store.revision(), 2);
    assert_eq!(put(&store, "b", "1").await, 3);
}

#[tokio::test]
async fn history_is_bounded_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        retain_revisions: Some(10),
        ..Options::default()
    };
    let store = Store::open(directory.path(), options).unwrap();
    for _ in 0..50 {
        put(&store, "a", "x").await;
    }
    assert!(matches!(
        store.range("", None, 1, At::Exact(5)),
        Err(Error::Compacted { .. })
    ));
    assert!(store.range("", None, 1, At::Exact(45)).is_ok());
}

#[tokio::test]
async fn oversized_keys_and_values_are_refused() {
    let fixture = open();
    let key = "k".repeat(berth_store::MAX_KEY_BYTES + 1);
    assert!(matches!(
        fixture.store.txn(Txn::put(key, "x")).await,
        Err(Error::TooLarge { .. })
    ));
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    assert!(matches!(
        Store::open(directory.path(), Options::default()),
        Err(Error::Corrupt { .. })
    ));
    assert_eq!(std::fs::read(&path).unwrap(), vec![b'x'; 8192]);
}

#[test]
fn acknowledged_changes_survive_kill_9() {
    // The child writes and prints each acknowledged revision until it is killed.
    if let Ok(path) = std::env::var("BERTH_STORE_VICTIM") {
        let store = Store::open(path.as_ref(), Options::default()).unwrap();
        for n in 0u64.. {
            let txn = Txn::put(format!("k{n}"), "x").durability(Durability::Written);
            println!("acknowledged {}", store.txn_blocking(txn).unwrap().revision);
        }
    }
    use std::io::{BufRead, BufReader};
    let directory = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "acknowledged_changes_survive_kill_9",
            "--nocapture",
        ])
        .env("BERTH_STORE_VICTIM", directory.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let acknowledged = |line: std::io::Result<String>| -> Option<u64> {
        line.ok()?.split_once("acknowledged ")?.1.parse().ok()
    };
    let mut last = lines.by_ref().filter_map(acknowledged).nth(500).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // The last line may have been cut off by the kill.
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    last = rest
        .iter()
        .rev()
        .skip(1)
        .find_map(|line| acknowledged(Ok(line.clone())))
        .unwrap_or(last);
    let store = Store::open(directory.path(), Options::default()).unwrap();
    assert!(store.revision() >= last, "{} < {last}", store.revision());
}
