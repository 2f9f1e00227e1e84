// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! PCI identity and BAR map.

/// Vendor id: the range that QEMU sets aside for experiments (`docs/specs/pci-ids.rst`).
pub const VENDOR_ID: u16 = 0x1af4;
/// Device id, first of the experimental range 1af4:10f0 … 1af4:10ff.
pub const DEVICE_ID: u16 = 0x10f0;
/// Subsystem vendor id.
pub const SUBSYSTEM_VENDOR_ID: u16 = VENDOR_ID;
/// Subsystem id.
pub const SUBSYSTEM_ID: u16 = 0x0001;
/// Revision id: the major number of [`crate::regs::VERSION_VALUE`].
pub const REVISION_ID: u8 = 0x01;
/// Class code: network controller, Ethernet.
pub const CLASS_CODE: u32 = 0x02_00_00;

/// BAR that holds the registers and the doorbells (64-bit memory, not prefetchable).
pub const BAR_REGS: u32 = 0;
/// Size of [`BAR_REGS`] in bytes.
pub const BAR_REGS_SIZE: u64 = 0x4000;
/// BAR that holds the MSI-X table and pending bit array (64-bit memory, not prefetchable).
pub const BAR_MSIX: u32 = 2;
/// Size of [`BAR_MSIX`] in bytes.
pub const BAR_MSIX_SIZE: u64 = 0x1000;
/// Offset of the MSI-X table in [`BAR_MSIX`].
pub const MSIX_TABLE_OFFSET: u32 = 0x000;
/// Offset of the MSI-X pending bit array in [`BAR_MSIX`].
pub const MSIX_PBA_OFFSET: u32 = 0x800;

/// Most queue pairs that a card can have.
pub const MAX_QUEUE_PAIRS: u16 = 16;
/// Most queues that a card can have: a receive and a transmit queue per pair.
pub const MAX_QUEUES: u16 = 2 * MAX_QUEUE_PAIRS;
/// Most MSI-X vectors that a card can have: one per queue pair and one for control.
pub const MAX_VECTORS: u16 = MAX_QUEUE_PAIRS + 1;
