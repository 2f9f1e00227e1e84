// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Processes that stop after any step, and what the next one makes of that.

use super::*;
use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;

use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use vnet_card::{Card, Survival};
use vnet_protocol::Inbox;
use vnet_state::mock::Holder;

use crate::connection::{Connection, Received};

/// A client's connection, with what is kept of it.
pub(crate) struct Kept {
    memory: Arc<Memory>,
    holder: Arc<Holder>,
    pub(crate) client: UnixStream,
    server: UnixStream,
}

impl Kept {
    pub(crate) fn new() -> Self {
        let (client, server) = UnixStream::pair().unwrap();
        // As the holder accepts it.
        server.set_nonblocking(true).unwrap();
        let holder = Arc::<Holder>::default();
        holder.keep(Token::Client, server.as_fd());
        Self {
            memory: Memory::create().unwrap(),
            holder,
            client,
            server,
        }
    }

    /// False once a process has given the client up.
    pub(crate) fn holds_client(&self) -> bool {
        self.holder.held().contains_key(&Token::Client)
    }

    /// The server's end, as another process would have it.
    pub(crate) fn socket(&self) -> OwnedFd {
        self.server.try_clone().unwrap().into()
    }

    /// What another process makes of what was left.
    pub(crate) fn lifeline(&self) -> Lifeline {
        let Survival { memory, keeper } = self.survival();
        Lifeline::new(&memory, keeper, &mut self.holder.held()).unwrap()
    }

    /// Has a card go on with what was left of it.
    pub(crate) fn survive(&self, card: &mut Card) {
        card.survive(self.survival(), &mut self.holder.held())
            .unwrap();
    }

    fn survival(&self) -> Survival {
        let memory = self.memory.as_fd().try_clone_to_owned().unwrap();
        Survival {
            memory: Memory::open(memory).unwrap(),
            keeper: Arc::clone(&self.holder) as Arc<dyn Keeper>,
        }
    }

    fn cell(&self, index: usize) -> Cell {
        Block::new(&self.memory, SESSION).unwrap().cell(index)
    }

    /// Sends bytes with so many descriptors.
    pub(crate) fn send(&self, bytes: &[u8], count: usize) {
        let file = File::open("/proc/self/stat").unwrap();
        let fds = vec![file.as_fd(); count];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(count == 0 || control.push(SendAncillaryMessage::ScmRights(&fds)));
        let bytes = [IoSlice::new(bytes)];
        sendmsg(&self.client, &bytes, &mut control, SendFlags::empty()).unwrap();
    }

    /// What the client was sent and has not read.
    pub(crate) fn answers(&mut self) -> Vec<u8> {
        self.client.set_nonblocking(true).unwrap();
        let mut bytes = Vec::new();
        let _ = self.client.read_to_end(&mut bytes);
        self.client.set_nonblocking(false).unwrap();
        bytes
    }
}

/// A message of this size, its header included, that wants an answer, if only that it is refused.
pub(crate) fn message(id: u16, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    bytes[0..2].copy_from_slice(&id.to_ne_bytes());
    bytes[2..4].copy_from_slice(&99u16.to_ne_bytes());
    bytes[4..8].copy_from_slice(&(size as u32).to_ne_bytes());
    bytes
}

/// All that is there: ids, and how many descriptors came with each.
fn messages(client: &Connection<'_>) -> Vec<(u16, usize)> {
    let mut inbox = Inbox::default();
    let mut list = Vec::new();
    while let Received::Data { .. } = client.receive(&mut inbox).unwrap() {
        while let Some(message) = inbox.next().unwrap() {
            list.push((message.header.id, message.fds.len()));
        }
    }
    assert_eq!(inbox.unread(), 0);
    list
}

/// The last thing that a process has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Look,
    Begin,
    Put,
    /// The first part of the message has left the socket.
    TakePart,
    Take,
    Push,
}

