// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Config space: contents, write masks, and what a write changes.

use vnet_contract::pci;

use crate::caps;
use crate::layout::*;

/// Size of config space in bytes: that of a PCI Express function. There are no extended
/// capabilities yet; their list at 0x100 reads as empty.
pub const CONFIG_SIZE: usize = 4096;

/// Power states that the card knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerState {
    /// Works.
    D0,
    /// Answers config accesses only: no register access, no DMA, no interrupts.
    D3Hot,
}

/// What a write changed that the card must act on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Whether the card may do DMA: Bus Master Enable is set and the card is in D0.
    pub dma: Option<bool>,
    /// The new power state.
    pub power: Option<PowerState>,
    /// Software asked for a function-level reset.
    pub flr: bool,
}

/// Config space of the card.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    image: Image,
    vectors: u16,
}

impl ConfigSpace {
    /// Config space after reset, of a card with this many MSI-X vectors
    /// (1…[`pci::MAX_VECTORS`]).
    pub fn new(vectors: u16) -> Self {
        assert!((1..=pci::MAX_VECTORS).contains(&vectors));
        Self {
            image: power_on(vectors),
            vectors,
        }
    }

    /// Brings every register back to its reset value.
    pub fn reset(&mut self) {
        self.image = power_on(self.vectors);
    }

    /// Takes over what software has written, from the bytes of another config space of the same
    /// card. What software cannot write stays as it is.
    pub fn restore(&mut self, bytes: &[u8]) {
        for (at, &byte) in bytes.iter().enumerate().take(CONFIG_SIZE) {
            self.image.write8(at, byte);
        }
    }

    /// Reads bytes from `offset` on. What lies past the end reads as ones.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Ok(offset) = usize::try_from(offset) else {
            return;
        };
        if let Some(tail) = self.image.bytes.get(offset..) {
            let n = data.len().min(tail.len());
            data[..n].copy_from_slice(&tail[..n]);
        }
    }

    /// Writes bytes from `offset` on, as far as they are writable, and says what changed.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Changes {
        let dma = self.dma_enabled();
        let power = self.power();
        let mut flr = false;

        // Offsets from here on are small numbers: nothing that is added to them overflows.
        let start = usize::try_from(offset).map_or(CONFIG_SIZE, |at| at.min(CONFIG_SIZE));
        for (at, &byte) in (start..CONFIG_SIZE).zip(data) {
            // The upper byte of DEVCTL holds the FLR bit: it acts, but is never kept.
            flr |= at == EXP_DEVCTL + 1 && byte & (EXP_DEVCTL_FLR >> 8) as u8 != 0;
            if at == PM_CTRL && !is_power_state(byte) {
                continue;
            }
            self.image.write8(at, byte);
        }

        Changes {
            dma: (self.dma_enabled() != dma).then(|| self.dma_enabled()),
            power: (self.power() != power).then(|| self.power()),
            flr,
        }
    }

    /// Whether the card may do DMA now.
    pub fn dma_enabled(&self) -> bool {
        self.image.get16(COMMAND) & COMMAND_MASTER != 0 && self.power() == PowerState::D0
    }

    /// Whether the card answers in its BARs: Memory Space Enable is set and the card is in D0.
    pub fn memory_enabled(&self) -> bool {
        self.image.get16(COMMAND) & COMMAND_MEMORY != 0 && self.power() == PowerState::D0
    }

    /// Whether interrupts are delivered: MSI-X Enable is set.
    pub fn msix_enabled(&self) -> bool {
        self.image.get16(MSIX_FLAGS) & MSIX_FLAGS_ENABLE != 0
    }

    /// The power state now.
    pub fn power(&self) -> PowerState {
        match self.image.get16(PM_CTRL) & PM_CTRL_STATE_MASK {
            0 => PowerState::D0,
            _ => PowerState::D3Hot,
        }
    }
}

/// True unless the byte asks for D1 or D2: the specification has a function ignore a write that
/// names a state it does not support.
fn is_power_state(byte: u8) -> bool {
    matches!(u16::from(byte) & PM_CTRL_STATE_MASK, 0 | 3)
}

