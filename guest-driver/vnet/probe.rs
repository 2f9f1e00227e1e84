// SPDX-License-Identifier: GPL-2.0

//! Finding out what a card is, and agreeing with it on features.

use kernel::{
    device::{
        Bound,
        Core, //
    },
    pci,
    prelude::*,
    sync::Arc, //
};
use netdev::{
    error::EADDRNOTAVAIL,
    Config,
    Features,
    Vectors, //
};
use vnet_contract::{
    features,
    hdr,
    pci::MAX_QUEUE_PAIRS,
    queue,
    regs, //
};

use crate::{
    nic::Nic,
    offloads,
    regs::Registers,
    rss::Rss,
    shape::Shape,
    stats::{
        RxStats,
        TxStats, //
    },
    Vnet,
    PCI_TABLE, //
};

/// Features that this driver makes use of.
pub(crate) const WANTED: u64 = features::TX_CSUM
    | features::RX_CSUM
    | features::TX_TSO4
    | features::TX_TSO6
    | features::TX_ECN
    | features::TX_USO
    | features::RX_TSO4
    | features::RX_TSO6
    | features::RX_ECN
    | features::RX_USO
    | features::MRG_RXBUF
    | features::HDR_SPLIT
    | features::INDIRECT_DESC
    | features::RSS
    | features::HASH_REPORT
    | features::MODERATION
    | features::MAC_FILTER
    | features::QUEUE_STATS;

/// Descriptors of a ring at first, if the card allows.
const RX_RING: u16 = 256;
const TX_RING: u16 = 512;

/// Largest MTU that the driver offers: that of the longest frame with a VLAN tag.
const MAX_MTU: u32 = queue::MAX_FRAME as u32 - 18;

/// Time without progress after which a transmit queue counts as stuck, in milliseconds.
const WATCHDOG: u32 = 5000;

/// Time between looks for lost interrupts, in milliseconds. While nothing is lost, a look is a few reads of
/// memory for each channel.
const TICK: u32 = 250;

/// What a card said of itself, checked.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) version: u32,
    pub(crate) features: u64,
    pub(crate) queue_pairs: u16,
    pub(crate) min_ring: u16,
    pub(crate) max_ring: u16,
    pub(crate) mac_filters: u16,
    vectors: u16,
    min_mtu: u32,
    pub(crate) max_mtu: u32,
}

impl Identity {
    /// Resets the card, checks what it is and agrees on features.
    fn establish(dev: &pci::Device<Bound>, regs: &Registers<'_>) -> Result<Self> {
        let id = regs.read(regs::ID);
        if id != regs::ID_VALUE {
            if id == u32::MAX {
                dev_err!(dev, "card does not answer\n");
            } else {
                dev_err!(dev, "not a vnet card: identity {id:#010x}\n");
            }
            return Err(ENODEV);
        }
        let version = regs.read(regs::VERSION);
        if version >> 16 != regs::VERSION_VALUE >> 16 {
            dev_err!(
                dev,
                "card version {}.{} is not known\n",
                version >> 16,
                version & 0xffff
            );
            return Err(ENODEV);
        }
        let features = negotiate(dev, regs, WANTED)?;

        let limits = regs.read(regs::QUEUE_SIZE_LIMITS);
        let (min_ring, max_ring) = (limits & 0xffff, limits >> 16);
        if !queue::size_is_valid(min_ring) || !queue::size_is_valid(max_ring) || min_ring > max_ring
        {
            dev_err!(dev, "impossible ring sizes {min_ring} to {max_ring}\n");
            return Err(EIO);
        }

        let pairs = regs.read(regs::QUEUE_PAIRS);
        let vectors = regs.read(regs::VECTORS);
        if pairs == 0 || pairs > u32::from(MAX_QUEUE_PAIRS) || vectors < 2 {
            dev_err!(
                dev,
                "impossible numbers: {pairs} queue pairs, {vectors} vectors\n"
            );
            return Err(EIO);
        }

        let mtu = regs.read(regs::MTU_LIMITS);
        let (min_mtu, mut max_mtu) = (mtu & 0xffff, (mtu >> 16).min(MAX_MTU));
        if features & features::MRG_RXBUF == 0 {
            max_mtu = max_mtu.min(crate::rx::MAX_MTU_SINGLE);
        }
        if min_mtu < 64 || min_mtu > max_mtu {
            dev_err!(dev, "impossible MTUs {min_mtu} to {max_mtu}\n");
            return Err(EIO);
        }

        let mac_filters = if features & features::MAC_FILTER != 0 {
            regs.read(regs::MAC_FILTER_SIZE)
                .min(crate::filter::MAX_FILTERS as u32) as u16
        } else {
            0
        };

        Ok(Self {
            version,
            features,
            queue_pairs: pairs as u16,
            min_ring: min_ring as u16,
            max_ring: max_ring as u16,
            mac_filters,
            vectors: vectors.min(u32::from(u16::MAX)) as u16,
            min_mtu,
            max_mtu,
        })
    }
}

