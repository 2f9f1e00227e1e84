// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Asking the client for memory that it does not share.

use std::sync::Arc;

use rustix::io::Errno;
use vnet_dma::{AddressSpace, Ask, Relay, Way};
use vnet_protocol::{Message, Negotiated, Refusal, Requests, MAX_DATA};

use crate::connection::Connection;
use crate::control::Control;

/// What a client is asked for, and has not answered yet.
pub(crate) struct Asking {
    relay: Arc<Relay>,
    space: AddressSpace,
    requests: Requests,
    asks: Vec<(u16, Ask)>,
    message: Vec<u8>,
}

impl Asking {
    pub(crate) fn new(relay: Arc<Relay>, space: AddressSpace) -> Self {
        Self {
            relay,
            space,
            requests: Requests::default(),
            asks: Vec::new(),
            message: Vec::new(),
        }
    }

    pub(crate) fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Sends what there is to ask for, as far as the client has answered what it was asked before.
    /// False: the client is gone, or `control` asks for something.
    pub(crate) fn ask(
        &mut self,
        client: &Connection<'_>,
        negotiated: Option<Negotiated>,
        control: &Control,
    ) -> Result<bool, Errno> {
        let Some(negotiated) = negotiated else {
            return Ok(true);
        };
        let most = negotiated.max_data.min(MAX_DATA) as usize;
        while !self.requests.is_full() {
            let Some(ask) = self.relay.next(&self.space, most) else {
                break;
            };
            // Not longer than a message may be.
            let count = ask.len as u32;
            let message = &mut self.message;
            let id = match ask.way {
                Way::Pull => self.requests.read(ask.address, count, message),
                Way::Push => {
                    let copy = |to: &mut [u8]| ask.copy_to(to);
                    self.requests.write(ask.address, count, message, copy)
                }
            };
            let Some(id) = id else {
                self.relay.answered(&ask, Err(()));
                break;
            };
            self.asks.push((id, ask));
            if !client.ask(&self.message, control)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes a reply.
    pub(crate) fn answer(&mut self, message: &Message<'_>) -> Result<(), Refusal> {
        let answer = self.requests.answer(message)?;
        let Some(at) = self.asks.iter().position(|(id, _)| *id == answer.id) else {
            return Err(Refusal::Reply);
        };
        let (_, ask) = self.asks.swap_remove(at);
        match answer.result {
            Ok(data) => {
                self.relay.answered(&ask, Ok(data));
                Ok(())
            }
            Err(refusal) => {
                self.relay.answered(&ask, Err(()));
                Err(refusal)
            }
        }
    }
}