fn power_on(vectors: u16) -> Image {
    let mut image = Image::default();
    image.set16(VENDOR_ID, pci::VENDOR_ID);
    image.set16(DEVICE_ID, pci::DEVICE_ID);
    image.writable16(
        COMMAND,
        COMMAND_MEMORY | COMMAND_MASTER | COMMAND_PARITY | COMMAND_SERR | COMMAND_INTX_DISABLE,
    );
    image.set8(REVISION_ID, pci::REVISION_ID);
    let [interface, sub_class, class, _] = pci::CLASS_CODE.to_le_bytes();
    image.set8(CLASS_CODE, interface);
    image.set8(CLASS_CODE + 1, sub_class);
    image.set8(CLASS_CODE + 2, class);
    image.writable8(CACHE_LINE_SIZE, 0xff);
    image.memory_bar(pci::BAR_REGS, pci::BAR_REGS_SIZE);
    image.memory_bar(pci::BAR_MSIX, pci::BAR_MSIX_SIZE);
    image.set16(SUBSYSTEM_VENDOR_ID, pci::SUBSYSTEM_VENDOR_ID);
    image.set16(SUBSYSTEM_ID, pci::SUBSYSTEM_ID);
    // There is no interrupt pin, but software may use the line register as a scratch pad.
    image.writable8(INTERRUPT_LINE, 0xff);
    caps::install(&mut image, vectors);
    image
}

/// The bytes of config space and the mask of those bits that software may write.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    bytes: Box<[u8; CONFIG_SIZE]>,
    writable: Box<[u8; CONFIG_SIZE]>,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            bytes: Box::new([0; CONFIG_SIZE]),
            writable: Box::new([0; CONFIG_SIZE]),
        }
    }
}

impl Image {
    pub(crate) fn set8(&mut self, at: usize, value: u8) {
        self.bytes[at] = value;
    }

