//! The bridge and its published ports.

use std::time::Duration;

use berth_engine::{LogOptions, StartOptions};

use crate::Case;
use crate::world::{PATIENCE, World};

pub const ALL: &[Case] = &[("published_ports_are_reached_conflict_and_are_freed", bridge)];

fn bridge(world: &World) {
    world.leave();
    world.open_on_bridge();
    let engine = world.engine();
    let publish = |port: &str| {
        let bindings = [(
            "80/tcp".to_owned(),
            Some(vec![berth_docker::port::PortBinding {
                host_ip: "127.0.0.1".into(),
                host_port: port.to_owned(),
            }]),
        )];
        move |_: &mut berth_docker::container::Config,
              host: &mut berth_docker::container::HostConfig| {
            host.network_mode = "bridge".into();
            host.port_bindings = Some(bindings.into());
        }
    };
    let serve = ["nc", "-ll", "-p", "80", "-e", "echo", "hello"];
    let id = world.create_with("server", &serve, publish("")).unwrap();
    world.start(&id);
    let inspect = world.run(engine.inspect(&id, false)).unwrap();
    let ports = inspect.network_settings.ports["80/tcp"].clone().unwrap();
    let port: u16 = ports[0].host_port.parse().unwrap();
    let fetch = || {
        let mut text = String::new();
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        std::io::Read::read_to_string(&mut stream, &mut text)?;
        std::io::Result::Ok(text)
    };
    // The server may not listen yet.
    let text = world.run(async {
        loop {
            match fetch() {
                Ok(text) if !text.is_empty() => return text,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    assert_eq!(text, "hello\n");

    let other = world
        .create_with("other", &serve, publish(&port.to_string()))
        .unwrap();
    let error = world
        .run(engine.start(&other, StartOptions::default()))
        .unwrap_err();
    assert!(
        error.message.starts_with("failed to set up container networking: driver failed programming external connectivity on endpoint other (")
            && error.message.contains("port is already allocated"),
        "{error}"
    );

    let address = inspect.network_settings.ip_address;
    let joined = world
        .create_with("", &["ip", "-4", "addr", "show", "eth0"], |_, host| {
            host.network_mode = "container:server".into();
        })
        .unwrap();
    world.start(&joined);
    assert_eq!(world.exit_code(&joined), 0);
    assert!(
        world
            .logs(&joined, LogOptions::default())
            .contains(&address)
    );
    let hosts = world
        .create_with("", &["cat", "/etc/hosts"], publish(""))
        .unwrap();
    world.start(&hosts);
    world.exit_code(&hosts);
    assert!(
        world
            .logs(&hosts, LogOptions::default())
            .contains(&hosts[..12])
    );
    assert!(
        world
            .run(engine.inspect("server", false))
            .unwrap()
            .network_settings
            .networks
            .contains_key("bridge")
    );
    assert_eq!(
        engine.network_inspect("bridge").unwrap().containers.len(),
        1
    );

    world.run(engine.kill("server", None)).unwrap();
    assert!(fetch().is_err(), "the port is still open");
    world.start(&other);
    world.run(engine.kill("other", None)).unwrap();
}