const STEPS: [Step; 6] = [
    Step::Look,
    Step::Begin,
    Step::Put,
    Step::TakePart,
    Step::Take,
    Step::Push,
];

const ANSWER: &[u8; 24] = b"what a client waits for.";

/// Does what a process does with the first message, and dies after that step.
fn handle_first(kept: &Kept, last: Step) {
    let lifeline = kept.lifeline();
    let socket = kept.socket();
    let client = Connection::kept(kept.socket(), &lifeline);
    assert!(lifeline.recover(&socket).unwrap().is_some());
    let mut inbox = Inbox::default();
    while let Received::Data { .. } = client.receive(&mut inbox).unwrap() {}
    let header = inbox.next().unwrap().unwrap().header;
    assert_eq!(header.id, 1);
    if last >= Step::Begin {
        lifeline.begin();
    }
    if last >= Step::Put {
        lifeline.put(&header, ANSWER).unwrap();
    }
    let (size, rest) = (header.size as usize, inbox.unread());
    if last == Step::TakePart {
        lifeline.taking.set(Taking::Message { rest }.pack());
        lifeline.discard(&socket, 16).unwrap();
    }
    if last >= Step::Take {
        lifeline.take(&socket, size, rest).unwrap();
    }
    if last >= Step::Push {
        assert!(lifeline.push(&socket).unwrap());
    }
}

#[test]
fn a_message_is_answered_once_wherever_a_process_stops() {
    // In one piece, and in two with descriptors between them, which takes two calls to take out.
    for pieces in [1, 2] {
        for last in STEPS {
            let mut kept = Kept::new();
            let first = message(1, 48);
            match pieces {
                1 => kept.send(&first, 1),
                _ => {
                    kept.send(&first[..16], 1);
                    kept.send(&first[16..], 0);
                }
            }
            kept.send(&message(2, 32), 2);
            kept.send(&message(3, 32), 0);
            handle_first(&kept, last);
            // And one that does nothing more than to look around.
            assert!(kept.lifeline().recover(&kept.socket()).unwrap().is_some());

            let lifeline = kept.lifeline();
            let socket = kept.socket();
            let what = format!("{pieces} pieces, {last:?}");
            let recovered = lifeline.recover(&socket).unwrap().unwrap();
            assert_eq!(recovered.again, last == Step::Begin, "{what}");
            assert!(lifeline.push(&socket).unwrap());
            let left = messages(&Connection::kept(socket, &lifeline));
            let answered = last >= Step::Put;
            match answered {
                false => assert_eq!(left, [(1, 1), (2, 2), (3, 0)], "{what}"),
                true => assert_eq!(left, [(2, 2), (3, 0)], "{what}"),
            }
            let answer = if answered { ANSWER } else { &[][..] };
            assert_eq!(kept.answers(), answer, "{what}");
        }
    }
}

#[test]
fn a_message_without_an_answer_is_not_begun_in_its_middle() {
    for last in [Step::Look, Step::Begin, Step::TakePart, Step::Take] {
        let kept = Kept::new();
        let mut first = message(1, 48);
        first[8] = 0x10;
        kept.send(&first, 0);
        kept.send(&message(2, 16), 0);
        let (lifeline, socket) = (kept.lifeline(), kept.socket());
        lifeline.recover(&socket).unwrap();
        let client = Connection::kept(kept.socket(), &lifeline);
        let mut inbox = Inbox::default();
        client.receive(&mut inbox).unwrap();
        inbox.next().unwrap().unwrap();
        if last >= Step::Begin {
            lifeline.begin();
        }
        if last == Step::TakePart {
            let rest = inbox.unread();
            lifeline.taking.set(Taking::Message { rest }.pack());
            lifeline.discard(&socket, 20).unwrap();
        } else if last == Step::Take {
            lifeline.take(&socket, 48, inbox.unread()).unwrap();
        }
        let next = kept.lifeline();
        let recovered = next.recover(&socket).unwrap().unwrap();
        assert_eq!(recovered.again, last == Step::Begin, "{last:?}");
        let left = messages(&Connection::kept(socket, &next));
        match last {
            Step::Look | Step::Begin => assert_eq!(left, [(1, 0), (2, 0)]),
            _ => assert_eq!(left, [(2, 0)], "{last:?}"),
        }
    }
}

