//! MQTT.js in a browser, headless Chromium, over WebSocket and TLS.

use std::path::Path;

use avocet_tests::broker::Broker;
use avocet_tests::process::Process;
use avocet_tests::provision;
use avocet_tests::scratch::Scratch;
use base64ct::{Base64, Encoding as _};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    PublicKeyData as _,
};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc;

/// Writes the certificate of a broker by an authority of its own; the mark of its key, as Chromium
/// knows it.
fn certificate(scratch: &Scratch) -> String {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "ca");
    let authority = Issuer::new(params, KeyPair::generate().expect("a key"));
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    scratch.write("broker.pem", certificate.pem());
    scratch.write("broker.key", key.serialize_pem());
    Base64::encode_string(&Sha256::digest(key.subject_public_key_info()))
}

/// Serves the page and MQTT.js; tells what the page says.
async fn serve(
    listener: TcpListener,
    page: Vec<u8>,
    script: Vec<u8>,
    said: mpsc::UnboundedSender<String>,
) -> std::io::Result<()> {
    loop {
        let (mut socket, _) = listener.accept().await?;
        let Some(path) = path(&mut socket).await else {
            continue;
        };
        let nothing = Vec::new();
        let (status, kind, body) = match path.split('?').next() {
            Some("/page") => ("200 OK", "text/html", &page),
            Some("/mqtt.js") => ("200 OK", "text/javascript", &script),
            Some("/said") => {
                let _ = said.send(path);
                ("200 OK", "text/plain", &nothing)
            }
            _ => ("404 Not Found", "text/plain", &nothing),
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}; charset=utf-8\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n"
        );
        // A browser may go away in the middle.
        if socket.write_all(head.as_bytes()).await.is_ok() {
            let _ = socket.write_all(body).await;
        }
    }
}

/// What a request is for.
async fn path(socket: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let byte = socket.read_u8().await.ok()?;
        request.push(byte);
    }
    let text = String::from_utf8(request).ok()?;
    text.split(' ').nth(1).map(str::to_owned)
}

/// [MQTT5-6.0.0-4] [MQTT311-6.0.0-4]
#[tokio::test]
async fn mqttjs_publishes_and_subscribes_in_chromium_over_wss() {
    let tools = provision::provision().unwrap_or_else(|error| panic!("{error:#}"));
    let scratch = Scratch::new();
    let key = certificate(&scratch);
    let site = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = site.local_addr().expect("it is bound").port();
    let read = |path: &Path| std::fs::read(path).expect("it is there");
    let page = read(&provision::client_file("mqttjs/browser.html"));
    let script = read(&tools.node_modules.join("mqtt/dist/mqtt.min.js"));
    let (sender, mut said) = mpsc::unbounded_channel();
    let serving = tokio::spawn(serve(site, page, script, sender));

    let path = |name: &str| scratch.path().join(name).display().to_string();
    let text = format!(
        "[[listen]]\naddress = '127.0.0.1:0'\n[listen.websocket]\norigins = ['http://localhost:{port}']\n\
         [listen.tls]\ncertificate = '{}'\nkey = '{}'\n",
        path("broker.pem"),
        path("broker.key")
    );
    let config = scratch.write("avocet.toml", text);
    let (_broker, addresses) = Broker::start_config(&config, 1).await;
    let url = format!("wss://localhost:{}/mqtt", addresses[0].port());

    let mut command = Command::new("chromium");
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
        ])
        .arg(format!("--user-data-dir={}", path("profile")))
        .arg(format!("--ignore-certificate-errors-spki-list={key}"))
        .arg(format!("http://localhost:{port}/page?{url}"));
    let browser = Process::spawn("chromium", command);
    let text = said.recv().await.expect("the page says something");
    assert_eq!(text, "/said?echoed");
    drop(browser);
    serving.abort();
}
