// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the server asks its client for, and a client that answers anything.

use arbitrary::{Result, Unstructured};
use vnet_protocol::{Inbox, Requests, HEADER_SIZE, MAX_REQUESTS};

use crate::input::{bytes, index, mostly, rarely};

/// Most bytes that are asked for at a time.
const MOST: u32 = 300;

/// A request without an answer.
struct Open {
    id: u16,
    command: u16,
    address: u64,
    count: u32,
}

impl Open {
    /// What a client that does as it is asked says.
    fn answer(&self, data: &[u8]) -> Vec<u8> {
        let mut payload = self.address.to_ne_bytes().to_vec();
        payload.extend(u64::from(self.count).to_ne_bytes());
        payload.extend(data);
        message(self.id, self.command, 1, 0, &payload)
    }

    fn data(&self, u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let mut data = bytes(u, self.count as usize)?.to_vec();
        data.resize(
            if self.command == READ {
                self.count as usize
            } else {
                0
            },
            0xa5,
        );
        Ok(data)
    }
}

const READ: u16 = 11;
const WRITE: u16 = 12;

/// Requests, and answers that are right, nearly right, or not. What was answered right is taken as it
/// was said; what does not fit is refused, ends the request of that number if there is one, and no other.
pub fn requests(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut requests = Requests::default();
    let mut inbox = Inbox::default();
    let mut open: Vec<Open> = Vec::new();
    while !u.is_empty() {
        match u.int_in_range(0..=3)? {
            0 | 1 => ask(u, &mut requests, &mut open)?,
            2 if !open.is_empty() => {
                let at = index(u, open.len())?;
                let data = open[at].data(u)?;
                let answer = open[at].answer(&data);
                let before = open.swap_remove(at);
                put(&mut inbox, &answer);
                let message = inbox.next().expect("good").expect("whole");
                let taken = requests.answer(&message).expect("it was asked for");
                assert_eq!(taken.id, before.id);
                assert_eq!(taken.result.expect("right"), data);
            }
            _ => {
                let wrong = spoilt(u, &open)?;
                put(&mut inbox, &wrong);
                let message = match inbox.next() {
                    Ok(Some(message)) => message,
                    // Not even a message: there is no going on after it.
                    _ => return Ok(()),
                };
                let id = message.header.id;
                let at = open.iter().position(|open| open.id == id);
                let taken = requests.answer(&message);
                assert_eq!(taken.is_ok(), at.is_some());
                if let Some(at) = at {
                    let open = open.swap_remove(at);
                    if let Ok(data) = taken.expect("it was asked for").result {
                        let due = if open.command == READ { open.count } else { 0 };
                        assert_eq!(data.len(), due as usize);
                    }
                }
            }
        }
        assert_eq!(requests.is_full(), open.len() == MAX_REQUESTS);
        assert_eq!(requests.is_empty(), open.is_empty());
    }
    Ok(())
}

/// The server has one more question, unless there are too many.
fn ask(u: &mut Unstructured<'_>, requests: &mut Requests, open: &mut Vec<Open>) -> Result<()> {
    let address = mostly(u, &[0, 0x1000, u64::MAX])?;
    let count = u.int_in_range(0..=MOST)?;
    let mut message = Vec::new();
    let command = *u.choose(&[READ, WRITE])?;
    let id = match command {
        READ => requests.read(address, count, &mut message),
        _ => requests.write(address, count, &mut message, |to| to.fill(7)),
    };
    assert_eq!(id.is_none(), open.len() == MAX_REQUESTS);
    let Some(id) = id else {
        assert!(message.is_empty());
        return Ok(());
    };
    assert!(open.iter().all(|open| open.id != id));
    let data = if command == READ { 0 } else { count as usize };
    assert_eq!(message.len(), HEADER_SIZE + 16 + data);
    open.push(Open {
        id,
        command,
        address,
        count,
    });
    Ok(())
}

/// An answer that is nearly one, or anything.
fn spoilt(u: &mut Unstructured<'_>, open: &[Open]) -> Result<Vec<u8>> {
    if open.is_empty() || rarely(u, 4)? {
        let (id, command) = (u.arbitrary()?, mostly(u, &[READ, WRITE])?);
        let flags = mostly(u, &[1, 0x21])?;
        return Ok(message(id, command, flags, u.arbitrary()?, bytes(u, 40)?));
    }
    let open = &open[index(u, open.len())?];
    let data = open.data(u)?;
    let mut answer = open.answer(&data);
    match rarely(u, 3)? {
        true => {
            let len = u.int_in_range(HEADER_SIZE..=answer.len())?;
            answer.truncate(len);
            answer.extend(bytes(u, 8)?);
            let size = answer.len() as u32;
            answer[4..8].copy_from_slice(&size.to_ne_bytes());
        }
        // But for its size, without which the rest of the stream means nothing.
        false => {
            let at = index(u, answer.len())?;
            if !(4..8).contains(&at) {
                answer[at] ^= u.arbitrary::<u8>()?;
            }
        }
    }
    Ok(answer)
}

fn message(id: u16, command: u16, flags: u32, errno: u32, payload: &[u8]) -> Vec<u8> {
    let size = (HEADER_SIZE + payload.len()) as u32;
    let mut message = [id.to_ne_bytes(), command.to_ne_bytes()].concat();
    for word in [size, flags, errno] {
        message.extend(word.to_ne_bytes());
    }
    message.extend(payload);
    message
}

fn put(inbox: &mut Inbox, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let space = inbox.space();
        let count = bytes.len().min(space.len());
        space[..count].copy_from_slice(&bytes[..count]);
        inbox.received(count, Vec::new(), None);
        bytes = &bytes[count..];
    }
}
