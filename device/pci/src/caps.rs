// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The capabilities of the card, as they stand after reset.

use vnet_contract::pci;

use crate::config::Image;
use crate::layout::*;

/// Version 3 of the power management interface. D1, D2 and PME are not supported.
const PMC_VERSION: u16 = 3;

/// Version 2 of the PCI Express capability; the port type, in bits 7:4, is zero: an endpoint.
const EXP_VERSION: u16 = 2;
/// 16 lanes of 16 GT/s: there is no link to be slow, so that a driver which asks sees the widest
/// that common root ports claim.
const LINK_SPEED: u32 = 4;
const LINK_WIDTH: u32 = 16 << 4;
/// Supported link speeds, 2.5 to 16 GT/s.
const LINK_SPEEDS: u32 = 0b1111 << 1;

/// Bits of DEVCTL that keep what is written: error reporting, relaxed ordering, extended tags,
/// phantom functions off, no snoop, payload and read request sizes.
const DEVCTL_WRITABLE: u16 = 0b0111_1001_1111_1111;
/// After reset: relaxed ordering, no snoop, 512-byte read requests.
const DEVCTL_RESET: u16 = 0b0010_1000_0001_0000;
/// ASPM control, common clock, extended synch.
const LNKCTL_WRITABLE: u16 = 0b1100_0011;

/// Writes all capabilities and links them, in order of their offsets.
pub(crate) fn install(image: &mut Image, vectors: u16) {
    power_management(image);
    msix(image, vectors);
    express(image);

    image.set8(CAPABILITY_LIST, PM as u8);
    image.link(PM, CAP_ID_PM, MSIX);
    image.link(MSIX, CAP_ID_MSIX, EXP);
    image.link(EXP, CAP_ID_EXP, 0);
    image.set16(STATUS, STATUS_CAP_LIST);
}

fn power_management(image: &mut Image) {
    image.set16(PM_PMC, PMC_VERSION);
    // The way back from D3hot keeps all state, so that a driver need not program the card anew.
    image.set16(PM_CTRL, PM_CTRL_NO_SOFT_RESET);
    image.writable16(PM_CTRL, PM_CTRL_STATE_MASK);
}

fn msix(image: &mut Image, vectors: u16) {
    image.set16(MSIX_FLAGS, vectors - 1);
    image.writable16(MSIX_FLAGS, MSIX_FLAGS_ENABLE | MSIX_FLAGS_MASKALL);
    image.set32(MSIX_TABLE, pci::MSIX_TABLE_OFFSET | pci::BAR_MSIX);
    image.set32(MSIX_PBA, pci::MSIX_PBA_OFFSET | pci::BAR_MSIX);
}

fn express(image: &mut Image) {
    image.set16(EXP_FLAGS, EXP_VERSION);
    image.set32(EXP_DEVCAP, EXP_DEVCAP_RBER | EXP_DEVCAP_FLR);
    image.set16(EXP_DEVCTL, DEVCTL_RESET);
    image.writable16(EXP_DEVCTL, DEVCTL_WRITABLE);
    image.set32(EXP_LNKCAP, LINK_SPEED | LINK_WIDTH);
    image.writable16(EXP_LNKCTL, LNKCTL_WRITABLE);
    image.set16(EXP_LNKSTA, (LINK_SPEED | LINK_WIDTH) as u16);
    image.set32(EXP_LNKCAP2, LINK_SPEEDS);
}
