// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The page about the card: HTTP/1.1 (RFC 9112), one request per connection.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::host::Tally;
use crate::status::Status;

/// The answer to a request, of which `head` is everything up to the empty line.
pub(crate) fn respond(head: &[u8], status: &Status) -> Vec<u8> {
    let (code, body) = match request(head) {
        Some(("GET" | "HEAD", "/" | "/index.html")) => ("200 OK", page(status)),
        Some(("GET" | "HEAD", _)) if status.captive => ("302 Found", message("The page is /")),
        Some(("GET" | "HEAD", _)) => ("404 Not Found", message("There is only one page: /")),
        Some(_) => (
            "405 Method Not Allowed",
            message("This page can only be read."),
        ),
        None => ("400 Bad Request", message("That was no HTTP request.")),
    };
    // By address: the name that the client asked for may be any.
    let location = match code {
        "302 Found" => format!("Location: http://{}/\r\n", status.lan.ipv4),
        _ => String::new(),
    };
    let mut response = format!(
        "HTTP/1.1 {code}\r\n\
         {location}\
         Content-Type: text/html; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         Allow: GET, HEAD\r\n\
         Cache-Control: no-store\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    if !head.starts_with(b"HEAD ") {
        response.push_str(&body);
    }
    response.into_bytes()
}

/// Method and path of a request that is one.
fn request(head: &[u8]) -> Option<(&str, &str)> {
    if !head.ends_with(b"\r\n\r\n") {
        return None;
    }
    let line = std::str::from_utf8(head).ok()?.lines().next()?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if !version.starts_with("HTTP/1.") || words.next().is_some() {
        return None;
    }
    let path = target.split('?').next().unwrap_or(target);
    Some((method, path))
}

fn message(text: &str) -> String {
    format!("<!doctype html><title>vnet</title><p>{text}</p>\n")
}

/// A line about a port that leads to the host; where it leads there is no affair of the guest's.
fn forward((port, tally): &(u16, Arc<Tally>)) -> String {
    let [taken, refused, to_host, to_guest] = [
        &tally.taken,
        &tally.refused,
        &tally.to_host,
        &tally.to_guest,
    ]
    .map(|counter| counter.load(Ordering::Relaxed));
    format!(
        "port {port:<7} {taken:>12} connections to the host, {refused} refused, {to_host} bytes there, \
         {to_guest} back\n"
    )
}

fn page(status: &Status) -> String {
    let Status {
        lan,
        captive: _,
        from_guest,
        to_guest,
        refused,
        lost,
        connections,
        forwards,
    } = status;
    let to_host: String = forwards.iter().map(forward).collect();
    let (address, address6) = (lan.ipv4, lan.ipv6);
    format!(
        "<!doctype html>\n\
         <html lang=en><meta http-equiv=refresh content=2><title>vnet</title>\n\
         <h1>vnet</h1>\n\
         <p>This page came to you through a network card made of software: a PCI function that a \
         process outside of your virtual machine serves over vfio-user. It was written by the \
         card's gateway, {address} and {address6}, a virtual LAN peer inside that process.</p>\n\
         <h2>Traffic through the gateway</h2>\n\
         <pre>\n\
         from you     {:>12} frames {:>16} bytes\n\
         to you       {:>12} frames {:>16} bytes\n\
         refused      {refused:>12} frames\n\
         lost         {lost:>12} frames\n\
         connections  {connections:>12}\n\
         {to_host}\
         </pre>\n\
         <h2>Services</h2>\n\
         <pre>\n\
         7     echo      TCP, UDP\n\
         9     discard   TCP, UDP\n\
         19    chargen   TCP, UDP\n\
         53    DNS       UDP\n\
         67    DHCP      UDP\n\
         80    this page TCP\n\
         5001  sink      TCP: send, close your side, read the count and SHA-256\n\
         5002  source    TCP: send SIZE SEED for bytes, SIZE SEED sum for their SHA-256\n\
         </pre>\n\
         </html>\n",
        from_guest.0, from_guest.1, to_guest.0, to_guest.1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(head: &str) -> String {
        String::from_utf8(respond(head.as_bytes(), &Status::default())).unwrap()
    }

    #[test]
    fn the_page_is_as_long_as_it_says_and_fits_the_socket() {
        let most = Tally {
            taken: u64::MAX.into(),
            refused: u64::MAX.into(),
            to_host: u64::MAX.into(),
            to_guest: u64::MAX.into(),
        };
        let status = Status {
            lan: Default::default(),
            captive: false,
            from_guest: (u64::MAX, u64::MAX),
            to_guest: (u64::MAX, u64::MAX),
            refused: u64::MAX,
            lost: u64::MAX,
            connections: usize::MAX,
            forwards: vec![(u16::MAX, Arc::new(most)); 64],
        };
        let response = respond(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &status);
        let text = String::from_utf8(response).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(text.len() < 16 * 1024);
    }

    #[test]
    fn a_head_request_gets_no_body() {
        let text = answer("HEAD / HTTP/1.0\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn where_every_name_leads_here_every_path_does() {
        let status = Status {
            captive: true,
            ..Status::default()
        };
        let answer = |head: &[u8]| String::from_utf8(respond(head, &status)).unwrap();
        let found = answer(b"GET /generate_204 HTTP/1.1\r\nHost: www.example\r\n\r\n");
        assert!(found.starts_with("HTTP/1.1 302 Found\r\nLocation: http://10.77.0.1/\r\n"));
        assert!(answer(b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
    }

    #[test]
    fn other_requests_get_their_error() {
        for (request, code) in [
            ("GET /x HTTP/1.1\r\n\r\n", "404"),
            ("GET /?q HTTP/1.1\r\n\r\n", "200"),
            ("POST / HTTP/1.1\r\n\r\n", "405"),
            ("GET /\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\n", "400"),
            ("\u{1}\u{2}\r\n\r\n", "400"),
            ("", "400"),
        ] {
            let text = answer(request);
            assert_eq!(text.split(' ').nth(1), Some(code), "{request:?}");
        }
    }
}
