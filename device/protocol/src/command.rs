// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Command numbers.

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Agree on a version and on capabilities.
    Version,
    /// Add a range of memory.
    DmaMap,
    /// Take ranges of memory away.
    DmaUnmap,
    /// Describe the device.
    GetInfo,
    /// Describe a region.
    GetRegionInfo,
    /// Describe a kind of interrupt.
    GetIrqInfo,
    /// Attach, detach or raise interrupts.
    SetIrqs,
    /// Read from a region.
    RegionRead,
    /// Write to a region.
    RegionWrite,
    /// Reset the device.
    Reset,
    /// Several writes to regions.
    RegionWriteMulti,
    /// A command that is not served here, defined or not.
    Unsupported(u16),
}

/// Number of the command by which features of a device are asked for: one of those that are not served.
pub(crate) const DEVICE_FEATURE: u16 = 16;

impl From<u16> for Command {
    fn from(number: u16) -> Self {
        match number {
            1 => Command::Version,
            2 => Command::DmaMap,
            3 => Command::DmaUnmap,
            4 => Command::GetInfo,
            5 => Command::GetRegionInfo,
            7 => Command::GetIrqInfo,
            8 => Command::SetIrqs,
            9 => Command::RegionRead,
            10 => Command::RegionWrite,
            13 => Command::Reset,
            15 => Command::RegionWriteMulti,
            // 6: descriptors for region accesses; 11 and 12: DMA, from server to client only;
            // 14: dirty pages, in old versions; 16 to 18: features and migration.
            other => Command::Unsupported(other),
        }
    }
}
