//! A broker on strings: it answers everything as politely as the protocol asks, starts with the
//! CONNACK a test gave it, and remembers what it was sent.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Packet types, the high half of a packet's first byte.
pub const CONNECT: u8 = 1;
pub const PUBLISH: u8 = 3;
pub const SUBSCRIBE: u8 = 8;
pub const PINGREQ: u8 = 12;

#[derive(Default)]
struct Log {
    packets: Mutex<Vec<u8>>,
    bell: Condvar,
}

pub struct Puppet {
    pub port: u16,
    log: Arc<Log>,
}

impl Puppet {
    /// Starts every connection with `connack`, a whole packet.
    pub fn saying(connack: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Log::default());
        let mine = Arc::clone(&log);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let log = Arc::clone(&mine);
                std::thread::spawn(move || drop(serve(stream, connack, &log)));
            }
        });
        Self { port, log }
    }

    /// How many packets of this type came so far.
    pub fn count(&self, kind: u8) -> usize {
        let packets = self.log.packets.lock().unwrap();
        packets.iter().filter(|packet| **packet == kind).count()
    }

    /// Waits for `n` packets of this type.
    pub fn wait(&self, kind: u8, n: usize) {
        let end = Instant::now() + Duration::from_secs(30);
        let mut packets = self.log.packets.lock().unwrap();
        while packets.iter().filter(|packet| **packet == kind).count() < n {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "packet {kind} did not come: {packets:?}");
            packets = self.log.bell.wait_timeout(packets, left).unwrap().0;
        }
    }
}

fn serve(mut stream: TcpStream, connack: &[u8], log: &Log) -> io::Result<()> {
    let mut version = 4;
    loop {
        let (first, body) = packet(&mut stream)?;
        log.packets.lock().unwrap().push(first >> 4);
        log.bell.notify_all();
        // MQTT 5 has properties, of length 0, between identifier and reasons.
        let properties: &[u8] = if version == 5 { &[0] } else { &[] };
        match first >> 4 {
            CONNECT => {
                version = body[6];
                stream.write_all(connack)?;
            }
            PUBLISH if first & 0b110 != 0 => {
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                stream.write_all(&[0x40, 2, body[topic + 2], body[topic + 3]])?;
            }
            SUBSCRIBE => {
                let mut answer = [&body[..2], properties].concat();
                answer.resize(answer.len() + filters(&body[2 + properties.len()..]), 1);
                let length = u8::try_from(answer.len()).unwrap();
                stream.write_all(&[&[0x90, length], answer.as_slice()].concat())?;
            }
            PINGREQ => stream.write_all(&[0xd0, 0])?,
            _ => {}
        }
    }
}

/// First byte and body of the next packet.
fn packet(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let first = byte[0];
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((first, body))
}

/// How many filters a SUBSCRIBE names.
fn filters(mut rest: &[u8]) -> usize {
    let mut n = 0;
    while let [high, low, ..] = *rest {
        let length = usize::from(u16::from_be_bytes([high, low]));
        rest = rest.get(length + 3..).unwrap_or_default();
        n += 1;
    }
    n
}
