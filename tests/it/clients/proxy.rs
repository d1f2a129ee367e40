//! A wire that can be made to stop or to break.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Passes connections on to another address.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: Mutex<SocketAddr>,
    /// Bytes from the clients that went through, and how many may.
    up: AtomicU64,
    up_limit: AtomicU64,
    /// Bytes to the clients, and after how many their connections break.
    down: AtomicU64,
    down_limit: AtomicU64,
    held: AtomicBool,
    ended: AtomicBool,
}

impl Proxy {
    pub fn new(to: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to: Mutex::new(to),
            up: AtomicU64::new(0),
            up_limit: AtomicU64::new(u64::MAX),
            down: AtomicU64::new(0),
            down_limit: AtomicU64::new(u64::MAX),
            held: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.ended.load(SeqCst) {
                    break;
                }
                accepting.clone().connect(client.unwrap());
            }
        });
        Proxy { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// New connections go to `to`, nothing holds or breaks them, and counting starts anew.
    pub fn lead_to(&self, to: SocketAddr) {
        *self.shared.to.lock().unwrap() = to;
        self.shared.up.store(0, SeqCst);
        self.shared.down.store(0, SeqCst);
        self.shared.up_limit.store(u64::MAX, SeqCst);
        self.shared.down_limit.store(u64::MAX, SeqCst);
        self.shared.held.store(false, SeqCst);
    }

    /// After `bytes` from the clients nothing goes on.
    pub fn hold_after(&self, bytes: u64) {
        self.shared.up_limit.store(bytes, SeqCst);
    }

    /// After `bytes` to the clients their connections break.
    pub fn break_after(&self, bytes: u64) {
        self.shared.down_limit.store(bytes, SeqCst);
    }

    /// Waits until something is held.
    pub fn wait_until_held(&self) {
        let begun = Instant::now();
        while !self.shared.held.load(SeqCst) {
            assert!(begun.elapsed() < Duration::from_secs(120), "nothing came that could be held");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Bytes that came from the clients and went on.
    pub fn sent(&self) -> u64 {
        self.shared.up.load(SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.shared.up_limit.store(u64::MAX, SeqCst);
        // Wakes the listener; if that fails, it waits on until the tests end.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn connect(self: Arc<Shared>, client: TcpStream) {
        let to = *self.to.lock().unwrap();
        // Dropping the client is what a server that is not there looks like.
        let Ok(server) = TcpStream::connect(to) else { return };
        let broken = Arc::new(AtomicBool::new(false));
        let (reading, writing) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let (shared, cut) = (self.clone(), broken.clone());
        thread::spawn(move || {
            pass(&reading, &writing, |length| shared.may_go_up(length, &cut));
        });
        thread::spawn(move || {
            pass(&server, &client, |length| self.may_go_down(length));
            broken.store(true, SeqCst);
        });
    }

    fn may_go_up(&self, length: u64, broken: &AtomicBool) -> bool {
        while self.up.load(SeqCst) >= self.up_limit.load(SeqCst) {
            if broken.load(SeqCst) {
                return false;
            }
            self.held.store(true, SeqCst);
            thread::sleep(Duration::from_millis(2));
        }
        self.up.fetch_add(length, SeqCst);
        true
    }

    fn may_go_down(&self, length: u64) -> bool {
        self.down.fetch_add(length, SeqCst) + length <= self.down_limit.load(SeqCst)
    }
}

/// Passes bytes on as long as `may` allows it, then closes both.
fn pass(mut from: &TcpStream, mut to: &TcpStream, may: impl Fn(u64) -> bool) {
    let mut chunk = vec![0; 32 * 1024];
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        if !may(length as u64) || to.write_all(&chunk[..length]).is_err() {
            break;
        }
    }
    // They may be closed already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
