// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The framing of a stream, against a model that has all bytes at once.

use arbitrary::{Result, Unstructured};
use vnet_backend::MAX_FRAME;
use vnet_stream::{Decoder, TooLong};

use crate::input::{bytes, rarely};

/// Shortest frame.
const MIN_FRAME: usize = 14;

/// A peer sends frames, nonsense and lengths that none has, in pieces, and starts anew.
pub fn stream(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut decoder = Decoder::default();
    let mut runts = 0;
    while !u.is_empty() {
        let stream = spoken(u)?;
        let (frames, short, end) = model(&stream);
        let mut got = Vec::new();
        let mut left = &stream[..];
        let mut ended = Ok(());
        while !left.is_empty() && ended.is_ok() {
            let space = decoder.space();
            assert!(!space.is_empty(), "no room though all frames were taken");
            let piece = u.int_in_range(1..=70_000)?.min(space.len()).min(left.len());
            space[..piece].copy_from_slice(&left[..piece]);
            decoder.filled(piece);
            left = &left[piece..];
            ended = loop {
                match decoder.front() {
                    Ok(Some(frame)) => {
                        got.push(frame.to_vec());
                        decoder.pop();
                    }
                    Ok(None) => break Ok(()),
                    Err(too_long) => break Err(too_long),
                }
            };
        }
        runts += short;
        assert_eq!(got, frames);
        assert_eq!(ended, end);
        assert_eq!(decoder.runts(), runts);
        decoder.discard();
        decoder.restart();
        assert_eq!(decoder.front(), Ok(None));
    }
    Ok(())
}

/// What a peer says.
fn spoken(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut stream = Vec::new();
    for _ in 0..u.int_in_range(1..=20)? {
        if rarely(u, 16)? {
            stream.extend(bytes(u, 64)?);
            continue;
        }
        let len = match u.int_in_range(0..=3)? {
            0 => u.int_in_range(0..=80)?,
            1 => u.int_in_range(0..=2000)?,
            2 => u.int_in_range(MAX_FRAME - 1..=MAX_FRAME + 1)?,
            _ => u.int_in_range(0..=MAX_FRAME)?,
        };
        stream.extend((len as u32).to_be_bytes());
        let fill: u8 = u.arbitrary()?;
        stream.resize(stream.len() + len, fill);
    }
    Ok(stream)
}

/// The frames of a stream, how many were too short, and what ended it.
fn model(mut stream: &[u8]) -> (Vec<Vec<u8>>, u64, std::result::Result<(), TooLong>) {
    let (mut frames, mut runts) = (Vec::new(), 0);
    while let Some((prefix, rest)) = stream.split_first_chunk::<4>() {
        let named = u32::from_be_bytes(*prefix);
        if named as usize > MAX_FRAME {
            return (frames, runts, Err(TooLong(named)));
        }
        let Some((frame, rest)) = rest.split_at_checked(named as usize) else {
            break;
        };
        match frame.len() < MIN_FRAME {
            true => runts += 1,
            false => frames.push(frame.to_vec()),
        }
        stream = rest;
    }
    (frames, runts, Ok(()))
}
