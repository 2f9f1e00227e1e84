// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The window that a guest closes on data that is on its way to it.
//!
//! Linux does so when a socket has no memory left: it drops what comes, and takes back the window
//! that it had promised. The stack then waits for the window instead of for the acknowledgement:
//! when the window opens again, nothing reminds it of the data that was dropped, and the connection
//! stands still. So the stack is told of the smallest window that is not closed. Its retransmission
//! timer goes on, and what it sends when that runs out is also the probe of the closed window.

use smoltcp::wire::{TcpOption, TcpPacket, TcpSeqNumber};

/// What a client has promised to take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// The client's windows count units of 2 to the power of this.
    shift: u8,
    /// The furthest end of a window so far.
    end: Option<TcpSeqNumber>,
}

impl Window {
    /// That of the client which asks for a connection with `request`.
    pub(crate) fn new(request: &TcpPacket<&[u8]>) -> Self {
        /// RFC 7323, 2.3.
        const MAX_SHIFT: u8 = 14;
        let mut shift = 0;
        let mut options = request.options();
        while let Ok((rest, option)) = TcpOption::parse(options) {
            match option {
                TcpOption::EndOfList => break,
                TcpOption::WindowScale(value) => shift = value.min(MAX_SHIFT),
                _ => {}
            }
            options = rest;
        }
        Self { shift, end: None }
    }

    /// The client acknowledges: makes a window that it closes too early a small one.
    pub(crate) fn keep_open(&mut self, segment: &mut TcpPacket<&mut [u8]>) {
        if !segment.ack() || segment.syn() || segment.rst() {
            return;
        }
        let ack = segment.ack_number();
        let window = usize::from(segment.window_len()) << self.shift;
        match self.end {
            Some(end) if end > ack + window => {
                if window == 0 {
                    segment.set_window_len(1);
                }
            }
            _ => self.end = Some(ack + window),
        }
    }
}
