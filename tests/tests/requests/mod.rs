//! `avocet request`, with an answer.

use avocet_tests::process::{Process, output};
use avocet_tests::provision;
use tokio::process::Command;

/// Asks with these arguments of `avocet`, and answers with those.
pub(crate) async fn are_answered(asks: &[&str], answers: &[&str], topic: &str) {
    let avocet = provision::avocet().unwrap_or_else(|error| panic!("{error:#}"));
    let command = |name: &str, door: &[&str]| {
        let mut command = Command::new(&avocet);
        command.arg(name).args(door);
        command
    };
    let answer = format!("{topic}/answer");
    let mut listens = command("sub", answers);
    listens.args(["-d", "-t", topic, "-F", "request %R|%D|%p"]);
    let mut responder = Process::spawn("responder", listens);
    responder.line_with("SUBACK").await;
    let mut request = command("request", asks);
    request.args([
        "-t",
        topic,
        "-e",
        &answer,
        "-m",
        "how warm?",
        "-q",
        "1",
        "-W",
        "120",
    ]);
    request.args(["-D", "publish", "correlation-data", "4711"]);
    let mut requester = Process::spawn("requester", request);
    let asked = responder
        .line("a request", |line| {
            line.strip_prefix("request ").map(str::to_owned)
        })
        .await;
    assert_eq!(asked, format!("{answer}|4711|how warm?"));
    let mut reply = command("pub", answers);
    reply.args(["-t", &answer, "-m", "23 °C", "-q", "1"]);
    reply.args(["-D", "publish", "correlation-data", "4711"]);
    output(reply).await;
    assert!(requester.exit().await.success());
    assert_eq!(requester.lines(), ["23 °C"]);
}