    pub(crate) fn set16(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn set32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn writable8(&mut self, at: usize, mask: u8) {
        self.writable[at] = mask;
    }

    pub(crate) fn writable16(&mut self, at: usize, mask: u16) {
        self.writable[at..at + 2].copy_from_slice(&mask.to_le_bytes());
    }

    /// Starts a capability and points it at the next.
    pub(crate) fn link(&mut self, at: usize, id: u8, next: usize) {
        self.set8(at, id);
        self.set8(at + 1, next as u8);
    }

    /// A 64-bit memory BAR. Its address bits below `size` are fixed at zero, which is how
    /// software finds the size.
    fn memory_bar(&mut self, index: u32, size: u64) {
        let at = BAR + index as usize * 4;
        self.set32(at, BAR_MEM_TYPE_64);
        self.writable[at..at + 8].copy_from_slice(&(!(size - 1)).to_le_bytes());
    }

    fn get16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn write8(&mut self, at: usize, value: u8) {
        let mask = self.writable[at];
        self.bytes[at] = self.bytes[at] & !mask | value & mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read<const N: usize>(config: &ConfigSpace, offset: usize) -> [u8; N] {
        let mut data = [0; N];
        config.read(offset as u64, &mut data);
        data
    }

    fn read16(config: &ConfigSpace, offset: usize) -> u16 {
        u16::from_le_bytes(read(config, offset))
    }

    fn read32(config: &ConfigSpace, offset: usize) -> u32 {
        u32::from_le_bytes(read(config, offset))
    }

    fn write16(config: &mut ConfigSpace, offset: usize, value: u16) -> Changes {
        config.write(offset as u64, &value.to_le_bytes())
    }

    #[test]
    fn identity() {
        let config = ConfigSpace::new(2);
        assert_eq!(read32(&config, VENDOR_ID), 0x10f0_1af4);
        assert_eq!(read32(&config, REVISION_ID), 0x0200_0001);
        assert_eq!(read32(&config, SUBSYSTEM_VENDOR_ID), 0x0001_1af4);
        // Header type 0, one function; no expansion ROM; no interrupt pin.
        assert_eq!(read::<1>(&config, 0x0e), [0]);
        assert_eq!(read32(&config, 0x30), 0);
        assert_eq!(read::<1>(&config, 0x3d), [0]);
        // No extended capability.
        assert_eq!(read32(&config, 0x100), 0);
    }

    #[test]
    fn the_capability_list_holds_each_capability_once() {
        let config = ConfigSpace::new(17);
        assert_ne!(read16(&config, STATUS) & STATUS_CAP_LIST, 0);
        let mut seen = Vec::new();
        let mut at = usize::from(read::<1>(&config, CAPABILITY_LIST)[0]);
        while at != 0 {
            assert!(at >= 0x40 && at % 4 == 0 && seen.len() < 48);
            let [id, next] = read(&config, at);
            seen.push((id, at));
            at = usize::from(next);
        }
        assert_eq!(
            seen,
            [(CAP_ID_PM, PM), (CAP_ID_MSIX, MSIX), (CAP_ID_EXP, EXP)]
        );
        assert_eq!(read16(&config, MSIX_FLAGS), 16);
        assert_eq!(read32(&config, MSIX_TABLE), 0x002);
        assert_eq!(read32(&config, MSIX_PBA), 0x802);
        assert_ne!(read32(&config, EXP_DEVCAP) & EXP_DEVCAP_FLR, 0);
    }

    #[test]
    fn bars_tell_their_size_and_keep_an_address() {
        let mut config = ConfigSpace::new(2);
        for (bar, size) in [(0, 0x4000_u64), (2, 0x1000)] {
            let at = BAR + bar * 4;
            config.write(at as u64, &[0xff; 8]);
            let sizing = u64::from_le_bytes(read(&config, at));
            assert_eq!(sizing & 0xf, 0b100);
            assert_eq!(!(sizing & !0xf) + 1, size);
            config.write(at as u64, &0x0000_0012_3456_4001_u64.to_le_bytes());
            assert_eq!(u64::from_le_bytes(read(&config, at)), 0x12_3456_4004);
        }
        // BARs 4 and 5 do not exist.
        config.write(BAR as u64 + 16, &[0xff; 8]);
        assert_eq!(read::<8>(&config, BAR + 16), [0; 8]);
    }

    #[test]
    fn bus_master_and_power_decide_on_dma() {
        let mut config = ConfigSpace::new(2);
        assert!(!config.dma_enabled());
        let on = write16(&mut config, COMMAND, COMMAND_MASTER | COMMAND_MEMORY);
        assert_eq!(on.dma, Some(true));
        assert!(config.memory_enabled());
        assert_eq!(
            write16(&mut config, COMMAND, COMMAND_MASTER),
            Changes::default()
        );

        let sleep = write16(&mut config, PM_CTRL, 3);
        assert_eq!(sleep.dma, Some(false));
        assert_eq!(sleep.power, Some(PowerState::D3Hot));
        assert_eq!(read16(&config, PM_CTRL), 3 | PM_CTRL_NO_SOFT_RESET);

        // D1 is not supported: ignored.
        assert_eq!(write16(&mut config, PM_CTRL, 1), Changes::default());
        assert_eq!(config.power(), PowerState::D3Hot);
        assert!(!config.memory_enabled());

        let wake = write16(&mut config, PM_CTRL, 0);
        assert_eq!((wake.dma, wake.power), (Some(true), Some(PowerState::D0)));
        assert_eq!(read16(&config, COMMAND), COMMAND_MASTER);
    }

    #[test]
    fn flr_is_reported_and_reads_as_zero() {
        let mut config = ConfigSpace::new(2);
        let devctl = read16(&config, EXP_DEVCTL);
        assert!(write16(&mut config, EXP_DEVCTL, devctl | EXP_DEVCTL_FLR).flr);
        assert_eq!(read16(&config, EXP_DEVCTL), devctl);
        assert!(!write16(&mut config, EXP_DEVCTL, devctl).flr);
        // Also as part of a wider write, and as the single byte.
        assert!(config.write(EXP_DEVCTL as u64, &[0, 0x80, 0, 0]).flr);
        assert!(config.write(EXP_DEVCTL as u64 + 1, &[0x80]).flr);
    }

    #[test]
    fn the_end_of_config_space_is_safe() {
        let mut config = ConfigSpace::new(1);
        assert_eq!(read::<4>(&config, CONFIG_SIZE - 2), [0, 0, 0xff, 0xff]);
        let mut data = [0; 4];
        config.read(u64::MAX, &mut data);
        assert_eq!(data, [0xff; 4]);
        for offset in [u64::MAX - 1, u64::MAX, CONFIG_SIZE as u64] {
            assert_eq!(config.write(offset, &[0xff; 8]), Changes::default());
        }
        assert_eq!(
            config.write(CONFIG_SIZE as u64 - 1, &[0xff; 8]),
            Changes::default()
        );
    }

    proptest! {
        #[test]
        fn no_write_touches_a_read_only_bit(
            writes in prop::collection::vec(
                (0u64..CONFIG_SIZE as u64 + 8, prop::collection::vec(any::<u8>(), 0..16)),
                0..64,
            ),
        ) {
            let fresh = ConfigSpace::new(3);
            let mut config = fresh.clone();
            for (offset, data) in &writes {
                let before = (config.dma_enabled(), config.power());
                let changes = config.write(*offset, data);
                prop_assert_eq!(changes.dma.is_some(), config.dma_enabled() != before.0);
                prop_assert_eq!(changes.power.is_some(), config.power() != before.1);
            }
            for at in 0..CONFIG_SIZE {
                let fixed = !fresh.image.writable[at];
                prop_assert_eq!(config.image.bytes[at] & fixed, fresh.image.bytes[at] & fixed);
            }
            config.reset();
            prop_assert_eq!(config.image.bytes, fresh.image.bytes);
        }
    }
}
