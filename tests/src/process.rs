//! Foreign programs as children: their lines are awaited, their output is shown when a test fails.

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::within;

/// A running program. It is killed when dropped, and its output printed if the test is failing.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    backlog: VecDeque<String>,
    transcript: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `command`, with nothing to read and both outputs captured.
    pub fn spawn(name: &str, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        let (sender, lines) = mpsc::unbounded_channel();
        let transcript = Arc::new(Mutex::new(Vec::new()));
        let outputs: [Option<Box<dyn AsyncRead + Send + Unpin>>; 2] = [
            child.stdout.take().map(|output| Box::new(output) as _),
            child.stderr.take().map(|output| Box::new(output) as _),
        ];
        for output in outputs.into_iter().flatten() {
            tokio::spawn(read_lines(output, sender.clone(), Arc::clone(&transcript)));
        }
        Self {
            name: name.to_owned(),
            child,
            lines,
            backlog: VecDeque::new(),
            transcript,
        }
    }

    /// Everything printed so far.
    pub fn transcript(&self) -> String {
        let lines = self
            .transcript
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        format!("--- output of {}:\n{}\n---", self.name, lines.join("\n"))
    }

    /// The next line for which `choose` returns something; lines before it stay to be asked for.
    ///
    /// # Panics
    ///
    /// When the program ends or the deadline passes first.
    pub async fn line<T>(&mut self, awaited: &str, choose: impl Fn(&str) -> Option<T>) -> T {
        for index in 0..self.backlog.len() {
            if let Some(value) = self.backlog.get(index).and_then(|line| choose(line)) {
                self.backlog.remove(index);
                return value;
            }
        }
        let awaited = format!("{awaited} from {}", self.name);
        let transcript = Arc::clone(&self.transcript);
        let found = async {
            while let Some(line) = self.lines.recv().await {
                match choose(&line) {
                    Some(value) => return Some(value),
                    None => self.backlog.push_back(line),
                }
            }
            None
        };
        let found = within(&awaited, found, || show(&transcript)).await;
        found.unwrap_or_else(|| panic!("it ended before {awaited}\n{}", show(&transcript)))
    }

    /// Waits for a line that contains `text`.
    pub async fn line_with(&mut self, text: &str) {
        self.line(&format!("a line with {text:?}"), |line| {
            line.contains(text).then_some(())
        })
        .await;
    }

    /// All lines so far, those that were awaited included.
    pub fn lines(&self) -> Vec<String> {
        self.transcript
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for the end of the program.
    pub async fn exit(&mut self) -> ExitStatus {
        let transcript = Arc::clone(&self.transcript);
        let ended = async {
            let status = self.child.wait().await;
            // The outputs end with the program, so that the transcript is whole.
            while let Some(line) = self.lines.recv().await {
                self.backlog.push_back(line);
            }
            status
        };
        let awaited = format!("the end of {}", self.name);
        within(&awaited, ended, || show(&transcript))
            .await
            .expect("the child can be waited for")
    }

    /// Ends the program without a chance to say good-bye, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.start_kill().expect("the child can be killed");
        self.exit().await;
    }

    /// Asks the program to stop (SIGTERM) and waits until it did.
    pub async fn terminate(&mut self) -> ExitStatus {
        let id = self.child.id().expect("the child runs");
        // The shell has `kill` built in; the program of that name is not everywhere.
        let status = Command::new("sh")
            .args(["-c", "kill \"$@\"", "kill"])
            .args(["-TERM", &id.to_string()])
            .status()
            .await;
        assert!(
            status.is_ok_and(|status| status.success()),
            "cannot signal {}",
            self.name
        );
        self.exit().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.transcript());
        }
    }
}

fn show(transcript: &Mutex<Vec<String>>) -> String {
    transcript
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .join("\n")
}

async fn read_lines(
    output: impl AsyncRead + Unpin,
    lines: mpsc::UnboundedSender<String>,
    transcript: Arc<Mutex<Vec<String>>>,
) {
    /// A line of a transcript is for people; a payload of 1 MiB is not.
    const SHOWN_CHARS: usize = 2_000;
    let mut reader = BufReader::new(output);
    let mut bytes = Vec::new();
    while reader
        .read_until(b'\n', &mut bytes)
        .await
        .is_ok_and(|read| read > 0)
    {
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        transcript
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line.chars().take(SHOWN_CHARS).collect());
        // Nobody may be interested any more; the output is still read, so that no pipe fills up.
        let _ = lines.send(line);
        bytes.clear();
    }
}

/// Runs `command` to its end and returns what it wrote to standard output.
///
/// # Panics
///
/// When it fails or the deadline passes.
pub async fn output(mut command: Command) -> Vec<u8> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = within(&format!("the end of {shown}"), output, String::new)
        .await
        .unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{shown} failed with {}: {errors}",
        output.status
    );
    output.stdout
}
