//! The edge example as a process of its own, and a small HTTP client.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

/// The edge example; `cargo test` builds it beside the tests.
pub fn edge_binary() -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    let path = own.ancestors().nth(2).expect("target/<profile>/deps/it").join("examples").join("edge");
    assert!(path.exists(), "{} is missing: run `cargo build --example edge` first", path.display());
    path
}

/// The command of an edge, free of this machine's own settings.
pub fn edge_command() -> Command {
    unsettled(Command::new(edge_binary()))
}

fn unsettled(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DISTEDGE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the edge to its end.
pub fn run(arguments: &[&str]) -> Output {
    edge_command().args(arguments).stdin(Stdio::null()).output().expect("the edge starts")
}

/// An edge that serves. It is killed when dropped.
pub struct EdgeProcess {
    child: Child,
    output: BufReader<ChildStdout>,
    log: PathBuf,
    /// Where in the log its own words begin.
    begin: usize,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it printed until it listened.
    pub told: Vec<String>,
}

impl EdgeProcess {
    /// Starts an edge on a free port; `log` takes its standard error.
    pub fn start(data: &Path, log: &Path, arguments: &[&str]) -> EdgeProcess {
        match EdgeProcess::try_start(data, log, arguments) {
            Ok(edge) => edge,
            Err(why) => panic!("the edge did not start: {why}"),
        }
    }

    /// The same, or what it said to standard error.
    pub fn try_start(data: &Path, log: &Path, arguments: &[&str]) -> Result<EdgeProcess, String> {
        EdgeProcess::launch(data, log, arguments).ready()
    }

    /// Starts an edge that may write no file beyond `bytes`, as on a full disk, until
    /// [`lift_limit`](EdgeProcess::lift_limit).
    pub fn start_limited(data: &Path, log: &Path, bytes: u64, arguments: &[&str]) -> EdgeProcess {
        let mut command = unsettled(Command::new("sh"));
        // A write that is refused is an error then, not a signal.
        let script = format!("trap '' XFSZ; ulimit -S -f {}; exec \"$0\" \"$@\"", bytes / 512);
        command.args(["-c", &script]).arg(edge_binary());
        EdgeProcess::spawn(command, data, log, arguments).ready().unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts an edge that may have no more than `files` open at once.
    pub fn start_with_files(data: &Path, log: &Path, files: u32, arguments: &[&str]) -> EdgeProcess {
        let mut command = unsettled(Command::new("sh"));
        command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]).arg(edge_binary());
        EdgeProcess::spawn(command, data, log, arguments).ready().unwrap_or_else(|why| panic!("{why}"))
    }

    /// Files may grow again.
    pub fn lift_limit(&self) {
        prlimit(Some(self.pid()), Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    }

    fn ready(mut self) -> Result<EdgeProcess, String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                let status = self.child.wait().unwrap();
                return Err(format!("{status}: {}", &self.log()[self.begin..]));
            }
            let address = line.strip_prefix("listening on ").and_then(|url| url.trim_end().split_once("://"));
            let address = address.map(|(_, address)| address.parse().unwrap());
            self.told.push(line.trim_end().to_owned());
            if let Some(address) = address {
                self.address = address;
                return Ok(self);
            }
        }
    }

    /// Starts an edge and does not wait until it listens.
    pub fn launch(data: &Path, log: &Path, arguments: &[&str]) -> EdgeProcess {
        EdgeProcess::spawn(edge_command(), data, log, arguments)
    }

    fn spawn(mut command: Command, data: &Path, log: &Path, arguments: &[&str]) -> EdgeProcess {
        let errors = File::options().create(true).append(true).open(log).unwrap();
        let begin = errors.metadata().unwrap().len() as usize;
        let mut child = command
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("the edge starts");
        let output = BufReader::new(child.stdout.take().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        EdgeProcess { child, output, log: log.to_owned(), begin, address, told: Vec::new() }
    }

    /// The control token, if this was the first start.
    pub fn token(&self) -> Option<&str> {
        self.told.iter().find_map(|line| line.strip_prefix("control token: "))
    }

    /// What it has written to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Freezes it.
    pub fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// Waits for its end, at most `limit`.
    pub fn wait(mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the edge still runs after {limit:?}; it said:\n{}", self.log());
    }

    /// GET with an optional token.
    pub fn get(&self, path: &str, token: Option<&str>) -> Reply {
        call(self.address, "GET", path, token, b"").expect("the edge answers")
    }
}

impl Drop for EdgeProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let named =
            |line: &&str| line.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name));
        self.head.lines().find(named).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Writes the head of a request whose connection ends with the answer.
pub fn request(address: SocketAddr, method: &str, path: &str, token: Option<&str>, length: usize) -> String {
    let credentials = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n{credentials}\r\n"
    )
    .replace("content-length: 0\r\n", "")
}

/// One request, one connection.
pub fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &[u8],
) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(request(address, method, path, token, body.len()).as_bytes())?;
    stream.write_all(body)?;
    reply(stream, method)
}

/// Reads the answer to `method` to its end.
pub fn reply(mut stream: TcpStream, method: &str) -> std::io::Result<Reply> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let cut = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the answer is cut off");
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(cut)?;
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut)?;
    let reply = Reply { status, head, body: all.split_off(end + 4) };
    let length = reply.header("content-length").and_then(|length| length.parse::<usize>().ok());
    match length {
        Some(length) if method != "HEAD" && length != reply.body.len() => Err(cut()),
        _ => Ok(reply),
    }
}
