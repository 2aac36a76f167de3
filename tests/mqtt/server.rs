//! An HTTPS server that does as it is told, also badly.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::login::certificates;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub path: String,
    /// `Range: bytes=…-`.
    pub from: Option<usize>,
}

/// What is answered.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub cut_after: Option<usize>,
}

impl Answer {
    /// The file, or the part that was asked for.
    pub fn file(file: &[u8], asked: &Asked) -> Self {
        let from = asked.from.unwrap_or(0);
        let body = file.get(from..).unwrap_or_default().to_vec();
        let mut headers = vec![format!("Content-Length: {}", body.len())];
        let status = match asked.from {
            None => 200,
            Some(from) if from < file.len() => {
                let (last, of) = (file.len() - 1, file.len());
                headers.push(format!("Content-Range: bytes {from}-{last}/{of}"));
                206
            }
            Some(_) => {
                headers.push(format!("Content-Range: bytes */{}", file.len()));
                416
            }
        };
        Self {
            status,
            headers,
            body,
            cut_after: None,
        }
    }

    pub fn status(status: u16, headers: &[String]) -> Self {
        let mut headers = headers.to_vec();
        headers.push("Content-Length: 0".to_owned());
        Self {
            status,
            headers,
            body: Vec::new(),
            cut_after: None,
        }
    }

    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.cut_after = Some(bytes);
        self
    }
}

type Handler = dyn Fn(&Asked) -> Answer + Send + Sync;

/// Runs until the test ends.
pub struct Server {
    pub port: u16,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    folder: tempfile::TempDir,
}

impl Server {
    pub fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let config = Arc::new(tls(folder.path()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            asked: Arc::default(),
            folder,
        };
        let (asked, handler): (_, Arc<Handler>) = (Arc::clone(&server.asked), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, asked) = (Arc::clone(&config), Arc::clone(&asked));
                let handler = Arc::clone(&handler);
                std::thread::spawn(move || serve(stream, config, &asked, &*handler));
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}/{path}", self.port)
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn tls(folder: &Path) -> ServerConfig {
    let open = |name: &str| BufReader::new(std::fs::File::open(folder.join(name)).unwrap());
    let chain = rustls_pemfile::certs(&mut open("server.pem"))
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key: PrivateKeyDer = rustls_pemfile::private_key(&mut open("server.key"))
        .unwrap()
        .unwrap();
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap()
}

/// One request per connection.
fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    asked: &Mutex<Vec<Asked>>,
    handler: &Handler,
) -> Option<()> {
    let connection = ServerConnection::new(config).ok()?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut head = Vec::new();
    let mut reader = BufReader::new(&mut stream);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let path = head.first()?.split(' ').nth(1)?.to_owned();
    let from = head.iter().find_map(|line| {
        let value = line.to_ascii_lowercase();
        let value = value.strip_prefix("range: bytes=")?.to_owned();
        value.strip_suffix('-')?.parse().ok()
    });
    let request = Asked { path, from };
    asked.lock().unwrap().push(request.clone());
    let answer = handler(&request);
    let mut text = format!("HTTP/1.1 {} Answer\r\nConnection: close\r\n", answer.status);
    for header in &answer.headers {
        text += &format!("{header}\r\n");
    }
    text += "\r\n";
    stream.write_all(text.as_bytes()).ok()?;
    let length = answer.cut_after.unwrap_or(answer.body.len());
    stream
        .write_all(&answer.body[..length.min(answer.body.len())])
        .ok()?;
    stream.flush().ok()?;
    if answer.cut_after.is_none() {
        stream.conn.send_close_notify();
        stream.flush().ok()?;
        // Until the other side is done, or the end could get lost.
        let _ = stream.read(&mut [0]);
    }
    Some(())
}
