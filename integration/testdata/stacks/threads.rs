// The standard library alone: a thread for each connection.
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::{env, thread, time::Duration};

fn answer(mut client: TcpStream, body: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::from(request.as_str());
    while !line.trim_end().is_empty() {
        line.clear();
        reader.read_line(&mut line)?;
    }
    if request.is_empty() {
        return Ok(());
    }
    if request.starts_with("GET /slow") {
        thread::sleep(Duration::from_millis(200));
    }
    write!(client, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}", body.len(), body)
}

fn main() {
    let body: &'static str = Box::leak(format!("g{} served\n", env::var("ENTRYPOINT_GENERATION").unwrap()).into_boxed_str());
    let address = format!("127.0.0.1:{}", env::args().nth(1).unwrap());
    for client in TcpListener::bind(address).unwrap().incoming().flatten() {
        thread::spawn(move || answer(client, body));
    }
}
