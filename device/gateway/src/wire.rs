// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The network device that the stack sees: one frame from the guest at a time, and the queues to
//! it.

use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken,
};
use smoltcp::time::Instant;

use crate::outbound::Outbound;
use crate::packet::ETHERNET_LEN;

pub(crate) struct Wire<'a> {
    /// The frame from the guest, until the stack takes it.
    pub(crate) inbound: Option<&'a [u8]>,
    pub(crate) outbound: &'a mut Outbound,
    pub(crate) mtu: u16,
}

/// Takes the frame that is being received.
pub(crate) struct Inbound<'a>(&'a [u8]);

/// Sends one frame.
pub(crate) struct Sender<'a>(&'a mut Outbound);

impl Device for Wire<'_> {
    type RxToken<'b>
        = Inbound<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Sender<'b>
    where
        Self: 'b;

    fn receive(&mut self, _now: Instant) -> Option<(Inbound<'_>, Sender<'_>)> {
        let frame = self.inbound.take()?;
        Some((Inbound(frame), Sender(self.outbound)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sender<'_>> {
        // Asked once per socket and round. The queues have room for a whole round, so a round
        // that was started is finished, and no socket is favoured.
        Some(Sender(self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // Received frames were checked by `packet`, or need not be: most come from a guest that
        // left the checksum to the card.
        let mut checksum = ChecksumCapabilities::default();
        checksum.tcp = Checksum::Tx;
        checksum.udp = Checksum::Tx;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = usize::from(self.mtu) + ETHERNET_LEN;
        capabilities.checksum = checksum;
        capabilities
    }
}

impl RxToken for Inbound<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.0.send(len, f)
    }
}
