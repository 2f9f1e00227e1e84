// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! TCP streams: as many bytes as go through, or a number of them that are all compared.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    error::{Context, Error, Result},
    pattern,
};

/// Whether the other end has just gone, as it does when it has enough.
fn is_end(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected
    )
}

/// Sends until the other end has enough or this one shuts the stream down.
pub fn send(mut stream: &TcpStream, bytes: &AtomicU64) -> Result<()> {
    let block = pattern::block();
    let mut offset = 0;
    loop {
        match stream.write(&block[offset..]) {
            Ok(n) => {
                bytes.fetch_add(n as u64, Relaxed);
                offset = (offset + n) % block.len();
            }
            Err(e) if is_end(e.kind()) => return Ok(()),
            Err(e) => return Err(Error::Io("send".into(), e)),
        }
    }
}

/// Receives what [`send`] sends, until that ends or this end shuts the stream down.
pub fn receive(mut stream: &TcpStream, bytes: &AtomicU64) -> Result<()> {
    let mut block = vec![0; pattern::BLOCK];
    let mut position = 0;
    loop {
        match stream.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                pattern::spot_check(&block[..n], position)?;
                position += n as u64;
                bytes.fetch_add(n as u64, Relaxed);
            }
            Err(e) if is_end(e.kind()) => return Ok(()),
            Err(e) => return Err(Error::Io("receive".into(), e)),
        }
    }
}

/// Sends that many bytes without period.
pub fn send_checked(mut stream: &TcpStream, total: u64) -> Result<()> {
    let mut block = vec![0; pattern::BLOCK];
    let mut position = 0;
    while position < total {
        let n = (total - position).min(block.len() as u64) as usize;
        pattern::fill(&mut block[..n], position);
        stream.write_all(&block[..n]).context("send")?;
        position += n as u64;
    }
    Ok(())
}

/// Receives as many and compares each.
pub fn receive_checked(mut stream: &TcpStream, total: u64) -> Result<()> {
    let mut block = vec![0; pattern::BLOCK];
    let mut position = 0;
    while position < total {
        let n = (total - position).min(block.len() as u64) as usize;
        stream.read_exact(&mut block[..n]).context("receive")?;
        pattern::check(&block[..n], position)?;
        position += n as u64;
    }
    Ok(())
}
