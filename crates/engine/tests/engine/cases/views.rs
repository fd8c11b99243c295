//! Events and lists.

use berth_docker::filters::Filters;
use berth_engine::{Condition, EventOptions, ListOptions};

use crate::Case;
use crate::world::{World, all, read_to_end};

pub const ALL: &[Case] = &[
    ("events_come_in_dockers_order", events),
    ("list_filters_choose", filters),
];

fn events(world: &World) {
    let engine = world.engine();
    let options = EventOptions {
        filters: Filters::parse(r#"{"type":["container"]}"#).unwrap(),
        ..EventOptions::default()
    };
    let mut stream = {
        let _guard = world.runtime.enter();
        engine.events(options).unwrap()
    };
    let id = world
        .create_with("eve", &["sh", "-c", "exit 2"], |_, host| {
            host.auto_remove = true
        })
        .unwrap();
    let attached = world.attach(&id, false);
    let waiter = engine.wait(&id, Condition::Removed).unwrap();
    world.start(&id);
    world.run(waiter.done());
    drop(read_to_end(attached));
    for action in ["create", "attach", "start", "die", "destroy"] {
        let event = world.run(stream.next()).unwrap();
        assert_eq!(
            (event.action.as_str(), event.actor.id.as_str()),
            (action, id.as_str())
        );
        assert_eq!(event.actor.attributes["name"], "eve");
        if action == "die" {
            assert_eq!(event.actor.attributes["exitCode"], "2");
        }
    }
}

fn filters(world: &World) {
    let one = world
        .create_with("one", &["sleep", "1000"], |config, _| {
            config.labels = Some([("tier".to_owned(), "front".to_owned())].into());
        })
        .unwrap();
    world.create("two", &["sh", "-c", "exit 3"]);
    world.start("one");
    world.start("two");
    world.exit_code("two");
    let names = |filters: &str, all: bool| -> Vec<String> {
        let options = ListOptions {
            all,
            filters: Filters::parse(filters).unwrap(),
            ..ListOptions::default()
        };
        let list = world.run(world.engine().list(options)).unwrap();
        list.into_iter()
            .map(|summary| summary.names[0].clone())
            .collect()
    };
    assert_eq!(names("{}", false), ["/one"]);
    assert_eq!(names("{}", true), ["/two", "/one"]);
    assert_eq!(names(r#"{"status":["exited"]}"#, false), ["/two"]);
    assert_eq!(names(r#"{"exited":["3"]}"#, true), ["/two"]);
    assert_eq!(names(r#"{"label":["tier=front"]}"#, true), ["/one"]);
    assert_eq!(names(r#"{"name":["^tw"]}"#, true), ["/two"]);
    assert_eq!(
        names(&format!(r#"{{"id":["{}"]}}"#, &one[..12]), true),
        ["/one"]
    );
    assert_eq!(
        names(r#"{"ancestor":["engine-test"]}"#, true),
        ["/two", "/one"]
    );
    assert_eq!(names(r#"{"since":["one"]}"#, true), ["/two"]);
    assert_eq!(names(r#"{"before":["two"]}"#, true), ["/one"]);
    assert_eq!(names(r#"{"network":["none"]}"#, true), ["/two", "/one"]);
    let options = ListOptions {
        filters: Filters::parse(r#"{"status":["odd"]}"#).unwrap(),
        ..all()
    };
    let error = world.run(world.engine().list(options)).unwrap_err();
    assert_eq!(error.message, "invalid filter 'status=odd'");
}
