// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Offsets and bits of config space (PCI Local Bus 3.0, chapter 6; PCI Express Base, chapter 7).
//! Names follow `linux/pci_regs.h`.

pub(crate) const VENDOR_ID: usize = 0x00;
pub(crate) const DEVICE_ID: usize = 0x02;
pub(crate) const COMMAND: usize = 0x04;
pub(crate) const COMMAND_MEMORY: u16 = 1 << 1;
pub(crate) const COMMAND_MASTER: u16 = 1 << 2;
pub(crate) const COMMAND_PARITY: u16 = 1 << 6;
pub(crate) const COMMAND_SERR: u16 = 1 << 8;
pub(crate) const COMMAND_INTX_DISABLE: u16 = 1 << 10;
pub(crate) const STATUS: usize = 0x06;
pub(crate) const STATUS_CAP_LIST: u16 = 1 << 4;
pub(crate) const REVISION_ID: usize = 0x08;
pub(crate) const CLASS_CODE: usize = 0x09;
pub(crate) const CACHE_LINE_SIZE: usize = 0x0c;
pub(crate) const BAR: usize = 0x10;
pub(crate) const BAR_MEM_TYPE_64: u32 = 0b100;
pub(crate) const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
pub(crate) const SUBSYSTEM_ID: usize = 0x2e;
pub(crate) const CAPABILITY_LIST: usize = 0x34;
pub(crate) const INTERRUPT_LINE: usize = 0x3c;

pub(crate) const CAP_ID_PM: u8 = 0x01;
pub(crate) const CAP_ID_EXP: u8 = 0x10;
pub(crate) const CAP_ID_MSIX: u8 = 0x11;

/// Power management capability.
pub(crate) const PM: usize = 0x40;
pub(crate) const PM_PMC: usize = PM + 2;
pub(crate) const PM_CTRL: usize = PM + 4;
pub(crate) const PM_CTRL_STATE_MASK: u16 = 0b11;
pub(crate) const PM_CTRL_NO_SOFT_RESET: u16 = 1 << 3;

/// MSI-X capability.
pub(crate) const MSIX: usize = 0x50;
pub(crate) const MSIX_FLAGS: usize = MSIX + 2;
pub(crate) const MSIX_FLAGS_MASKALL: u16 = 1 << 14;
pub(crate) const MSIX_FLAGS_ENABLE: u16 = 1 << 15;
pub(crate) const MSIX_TABLE: usize = MSIX + 4;
pub(crate) const MSIX_PBA: usize = MSIX + 8;

/// PCI Express capability.
pub(crate) const EXP: usize = 0x60;
pub(crate) const EXP_FLAGS: usize = EXP + 0x02;
pub(crate) const EXP_DEVCAP: usize = EXP + 0x04;
pub(crate) const EXP_DEVCAP_RBER: u32 = 1 << 15;
pub(crate) const EXP_DEVCAP_FLR: u32 = 1 << 28;
pub(crate) const EXP_DEVCTL: usize = EXP + 0x08;
pub(crate) const EXP_DEVCTL_FLR: u16 = 1 << 15;
pub(crate) const EXP_LNKCAP: usize = EXP + 0x0c;
pub(crate) const EXP_LNKCTL: usize = EXP + 0x10;
pub(crate) const EXP_LNKSTA: usize = EXP + 0x12;
pub(crate) const EXP_LNKCAP2: usize = EXP + 0x2c;
