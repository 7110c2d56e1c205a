use super::*;
use std::net::{Ipv4Addr, TcpListener};

const SECOND: Duration = Duration::from_secs(1);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn connects_by_name_and_by_address_without_delay() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime().block_on(async {
        for host in ["127.0.0.1", "localhost"] {
            let stream = connect(host, port, 10 * SECOND).await.unwrap();
            assert!(stream.nodelay().unwrap());
        }
    });
}

#[test]
fn names_host_port_and_address_when_refused() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = runtime()
        .block_on(connect("127.0.0.1", port, 10 * SECOND))
        .unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("cannot connect to 127.0.0.1:{port} at")),
        "{text}"
    );
}

#[test]
fn names_a_host_that_cannot_be_resolved() {
    let error = runtime()
        .block_on(connect("not a host", 1883, 10 * SECOND))
        .unwrap_err();
    assert!(matches!(error, ConnectError::Resolve { .. }), "{error}");
    assert!(error.to_string().contains("\"not a host\""), "{error}");
}
