//! The classic pair of tutorials: a database with a volume, and WordPress in front of it, used by a
//! browser on another host.

use berth_testkit::until;

use crate::island::Island;

const BROWSER: &str = include_str!("wordpress/browser.py");
const TITLE: &str = "Written before the containers were made anew";

#[test]
fn what_a_browser_writes_in_wordpress_outlives_both_containers() {
    let island = Island::new(20);
    let daemon = island.daemon(&[]);
    daemon.load("mysql");
    daemon.load("wordpress");
    let docker = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        daemon.docker(&words).ok().to_owned()
    };
    docker("network create app-network");
    let make = || {
        docker(
            "run -d --name mysql --network=app-network -v mysql-data:/var/lib/mysql
             -e MYSQL_ROOT_PASSWORD=root -e MYSQL_DATABASE=wp -e MYSQL_USER=wp -e MYSQL_PASSWORD=wp mysql",
        );
        docker(
            "run -d -p 8080:80 --network=app-network -e WORDPRESS_DB_HOST=mysql
             -e WORDPRESS_DB_NAME=wp -e WORDPRESS_DB_USER=wp -e WORDPRESS_DB_PASSWORD=wp wordpress",
        )
    };
    let url = format!("http://{}:8080/", Island::HERE);
    let script = daemon.root.join("browser.py");
    std::fs::write(&script, BROWSER).unwrap();
    let browse = |verb: &str| {
        until("the database is ready", || {
            let told = daemon.docker(&["logs", "mysql"]).stderr;
            told.contains("ready for connections").then_some(())
        });
        until("the page comes", || {
            let page = island.on_neighbour(&format!("curl -fsSL -m 20 {url}"));
            (page.code == 0).then_some(())
        });
        let (script, directory) = (script.display(), daemon.root.display());
        let line = format!("python3 {script} {directory} {url} {verb} '{TITLE}'");
        assert_eq!(island.on_neighbour(&line).ok(), "done");
    };
    let wordpress = make();
    browse("install");
    browse("read");
    docker(&format!("rm -f mysql {wordpress}"));
    let gone = island.on_neighbour(&format!("curl -sS -m 5 {url}"));
    assert_ne!(gone.code, 0, "{}", gone.stdout);
    make();
    browse("read");
}