/// A message that is too long is read over by one process after another.
#[test]
fn what_is_left_of_a_long_message_is_known() {
    let mut kept = Kept::new();
    let long = message(1, 5 * CAPACITY);
    let (mut sent, mut processes) = (0, 0);
    loop {
        // Another process each time: one that dies as soon as it has taken something.
        let lifeline = kept.lifeline();
        let recovered = lifeline.recover(&kept.socket()).unwrap().unwrap();
        let mut inbox = match recovered.long {
            Some((header, left)) => Inbox::resume(header, left),
            None => Inbox::default(),
        };
        let client = Connection::kept(kept.socket(), &lifeline);
        if sent < long.len() {
            let end = long.len().min(sent + 50_000);
            kept.client.write_all(&long[sent..end]).unwrap();
            sent = end;
            if sent == long.len() {
                // With the next one behind it.
                kept.client.write_all(&message(2, 16)).unwrap();
            }
        }
        assert_ne!(client.receive(&mut inbox).unwrap(), Received::End);
        processes += 1;
        if let Some(message) = inbox.next().unwrap() {
            assert_eq!((message.header.id, message.header.command), (1, 99));
            assert!(message.payload.is_none());
            let header = message.header;
            lifeline.begin();
            lifeline.put(&header, ANSWER).unwrap();
            break;
        }
        client.handled(&mut inbox).unwrap();
    }
    assert!(processes > 5);
    // The answer is in the pipe, and this process is dead, too.
    let lifeline = kept.lifeline();
    let socket = kept.socket();
    let recovered = lifeline.recover(&socket).unwrap();
    assert_eq!(recovered, Some(Recovered::default()));
    assert!(lifeline.push(&socket).unwrap());
    assert_eq!(kept.answers(), ANSWER);
    let left = messages(&Connection::kept(socket, &lifeline));
    assert_eq!(left, [(2, 0)]);
}

/// The client takes nothing, and gets all in the end.
#[test]
fn an_answer_goes_out_in_pieces() {
    let mut kept = Kept::new();
    let lifeline = kept.lifeline();
    let socket = kept.socket();
    rustix::net::sockopt::set_socket_send_buffer_size(&kept.server, 4096).unwrap();
    let header = Header::parse(message(1, 16).first_chunk().unwrap());
    let answer: Vec<u8> = (0..CAPACITY).map(|n| n as u8).collect();
    lifeline.put(&header, &answer).unwrap();
    let mut got = Vec::new();
    let mut times = 0;
    while !kept.lifeline().push(&socket).unwrap() {
        got.extend(kept.answers());
        times += 1;
    }
    got.extend(kept.answers());
    assert!(times > 0 && got == answer, "{times} {}", got.len());
}

/// The cells as versions of the program have left them: what was agreed on, the message that was
/// answered, what is being taken, how a long one begins, and whether one is begun. When what is
/// written changes, it is a further row. The truth value: the next message may have been handled.
const CELLS: [(&str, [u64; 5], bool); 9] = [
    // Until 1b1a3cf: of what is being taken it said nothing but that there was something.
    ("nothing", [AGREED, ANSWERED, 0, 0, 0], true),
    ("a part", [AGREED, ANSWERED, 1, 0, 0], true),
    // Until 13286ff: of whether a message was begun it said nothing.
    ("nothing", [AGREED, ANSWERED, 0, 0, 0], true),
    ("a message", [AGREED, ANSWERED, 32 << 8 | 2, 0, 0], true),
    ("a long one", [AGREED, 0, 3, LONG, 0], true),
    // Since then.
    ("nothing", [AGREED | 4, ANSWERED, 0, 0, 0], false),
    ("nothing", [AGREED | 4, ANSWERED, 0, 0, 1], true),
    (
        "a message",
        [AGREED | 4, ANSWERED, 32 << 8 | 2, 0, 1],
        false,
    ),
    ("a long one", [AGREED | 4, 0, 3, LONG, 0], false),
];

