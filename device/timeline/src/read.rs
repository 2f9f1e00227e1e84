// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The frames of a capture, with the times of their stages.

use std::io;

use pcap_parser::{create_reader, Block, OptionCode, PcapBlockOwned, PcapError, PcapNGOption};
use vnet_capture::Comment;

use crate::Error;

/// Longest block: more than any frame's.
const MAX_BLOCK: usize = 1 << 20;
/// Most interfaces of a section.
const MAX_INTERFACES: usize = 4096;

/// What a capture has.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    pub(crate) frames: Vec<Frame>,
    pub(crate) events: Vec<Event>,
    interfaces: Vec<String>,
}

/// A frame; times are nanoseconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) card: String,
    pub(crate) queue: String,
    pub(crate) thread: String,
    pub(crate) len: u32,
    pub(crate) doorbell: Option<i64>,
    pub(crate) fetch: i64,
    pub(crate) backend: i64,
    pub(crate) done: i64,
    pub(crate) used: i64,
    pub(crate) interrupt: Option<i64>,
}

/// Something between the frames.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) card: String,
    pub(crate) time: i64,
    pub(crate) text: String,
}

pub(crate) fn read(file: impl io::Read + Send) -> Result<Capture, Error> {
    let mut reader = create_reader(MAX_BLOCK, file).map_err(|_| Error::Damaged { frames: 0 })?;
    let mut capture = Capture::default();
    loop {
        let damaged = Error::Damaged {
            frames: capture.frames.len(),
        };
        match reader.next() {
            Ok((len, block)) => {
                if let PcapBlockOwned::NG(block) = block {
                    capture.block(&block);
                }
                reader.consume(len);
                continue;
            }
            Err(PcapError::Eof) => return Ok(capture),
            Err(PcapError::Incomplete(_)) => {}
            Err(_) => return Err(damaged),
        }
        if reader.reader_exhausted() || reader.refill().is_err() {
            return Err(damaged);
        }
    }
}

impl Capture {
    fn block(&mut self, block: &Block<'_>) {
        match block {
            Block::SectionHeader(_) => self.interfaces.clear(),
            Block::InterfaceDescription(interface) => {
                let name = text(&interface.options, OptionCode::IfName).unwrap_or_default();
                if self.interfaces.len() < MAX_INTERFACES {
                    self.interfaces.push(name.into());
                }
            }
            Block::EnhancedPacket(packet) => {
                let name = self.interfaces.get(packet.if_id as usize);
                let card = name.and_then(|name| name.rsplit_once(':'));
                // What vnetd writes has times in nanoseconds.
                let time = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                if let (Some((card, _)), Some(text), Ok(time)) = (
                    card,
                    text(&packet.options, OptionCode::Comment),
                    i64::try_from(time),
                ) {
                    let (card, frame) = (card.to_owned(), frame(card, packet.origlen, time, text));
                    match frame {
                        Some(frame) => self.frames.push(frame),
                        None if text.starts_with("vnet event=") => self.events.push(Event {
                            card,
                            time,
                            text: text.into(),
                        }),
                        None => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// The frame with this comment, if it tells what a trace needs, and the order of things is not absurd.
fn frame(card: &str, len: u32, time: i64, text: &str) -> Option<Frame> {
    let comment = Comment::parse(text)?;
    let at = comment
        .stages
        .map(|offset| offset.and_then(|offset| time.checked_add(offset)));
    let [doorbell, fetch, backend, done, used, interrupt] = at;
    let frame = Frame {
        card: card.into(),
        queue: comment.queue.into(),
        thread: comment.thread.into(),
        len,
        doorbell,
        fetch: fetch?,
        backend: backend?,
        done: done?,
        used: used?,
        interrupt,
    };
    let mut order = at.into_iter().flatten();
    // Nor is it before 1970, so that any two of them have a difference.
    (order.clone().is_sorted() && order.next()? >= 0).then_some(frame)
}

fn text<'a>(options: &'a [PcapNGOption<'_>], code: OptionCode) -> Option<&'a str> {
    let option = options.iter().find(|option| option.code == code)?;
    std::str::from_utf8(option.value.get(..usize::from(option.len))?).ok()
}
