// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! PCI identity and BAR map.

constants! {
    /// What identifies the card in configuration space.
    IDENTITY;
    /// Vendor id: the range that QEMU sets aside for experiments (`docs/specs/pci-ids.rst`).
    VENDOR_ID: u16 = 0x1af4;
    /// Device id, first of the experimental range 1af4:10f0 … 1af4:10ff.
    DEVICE_ID: u16 = 0x10f0;
    /// Subsystem vendor id.
    SUBSYSTEM_VENDOR_ID: u16 = VENDOR_ID;
    /// Subsystem id.
    SUBSYSTEM_ID: u16 = 0x0001;
    /// Revision id: the major number of [`super::regs::VERSION_VALUE`].
    REVISION_ID: u8 = 0x01;
    /// Class code: network controller, Ethernet.
    CLASS_CODE: u32 = 0x02_00_00;
}

constants! {
    /// BAR map.
    BARS;
    /// BAR that holds the registers and the doorbells (64-bit memory, not prefetchable).
    BAR_REGS: u32 = 0;
    /// Size of [`BAR_REGS`] in bytes.
    BAR_REGS_SIZE: u64 = 0x4000;
    /// BAR that holds the MSI-X table and pending bit array (64-bit memory, not prefetchable).
    BAR_MSIX: u32 = 2;
    /// Size of [`BAR_MSIX`] in bytes.
    BAR_MSIX_SIZE: u64 = 0x1000;
    /// Offset of the MSI-X table in [`BAR_MSIX`].
    MSIX_TABLE_OFFSET: u32 = 0x000;
    /// Offset of the MSI-X pending bit array in [`BAR_MSIX`].
    MSIX_PBA_OFFSET: u32 = 0x800;
}

constants! {
    /// Upper limits of the design; a card may have less (`QUEUE_PAIRS`, `VECTORS`).
    LIMITS;
    /// Most queue pairs that a card can have.
    MAX_QUEUE_PAIRS: u16 = 16;
    /// Most queues that a card can have: a receive and a transmit queue per pair.
    MAX_QUEUES: u16 = 2 * MAX_QUEUE_PAIRS;
    /// Most MSI-X vectors that a card can have: one per queue pair and one for control.
    MAX_VECTORS: u16 = MAX_QUEUE_PAIRS + 1;
}