const AGREED: u64 = 0x1_0000 << 32 | 3;
const ANSWERED: u64 = 7 << 16 | 9;
const LONG: u64 = 0x10 << 32 | 7 << 16 | 99;

const NEGOTIATED: Negotiated = Negotiated {
    max_data: 0x1_0000,
    write_multiple: true,
};

#[test]
fn the_cells_of_every_version_are_gone_on_with() {
    for (what, cells, again) in CELLS {
        let kept = Kept::new();
        kept.send(&message(1, 48), 0);
        kept.send(&message(2, 32), 0);
        for (index, value) in (0..).zip(cells) {
            kept.cell(index).set(value);
        }
        let socket = kept.socket();
        set_peek_offset(&socket, Some(80)).unwrap();
        let lifeline = kept.lifeline();
        let recovered = lifeline.recover(&socket).unwrap();
        let left = Some(Recovered {
            negotiated: Some(NEGOTIATED),
            long: None,
            again,
        });
        let ids = messages(&Connection::kept(socket, &lifeline));
        match what {
            "nothing" => assert_eq!((recovered, ids.len()), (left, 2)),
            "a message" => assert_eq!((recovered, ids.len()), (left, 1)),
            "a part" => assert_eq!(recovered, None),
            _ => {
                let recovered = recovered.unwrap();
                assert_eq!(recovered.again, again);
                let (header, missing) = recovered.long.unwrap();
                assert_eq!((header.id, header.command, header.flags), (7, 99, 0x10));
                assert_eq!(missing, 80);
            }
        }
    }
}

/// What the last rows say is what is written. Those of before take it for that, or for lost.
#[test]
fn the_cells_are_as_every_version_reads_them() {
    let kept = Kept::new();
    let lifeline = kept.lifeline();
    let socket = kept.socket();
    let cells = || [0, 1, 2, 3, 4].map(|index| kept.cell(index).get());
    lifeline.recover(&socket).unwrap();
    lifeline.agree(Some(NEGOTIATED));
    let header = Header {
        id: 7,
        command: 9,
        size: 48,
        flags: 0,
        errno: 0,
    };
    lifeline.put(&header, ANSWER).unwrap();
    lifeline.take(&socket, 0, 32).unwrap();
    assert_eq!(cells(), CELLS[5].1);
    lifeline.begin();
    assert_eq!(cells(), CELLS[6].1);
    lifeline.taking.set(Taking::Message { rest: 32 }.pack());
    assert_eq!(cells(), CELLS[7].1);
    lifeline.taken();
    lifeline.answered.set(0);
    let long = Header {
        command: 99,
        flags: 0x10,
        ..header
    };
    lifeline.skip(&socket, &long, 0).unwrap();
    assert_eq!(cells(), CELLS[8].1);
    // The first version goes on if there is nothing in the third cell.
    assert!(CELLS[7..].iter().all(|(_, cells, _)| cells[2] != 0));
}

/// Another version may not know where the looks at a socket begin.
#[test]
fn a_socket_is_left_as_it_was() {
    let kept = Kept::new();
    let lifeline = kept.lifeline();
    let socket = kept.socket();
    lifeline.recover(&socket).unwrap();
    kept.send(&message(1, 48)[..20], 0);
    let client = Connection::kept(kept.socket(), &lifeline);
    client.receive(&mut Inbox::default()).unwrap();
    assert_eq!(peek_offset(&socket), Ok(Some(20)));
    client.leave().unwrap();
    assert_eq!(peek_offset(&socket), Ok(None));
}