/// Resets the card and agrees on those of the wanted features that it offers.
pub(crate) fn negotiate(
    dev: &pci::Device<Bound>,
    regs: &Registers<'_>,
    wanted: u64,
) -> Result<u64> {
    if !regs.reset() {
        dev_err!(dev, "card does not come out of reset\n");
        return Err(EIO);
    }
    let offered = regs.read_pair(regs::DEVICE_FEATURES_LO, regs::DEVICE_FEATURES_HI);
    let mut accepted = offered & wanted;
    // A frame that stands for many has no room in one buffer: the card would drop it.
    if accepted & features::MRG_RXBUF == 0 {
        accepted &= !offloads::LARGE;
    }
    regs.write(regs::DRIVER_FEATURES_LO, accepted as u32);
    regs.write(regs::DRIVER_FEATURES_HI, (accepted >> 32) as u32);
    regs.write(regs::CTRL, regs::CTRL_COMMIT_FEATURES);
    if regs.read(regs::STATUS) & regs::STATUS_FEATURES_OK == 0 {
        dev_err!(
            dev,
            "card refuses features {accepted:#x} of the offered {offered:#x}\n"
        );
        return Err(EIO);
    }
    Ok(accepted)
}

/// What the stack may leave to a card with these features.
fn offloads(accepted: u64) -> Features {
    [
        (features::TX_CSUM, Features::TX_CHECKSUM),
        (features::TX_TSO4, Features::TSO),
        (features::TX_TSO6, Features::TSO6),
        (features::TX_ECN, Features::TSO_ECN),
        (features::TX_USO, Features::USO),
        (features::RX_CSUM, Features::RX_CHECKSUM),
        (offloads::LARGE, Features::RX_GRO),
        (features::HASH_REPORT, Features::RX_HASH),
    ]
    .into_iter()
    .filter(|(bit, _)| accepted & bit != 0)
    .fold(Features::SCATTER_GATHER, |all, (_, one)| all.with(one))
}

fn mac_address(dev: &pci::Device<Bound>, regs: &Registers<'_>) -> Result<[u8; 6]> {
    let mac = regs::mac_from_regs(regs.read(regs::PERM_MAC_LO), regs.read(regs::PERM_MAC_HI));
    if mac == [0; 6] || mac[0] & 1 != 0 {
        dev_err!(dev, "card has no valid MAC address: {mac:02x?}\n");
        return Err(EADDRNOTAVAIL);
    }
    Ok(mac)
}

impl netdev::pci::Driver for Vnet {
    type Nic<'bound> = Nic<'bound>;

    const ID_TABLE: pci::IdTable<()> = &PCI_TABLE;

    fn probe<'bound>(dev: &'bound pci::Device<Core<'_>>) -> Result<Config<'bound, Nic<'bound>>> {
        let regs =
            Registers::map(dev).inspect_err(|_| dev_err!(dev, "cannot map the registers\n"))?;
        let identity = Identity::establish(dev, &regs)?;
        let mac = mac_address(dev, &regs)?;

        // For as many as the card has, so that there can be more later than there are CPUs now.
        let pairs = u32::from(identity.queue_pairs).min(u32::from(identity.vectors) - 1);
        let vectors = Vectors::new(dev, 2, pairs + 1)
            .inspect_err(|_| dev_err!(dev, "cannot allocate two interrupt vectors\n"))?;
        let pairs = (vectors.count() - 1).min(pairs as usize) as u16;

        let mut counters = KVec::with_capacity(usize::from(pairs), GFP_KERNEL)?;
        for _ in 0..pairs {
            let tx = Arc::new(TxStats::default(), GFP_KERNEL)?;
            let rx = Arc::new(RxStats::default(), GFP_KERNEL)?;
            counters.push((tx, rx), GFP_KERNEL)?;
        }

        let offloads = offloads(identity.features);
        let headroom = hdr::size(identity.features) as u16;
        let ring = |size: u16| size.clamp(identity.min_ring, identity.max_ring);
        let shape = Shape {
            pairs: netdev::online_cpus().min(u32::from(pairs)) as u16,
            rx_ring: ring(RX_RING),
            tx_ring: ring(TX_RING),
            split: false,
            program: None,
        };
        let rss = if identity.features & features::RSS != 0 {
            let rss = Rss::new(&regs, shape.pairs);
            Some(rss.inspect_err(|_| dev_err!(dev, "impossible size of the RSS table\n"))?)
        } else {
            None
        };
        let ops = Nic::new(dev, regs, identity, shape, rss, counters)?;
        ops.enable_events();
        Ok(Config {
            ops,
            name: c"vnet%d",
            channels: pairs,
            active: shape.pairs,
            vectors: Some(vectors),
            mac,
            mtu: identity.min_mtu..=identity.max_mtu,
            features: offloads,
            headroom,
            xdp_frags: identity.features & features::MRG_RXBUF != 0,
            unicast_filter: identity.mac_filters > 0,
            watchdog: WATCHDOG,
            tick: TICK,
        })
    }
}
