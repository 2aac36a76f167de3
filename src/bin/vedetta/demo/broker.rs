//! The broker inside the demo: rumqttd on loopback.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// The port `mosquitto_sub` uses when it is given none.
const USUAL_PORT: u16 = 1883;
/// How long the listener may take to appear.
const START: Duration = Duration::from_secs(5);
/// Packets of at most one picture and its header.
const MAX_PACKET_BYTES: usize = 128 * 1024;

/// Starts a broker on 127.0.0.1 that lives as long as the process, and gives its port: `wanted`, or
/// 1883 where nobody has it, or any free one.
///
/// It speaks MQTT 3.1.1 only. rumqttd 0.20 keeps MQTT 3.1.1 and 5 on separate ports, and hands the
/// properties of an MQTT 5 message on to 3.1.1 subscribers, whose connections panic on them.
///
/// # Errors
/// `wanted` is taken, or the listener does not come up.
pub fn start(wanted: Option<u16>) -> io::Result<u16> {
    let port = match wanted {
        Some(port) => probe(port)?,
        None => probe(USUAL_PORT).or_else(|_| probe(0))?,
    };
    let mut broker = Broker::new(configuration(port));
    thread::Builder::new()
        .name("broker".to_owned())
        .spawn(move || {
            // It ends only when its listener does; then connecting fails, and that is said below or
            // by the daemon.
            let _ = broker.start();
        })?;
    wait_for(port)?;
    Ok(port)
}

/// The port that a bind to `port` gives; it is free again afterwards.
fn probe(port: u16) -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?
        .local_addr()?
        .port())
}

fn wait_for(port: u16) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let started = Instant::now();
    loop {
        match TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            Ok(_) => return Ok(()),
            Err(error) if started.elapsed() > START => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn configuration(port: u16) -> Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 5000,
        max_payload_size: MAX_PACKET_BYTES,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings {
        name: "mqtt-3.1.1".to_owned(),
        listen: (Ipv4Addr::LOCALHOST, port).into(),
        tls: None,
        next_connection_delay_ms: 1,
        connections,
    };
    let router = RouterConfig {
        max_connections: 64,
        max_outgoing_packet_count: 200,
        // Kept in memory for every filter somebody subscribed to.
        max_segment_size: 256 * 1024,
        max_segment_count: 4,
        ..RouterConfig::default()
    };
    let v4 = Some(HashMap::from([("demo".to_owned(), server)]));
    Config {
        router,
        v4,
        ..Config::default()
    }
}
