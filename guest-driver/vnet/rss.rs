// SPDX-License-Identifier: GPL-2.0

//! Receive side scaling: which pair gets a received frame.
//!
//! What is set up here is kept, for the card forgets it with every reset.

use kernel::prelude::*;
use netdev::{
    error::EOPNOTSUPP,
    rss::{
        self,
        Flow,
        RssChange,
        RssState, //
    },
    Locked, //
};
use vnet_contract::regs;

use crate::{
    nic::Nic,
    regs::Registers, //
};

/// Bytes of the key.
pub(crate) const KEY: usize = 40;
/// Most entries that the table of any card has.
pub(crate) const MAX_TABLE: usize = 128;

const _: () = assert!(
    regs::RSS_KEY + KEY as u32 <= regs::RSS_TABLE
        && regs::RSS_TABLE + MAX_TABLE as u32 <= regs::MAC_FILTER_SIZE,
    "the registers hold the key and the largest table"
);

/// Addresses are always hashed.
const ADDRESSES: u32 = regs::RSS_HASH_IPV4 | regs::RSS_HASH_IPV6;
/// Ports of TCP are, by default. Those of UDP are not: of a datagram in fragments only the first
/// has them, and the others would go another way.
const DEFAULT_TYPES: u32 = ADDRESSES | regs::RSS_HASH_TCPV4 | regs::RSS_HASH_TCPV6;

/// A register that holds four bytes, the first lowest.
fn word(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// How the card is to spread frames.
pub(crate) struct Rss {
    key: [u8; KEY],
    table: [u8; MAX_TABLE],
    /// Entries of the table that the card has.
    len: usize,
    /// `RSS_HASH_TYPES`, and those that the card knows.
    types: u32,
    supported: u32,
    symmetric: bool,
}

impl Rss {
    /// Asks the card what it can. An error if that cannot be.
    pub(crate) fn new(regs: &Registers<'_>, pairs: u16) -> Result<Self> {
        let len = regs.read(regs::RSS_TABLE_SIZE) as usize;
        if !len.is_power_of_two() || !(4..=MAX_TABLE).contains(&len) {
            return Err(EIO);
        }
        let supported = regs.read(regs::RSS_HASH_SUPPORTED) & regs::RSS_HASH_MASK;
        let mut this = Self {
            key: [0; KEY],
            table: [0; MAX_TABLE],
            len,
            types: DEFAULT_TYPES & supported,
            supported,
            symmetric: false,
        };
        rss::fill_key(&mut this.key);
        this.spread(pairs);
        Ok(this)
    }

    /// Spreads the hashes evenly.
    fn spread(&mut self, pairs: u16) {
        for (entry, pair) in self.table.iter_mut().zip((0..pairs.max(1)).cycle()) {
            *entry = pair as u8;
        }
    }

    fn write(&self, regs: &Registers<'_>) {
        for (i, bytes) in self.key.chunks_exact(4).enumerate() {
            regs.write_rss_key(i, word(bytes));
        }
        regs.write(regs::RSS_HASH_TYPES, self.types);
        for (i, entries) in self.table[..self.len].chunks_exact(4).enumerate() {
            regs.write_rss_table(i, word(entries));
        }
        // Each register is right by itself, so the card need not stop spreading meanwhile: without
        // the table it would choose pairs that do not run.
        let symmetric = if self.symmetric {
            regs::RSS_CTRL_SYMMETRIC
        } else {
            0
        };
        regs.write(regs::RSS_CTRL, regs::RSS_CTRL_ENABLE | symmetric);
    }

    /// The type that hashes the ports of such frames.
    fn port_type(flow: Flow) -> u32 {
        match flow {
            Flow::TcpV4 => regs::RSS_HASH_TCPV4,
            Flow::UdpV4 => regs::RSS_HASH_UDPV4,
            Flow::TcpV6 => regs::RSS_HASH_TCPV6,
            Flow::UdpV6 => regs::RSS_HASH_UDPV6,
        }
    }
}

impl Nic<'_> {
    /// Bytes of the key and entries of the table.
    pub(crate) fn rss_lengths(&self) -> (usize, usize) {
        self.rss
            .as_ref()
            .map_or((0, 0), |rss| (KEY, rss.lock().len))
    }

    /// Makes the table anew for so many pairs, unless the user chose it: then the core has seen to it that
    /// all of its pairs run.
    pub(crate) fn spread_rss(&self, dev: &Locked<'_, Self>, pairs: u16) {
        if let Some(rss) = self.rss.as_ref().filter(|_| !dev.rss_table_is_chosen()) {
            rss.lock().spread(pairs);
        }
    }

    /// Tells the card how to spread frames. After every reset, and when the number of pairs has changed.
    pub(crate) fn restore_rss(&self) {
        if let Some(rss) = &self.rss {
            rss.lock().write(&self.regs);
        }
    }

    /// Shows how frames are spread.
    pub(crate) fn show_rss(&self, state: &mut RssState<'_>) -> Result {
        let rss = self.rss.as_ref().ok_or(EOPNOTSUPP)?.lock();
        for (out, entry) in state.table.iter_mut().zip(&rss.table[..rss.len]) {
            *out = u32::from(*entry);
        }
        for (out, byte) in state.key.iter_mut().zip(&rss.key) {
            *out = *byte;
        }
        state.symmetric = rss.symmetric;
        Ok(())
    }

    /// Changes how frames are spread, at once.
    pub(crate) fn change_rss(&self, dev: &Locked<'_, Self>, change: &RssChange<'_>) -> Result {
        let mut rss = self.rss.as_ref().ok_or(EOPNOTSUPP)?.lock();
        let pairs = u32::from(dev.active_channels());
        if let Some(table) = change.table {
            if table.iter().any(|pair| *pair >= pairs) {
                return Err(EINVAL);
            }
            for (entry, pair) in rss.table.iter_mut().zip(table) {
                *entry = *pair as u8;
            }
        }
        if let Some(key) = change.key {
            for (out, byte) in rss.key.iter_mut().zip(key) {
                *out = *byte;
            }
        }
        if let Some(symmetric) = change.symmetric {
            rss.symmetric = symmetric;
        }
        self.apply_rss(dev, &rss);
        Ok(())
    }

    pub(crate) fn ports_hashed(&self, flow: Flow) -> bool {
        self.rss
            .as_ref()
            .is_some_and(|rss| rss.lock().types & Rss::port_type(flow) != 0)
    }

    /// Has the ports of such frames hashed, or not.
    pub(crate) fn choose_ports(&self, dev: &Locked<'_, Self>, flow: Flow, ports: bool) -> Result {
        let mut rss = self.rss.as_ref().ok_or(EOPNOTSUPP)?.lock();
        let bit = Rss::port_type(flow);
        if ports && rss.supported & bit == 0 {
            return Err(EOPNOTSUPP);
        }
        if ports {
            rss.types |= bit;
        } else {
            rss.types &= !bit;
        }
        self.apply_rss(dev, &rss);
        Ok(())
    }

    fn apply_rss(&self, dev: &Locked<'_, Self>, rss: &Rss) {
        if dev.is_running() && self.runs() {
            rss.write(&self.regs);
        }
    }
}
