//! Running and measuring: what a contender calls, and what that cost.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Scratch, command};
use crate::launcher::{self, Answer, Order, Usage};

/// One call of a program, as the server's user.
#[derive(Clone, Debug)]
pub struct Call(Order);

impl Call {
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self(Order { program: program.into(), directory: "/".into(), ..Order::default() })
    }

    pub fn arg(mut self, argument: impl AsRef<Path>) -> Self {
        self.0.arguments.push(text(argument.as_ref()));
        self
    }

    pub fn args<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.0.arguments.extend(arguments.map(str::to_owned));
        self
    }

    pub fn within(mut self, directory: &Path) -> Self {
        self.0.directory = directory.to_path_buf();
        self
    }

    pub fn envs(mut self, environment: Vec<(String, String)>) -> Self {
        self.0.environment.extend(environment);
        self
    }

    /// The same as a shell would be told, for archive_command and restore_command.
    pub fn shell(&self) -> String {
        let words = [text(&self.0.program)].into_iter().chain(self.0.arguments.iter().cloned());
        words.collect::<Vec<_>>().join(" ")
    }

    /// The same started by a shell, which runs `script` with `argument` and this call as its arguments.
    pub fn through(&self, script: &str, argument: &Path) -> Self {
        let Order { program, arguments, .. } = self.0.clone();
        let words = ["-c".to_owned(), script.to_owned(), "sh".to_owned(), text(argument), text(&program)];
        let arguments = words.into_iter().chain(arguments).collect();
        Self(Order { program: "/bin/sh".into(), arguments, ..self.0.clone() })
    }

    /// Runs it unmeasured. It must succeed.
    pub fn run(&self) {
        let mut command = command(&self.0.program);
        command
            .args(&self.0.arguments)
            .current_dir(&self.0.directory)
            .envs(self.0.environment.iter().cloned());
        let output = command.output().unwrap_or_else(|error| panic!("start {self:?}: {error}"));
        assert!(output.status.success(), "{self:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("paths of benchmarks are UTF-8").to_owned()
}

/// What one run of a contender cost.
#[derive(Clone, Debug)]
pub struct Sample {
    /// From the start of the first call to the end of the last.
    pub wall: Duration,
    /// Each call by itself.
    pub calls: Vec<Duration>,
    pub cpu: Duration,
    /// Bytes; None where it says nothing.
    pub peak: Option<u64>,
    /// Bytes that the run added to where it stores; None where it stores nothing.
    pub stored: Option<u64>,
}

/// Where the server's user can start the launcher.
pub struct Launcher {
    scratch: Scratch,
    program: PathBuf,
}

impl Launcher {
    pub fn new() -> Self {
        let scratch = Scratch::new();
        let program = scratch.join("launcher");
        let me = std::env::current_exe().expect("find this program");
        fs::copy(me, &program).expect("copy this program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
        Self { scratch, program }
    }

    /// Nothing of what was prepared is still to be written when a run begins.
    pub fn start(&self) -> Session {
        rustix::fs::sync();
        let messages = self.scratch.write("messages", "");
        let mut launcher = command(&self.program);
        launcher.arg(launcher::FLAG).stdin(Stdio::piped()).stdout(Stdio::piped());
        launcher.stderr(File::options().append(true).open(&messages).expect("open the messages"));
        let mut launcher = launcher.spawn().expect("start the launcher");
        let orders = launcher.stdin.take();
        let answers = BufReader::new(launcher.stdout.take().expect("piped"));
        Session { launcher, orders, answers, messages, calls: Vec::new(), began: None, ended: None }
    }

    /// One call as a whole run.
    pub fn measure(&self, call: &Call) -> Sample {
        let mut session = self.start();
        session.call(call);
        session.finish()
    }
}

/// One run of a contender.
pub struct Session {
    launcher: Child,
    /// None: there will be no more.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    messages: PathBuf,
    calls: Vec<Duration>,
    began: Option<Instant>,
    ended: Option<Instant>,
}

impl Session {
    /// Runs a program to its end. It must succeed.
    pub fn call(&mut self, call: &Call) {
        self.begin(call);
        self.end();
    }

    /// Starts a program that runs until [`Session::end`] has waited for it.
    pub fn begin(&mut self, call: &Call) {
        let order = serde_json::to_string(&call.0).expect("JSON");
        self.began.get_or_insert_with(Instant::now);
        writeln!(self.orders.as_mut().expect("not finished"), "{order}").expect("order");
    }

    pub fn end(&mut self) {
        let answer: Answer = self.answer();
        self.ended = Some(Instant::now());
        assert!(answer.status == 0, "it failed ({}):\n{}", answer.status, self.messages());
        self.calls.push(answer.wall);
    }

    /// What the programs wrote to standard error.
    pub fn messages(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.messages).expect("read the messages")).into_owned()
    }

    /// Waits for all that was left behind.
    pub fn finish(self) -> Sample {
        let calls = self.calls.clone();
        let span = self.began.zip(self.ended).map(|(began, ended)| ended - began).expect("one call at least");
        // A single call is timed where it runs; a sequence from outside, with what happens between the calls.
        let wall = if let [only] = calls.as_slice() { *only } else { span };
        let usage = self.usage();
        Sample { wall, calls, cpu: usage.cpu, peak: Some(usage.peak), stored: None }
    }

    fn usage(mut self) -> Usage {
        self.orders = None;
        let usage: Usage = self.answer();
        if usage.killed {
            eprintln!(
                "background processes had to be killed: their CPU time is too small\n{}",
                self.messages()
            );
        }
        assert!(self.launcher.wait().expect("wait for the launcher").success(), "{}", self.messages());
        usage
    }

    fn answer<T: serde::de::DeserializeOwned>(&mut self) -> T {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("read an answer");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}\n{}", self.messages()))
    }
}

/// All files below a directory, bytes.
pub fn size_of(directory: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(directory).into_iter().map(|entry| entry.expect("list"));
    let files = entries.filter(|entry| entry.file_type().is_file());
    files.map(|entry| entry.metadata().expect("stat").len()).sum()
}
