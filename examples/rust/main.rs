// The standard library alone: a thread for each connection, kept alive, and leave taken of each client.
use std::env;
use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

static LEAVING: AtomicBool = AtomicBool::new(false);
static RUNNING: AtomicUsize = AtomicUsize::new(0); // requests

const LINGER: Duration = Duration::from_secs(1); // in which clients make one more request, whose answer tells them
const LOOK: Duration = Duration::from_millis(20);
const TERM: i32 = 15;

// The standard library has no signals; every program is linked with a C library that has this.
extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
}

extern "C" fn on_term(_: i32) {
    LEAVING.store(true, SeqCst);
}

// Ends the process when the linger is over and no request is left.
fn leave() {
    while !LEAVING.load(SeqCst) {
        thread::sleep(LOOK);
    }
    thread::sleep(LINGER);
    while RUNNING.load(SeqCst) > 0 {
        thread::sleep(LOOK);
    }
    process::exit(0);
}

// Reads a whole request; None: the client has closed.
fn request(reader: &mut BufReader<TcpStream>) -> Result<Option<Vec<u8>>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(body))
}

fn serve(mut client: TcpStream, body: &str) -> Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    while request(&mut reader)?.is_some() {
        RUNNING.fetch_add(1, SeqCst);
        let last = LEAVING.load(SeqCst);
        let connection = if last { "close" } else { "keep-alive" };
        let answer = format!("HTTP/1.1 200 OK\r\nConnection: {}\r\nContent-Length: {}\r\n\r\n{}", connection, body.len(), body);
        let sent = client.write_all(answer.as_bytes());
        RUNNING.fetch_sub(1, SeqCst);
        sent?;
        if last {
            break;
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    unsafe { signal(TERM, on_term) };
    thread::spawn(leave);
    let generation = env::var("ENTRYPOINT_GENERATION").unwrap_or_default();
    let body: &'static str = Box::leak(format!("g{} served\n", generation).into_boxed_str());
    let port = env::var("PORT").unwrap_or("8080".to_string());
    for client in TcpListener::bind(format!("0.0.0.0:{}", port))?.incoming().flatten() {
        thread::spawn(move || serve(client, body));
    }
    Ok(())
}
