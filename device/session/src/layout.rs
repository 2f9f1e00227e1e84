// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Regions and interrupts, as the client asks for them.

use vfio_bindings::bindings::vfio::{
    vfio_region_info, VFIO_IRQ_INFO_EVENTFD, VFIO_PCI_BAR0_REGION_INDEX,
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
    VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE,
};
use vfio_user::IrqInfo;
use vnet_contract::pci;
use vnet_dma::MAX_MAPPINGS;
use vnet_pci::CONFIG_SIZE;
use vnet_protocol::Layout;

/// Region of the registers.
pub(crate) const REGISTERS: u32 = VFIO_PCI_BAR0_REGION_INDEX + pci::BAR_REGS;
/// Region of the MSI-X table and pending bits.
pub(crate) const MSIX: u32 = VFIO_PCI_BAR0_REGION_INDEX + pci::BAR_MSIX;
/// Config space.
pub(crate) const CONFIG: u32 = VFIO_PCI_CONFIG_REGION_INDEX;

/// Index of the MSI-X vectors.
pub(crate) const MSIX_IRQ: u32 = VFIO_PCI_MSIX_IRQ_INDEX;
/// Index of the error interrupt. The card never raises it, but clients complain if it is absent.
pub(crate) const ERROR_IRQ: u32 = VFIO_PCI_ERR_IRQ_INDEX;

/// Size of a region; zero if the card does not have it.
pub(crate) fn region_size(region: u32) -> u64 {
    match region {
        REGISTERS => pci::BAR_REGS_SIZE,
        MSIX => pci::BAR_MSIX_SIZE,
        CONFIG => CONFIG_SIZE as u64,
        _ => 0,
    }
}

/// A card with this many vectors, as clients see it.
pub(crate) fn layout(vectors: u16) -> Layout {
    Layout {
        regions: regions(),
        irqs: irqs(vectors),
        resettable: true,
        max_maps: MAX_MAPPINGS as u32,
    }
}

/// Every region of a PCI device. None can be mapped by the client: one that can be would make the
/// client wait for the answer to every write, doorbells included.
pub(crate) fn regions() -> Vec<vfio_region_info> {
    (0..VFIO_PCI_NUM_REGIONS)
        .map(|index| {
            let size = region_size(index);
            let flags = match size {
                0 => 0,
                _ => VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
            };
            vfio_region_info {
                argsz: size_of::<vfio_region_info>() as u32,
                flags,
                index,
                cap_offset: 0,
                size,
                offset: 0,
            }
        })
        .collect()
}

/// Every interrupt of a PCI device. The number of MSI-X vectors may change hands at run time, so
/// none is marked as not resizable.
pub(crate) fn irqs(vectors: u16) -> Vec<IrqInfo> {
    (0..VFIO_PCI_NUM_IRQS)
        .map(|index| {
            let count = match index {
                MSIX_IRQ => vectors.into(),
                ERROR_IRQ => 1,
                _ => 0,
            };
            IrqInfo {
                index,
                flags: if count == 0 { 0 } else { VFIO_IRQ_INFO_EVENTFD },
                count,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfio_bindings::bindings::vfio::VFIO_REGION_INFO_FLAG_MMAP;

    #[test]
    fn the_client_finds_nine_regions_and_five_interrupts() {
        let regions = regions();
        assert_eq!(regions.len(), 9);
        let sizes: Vec<u64> = regions.iter().map(|r| r.size).collect();
        assert_eq!(sizes, [0x4000, 0, 0x1000, 0, 0, 0, 0, 4096, 0]);
        for (i, r) in regions.iter().enumerate() {
            assert_eq!(r.index as usize, i);
            assert_eq!(r.flags != 0, r.size != 0);
            assert_eq!(r.flags & VFIO_REGION_INFO_FLAG_MMAP, 0);
        }
        let counts: Vec<u32> = irqs(17).iter().map(|i| i.count).collect();
        assert_eq!(counts, [0, 0, 17, 1, 0]);
    }
}
