//! An HTTP server that says what it is told to.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Instant;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::certificates::Issued;
use crate::common::DEADLINE;

/// What the HTTP server does when it is asked.
#[derive(Clone)]
pub(crate) enum Answer {
    Say(u16, String),
    /// What the question comes to.
    Judge(fn(&Value) -> Value),
    /// This body, once the other side is here too.
    Hold(Arc<Barrier>, String),
    /// These bytes, and the end of the connection.
    Raw(&'static [u8]),
    /// These bytes, and nothing more, ever.
    Stall(&'static [u8]),
    /// Nothing, ever.
    Wait,
    /// The end of the connection so many times, and this after that.
    Close(usize, String),
}

pub(crate) fn say(value: &Value) -> Answer {
    Answer::Say(200, value.to_string())
}

/// What it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) head: String,
    pub(crate) body: String,
}

/// An HTTP server that says what it is told to.
pub(crate) struct Http {
    pub(crate) address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<Question>>>,
}

impl Http {
    pub(crate) fn start(answer: Answer) -> Self {
        Self::start_with(answer, None)
    }

    pub(crate) fn start_with(answer: Answer, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(answer));
        let asked = Arc::<Mutex<Vec<Question>>>::default();
        let shared = (Arc::clone(&answer), Arc::clone(&asked));
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (answer, asked) = (Arc::clone(&shared.0), Arc::clone(&shared.1));
                let tls = tls.clone();
                thread::spawn(move || match tls {
                    None => serve(socket, &answer, &asked),
                    Some(config) => {
                        let tls = ServerConnection::new(config).unwrap();
                        serve(StreamOwned::new(tls, socket), &answer, &asked)
                    }
                });
            }
        });
        Self {
            address,
            answer,
            asked,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/ask?x=1", self.address)
    }

    pub(crate) fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub(crate) fn asked(&self) -> Vec<Question> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until it was asked so often.
    pub(crate) fn wait_for(&self, count: usize) {
        let until = Instant::now() + DEADLINE;
        while self.asked.lock().unwrap().len() < count {
            assert!(Instant::now() < until, "it is not asked");
            thread::yield_now();
        }
    }
}

/// Answers the questions of one connection. None when it ends.
fn serve<S: Read + Write>(
    stream: S,
    answer: &Mutex<Answer>,
    asked: &Mutex<Vec<Question>>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let length = head.to_lowercase();
        let length = length
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
        stream.read_exact(&mut body).ok()?;
        let body = String::from_utf8(body).unwrap();
        let mut next = answer.lock().unwrap();
        let mut answer = next.clone();
        if let Answer::Judge(judge) = &answer {
            answer = say(&judge(&serde_json::from_str(&body).unwrap()));
        }
        if let Answer::Close(left, then) = &mut *next {
            *left -= 1;
            if *left == 0 {
                *next = Answer::Say(200, then.clone());
            }
        }
        drop(next);
        asked.lock().unwrap().push(Question { head, body });
        if let Answer::Hold(barrier, body) = answer {
            barrier.wait();
            answer = Answer::Say(200, body);
        }
        match answer {
            Answer::Say(status, body) => {
                let length = body.len();
                let text =
                    format!("HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\n\r\n{body}");
                stream.get_mut().write_all(text.as_bytes()).ok()?;
                stream.get_mut().flush().ok()?;
            }
            Answer::Close(..) => return None,
            Answer::Stall(bytes) => {
                stream.get_mut().write_all(bytes).ok()?;
                stream.get_mut().flush().ok()?;
                let _ = stream.read(&mut [0]);
                return None;
            }
            Answer::Raw(bytes) => {
                stream.get_mut().write_all(bytes).ok()?;
                stream.get_mut().flush().ok()?;
                return None;
            }
            Answer::Judge(_) | Answer::Hold(..) | Answer::Wait => {
                // Until the broker gives up.
                let _ = stream.read(&mut [0]);
                return None;
            }
        }
    }
}

pub(crate) fn tls(issued: &Issued) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&issued.certificate).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&issued.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(chain, key);
    Arc::new(config.unwrap())
}
