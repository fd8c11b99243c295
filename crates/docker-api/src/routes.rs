//! The table of all operations that are served.

use http::Method;

use crate::route::{Handler, Route};
use crate::{
    archive, auth, containers, exec, hijack, images, networks, streams, swarm, system, volumes,
};

/// Order matters only where two patterns match one path: the first wins.
pub fn all() -> Vec<Route> {
    let get = |path, handler| route(Method::GET, path, handler);
    let head = |path, handler| route(Method::HEAD, path, handler);
    let post = |path, handler| route(Method::POST, path, handler);
    let delete = |path, handler| route(Method::DELETE, path, handler);
    let put = |path, handler| route(Method::PUT, path, handler);
    let mut routes = vec![
        get("/_ping", |call| Box::pin(system::ping(call))),
        head("/_ping", |call| Box::pin(system::ping(call))),
        get("/version", |call| Box::pin(system::version(call))),
        get("/info", |call| Box::pin(system::info(call))),
        post("/auth", |call| Box::pin(auth::login(call))),
        get("/events", |call| Box::pin(system::events(call))),
        get("/system/df", |call| Box::pin(system::disk_usage(call))),
        get("/containers/json", |call| Box::pin(containers::list(call))),
        post("/containers/create", |call| {
            Box::pin(containers::create(call))
        }),
        post("/containers/prune", |call| {
            Box::pin(containers::prune(call))
        }),
        get("/containers/{}/json", |call| {
            Box::pin(containers::inspect(call))
        }),
        head("/containers/{}/archive", |call| {
            Box::pin(archive::stat(call))
        }),
        get("/containers/{}/archive", |call| {
            Box::pin(archive::read(call))
        }),
        put("/containers/{}/archive", |call| {
            Box::pin(archive::write(call))
        }),
        get("/containers/{}/changes", |call| {
            Box::pin(archive::changes(call))
        }),
        post("/commit", |call| Box::pin(images::commit(call))),
        get("/containers/{}/export", |call| {
            Box::pin(archive::export(call))
        }),
        get("/containers/{}/top", |call| Box::pin(containers::top(call))),
        get("/containers/{}/logs", |call| Box::pin(streams::logs(call))),
        post("/containers/{}/start", |call| {
            Box::pin(containers::start(call))
        }),
        post("/containers/{}/stop", |call| {
            Box::pin(containers::stop(call))
        }),
        post("/containers/{}/restart", |call| {
            Box::pin(containers::restart(call))
        }),
        post("/containers/{}/kill", |call| {
            Box::pin(containers::kill(call))
        }),
        post("/containers/{}/pause", |call| {
            Box::pin(containers::pause(call))
        }),
        post("/containers/{}/unpause", |call| {
            Box::pin(containers::unpause(call))
        }),
        post("/containers/{}/rename", |call| {
            Box::pin(containers::rename(call))
        }),
        post("/containers/{}/update", |call| {
            Box::pin(containers::update(call))
        }),
        post("/containers/{}/resize", |call| {
            Box::pin(containers::resize(call))
        }),
        post("/containers/{}/wait", |call| Box::pin(streams::wait(call))),
        post("/containers/{}/attach", |call| {
            Box::pin(hijack::attach(call))
        }),
        post("/containers/{}/exec", |call| Box::pin(exec::create(call))),
        delete("/containers/{}", |call| Box::pin(containers::remove(call))),
        get("/exec/{}/json", |call| Box::pin(exec::inspect(call))),
        post("/exec/{}/resize", |call| Box::pin(exec::resize(call))),
        post("/exec/{}/start", |call| Box::pin(hijack::exec_start(call))),
        get("/images/json", |call| Box::pin(images::list(call))),
        get("/images/get", |call| Box::pin(images::save_several(call))),
        get("/images/{}/json", |call| Box::pin(images::inspect(call))),
        get("/images/{}/history", |call| Box::pin(images::history(call))),
        get("/images/{}/get", |call| Box::pin(images::save(call))),
        post("/images/create", |call| Box::pin(images::create(call))),
        post("/images/load", |call| Box::pin(images::load(call))),
        post("/images/prune", |call| Box::pin(images::prune(call))),
        post("/images/{}/tag", |call| Box::pin(images::tag(call))),
        delete("/images/{}", |call| Box::pin(images::remove(call))),
        get("/networks", |call| Box::pin(networks::list(call))),
        get("/networks/", |call| Box::pin(networks::list(call))),
        post("/networks/create", |call| Box::pin(networks::create(call))),
        post("/networks/prune", |call| Box::pin(networks::prune(call))),
        post("/networks/{}/connect", |call| {
            Box::pin(networks::connect(call))
        }),
        post("/networks/{}/disconnect", |call| {
            Box::pin(networks::disconnect(call))
        }),
        get("/networks/{}", |call| Box::pin(networks::inspect(call))),
        delete("/networks/{}", |call| Box::pin(networks::remove(call))),
        get("/volumes", |call| Box::pin(volumes::list(call))),
        post("/volumes/create", |call| Box::pin(volumes::create(call))),
        post("/volumes/prune", |call| Box::pin(volumes::prune(call))),
        get("/volumes/{}", |call| Box::pin(volumes::inspect(call))),
        delete("/volumes/{}", |call| Box::pin(volumes::remove(call))),
        put("/volumes/{}", |call| Box::pin(volumes::update(call))),
        get("/berth/ports", |call| Box::pin(networks::ports(call))),
        post("/berth/volumes/{}/snapshot", |call| {
            Box::pin(volumes::snapshot(call))
        }),
        post("/berth/volumes/{}/clone", |call| {
            Box::pin(volumes::clone(call))
        }),
        post("/berth/volumes/{}/rename", |call| {
            Box::pin(volumes::rename(call))
        }),
        get("/berth/volumes/{}/archive", |call| {
            Box::pin(volumes::backup(call))
        }),
        put("/berth/volumes/{}/archive", |call| {
            Box::pin(volumes::restore(call))
        }),
        get("/plugins", |call| Box::pin(system::plugins(call))),
        post("/build/prune", |call| Box::pin(system::build_prune(call))),
    ];
    for path in swarm::PATHS {
        routes.push(get(path, |call| Box::pin(swarm::inactive(call))));
    }
    routes
}

fn route(method: Method, path: &'static str, handler: Handler) -> Route {
    Route {
        method,
        path,
        handler,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::find;

    #[test]
    fn each_path_has_its_own_route() {
        let routes = all();
        let path = |method: Method, path: &str| {
            find(&routes, &method, path).map(|(route, name)| (route.path, name))
        };
        let some = |path, name: &str| Some((path, name.to_owned()));
        assert_eq!(
            path(Method::GET, "/containers/json"),
            some("/containers/json", "")
        );
        assert_eq!(
            path(Method::GET, "/containers/x/json"),
            some("/containers/{}/json", "x")
        );
        assert_eq!(
            path(Method::DELETE, "/containers/x"),
            some("/containers/{}", "x")
        );
        assert_eq!(
            path(Method::POST, "/networks/create"),
            some("/networks/create", "")
        );
        assert_eq!(path(Method::POST, "/containers/json"), None);
        assert_eq!(path(Method::GET, "/nope"), None);
    }
}
