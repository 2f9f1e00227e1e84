// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! PCI config space, compared with a model: bytes, and the bits of them that can be written.

use arbitrary::{Result, Unstructured};
use vnet_pci::{ConfigSpace, PowerState, CONFIG_SIZE};

use crate::input::{bytes, mostly};

const COMMAND: usize = 0x04;

/// Where registers of capabilities are: the list says it.
struct Caps {
    pm_ctrl: usize,
    exp_devctl: usize,
}

/// Reads and writes of any width anywhere.
pub fn config(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut space = ConfigSpace::new(u.int_in_range(1..=17)?);
    let fresh = image(&space);
    let caps = capabilities(&fresh);
    let mut model = fresh.clone();
    while !u.is_empty() {
        let offset = offset(u, &caps)?;
        if u.arbitrary()? {
            let mut read = vec![0; bytes(u, 64)?.len()];
            space.read(offset, &mut read);
            for (n, byte) in (0..).zip(read) {
                let at = offset
                    .checked_add(n)
                    .and_then(|at| usize::try_from(at).ok());
                let expected = at.and_then(|at| model.get(at)).unwrap_or(&0xff);
                assert_eq!(byte, *expected, "{offset:#x} + {n}");
            }
            continue;
        }
        let data = bytes(u, 64)?;
        let before = (space.dma_enabled(), space.power());
        let changes = space.write(offset, data);
        let mut flr = false;
        for (n, &byte) in (0..).zip(data) {
            let at = offset
                .checked_add(n)
                .and_then(|at| usize::try_from(at).ok());
            let Some(at) = at.filter(|&at| at < CONFIG_SIZE) else {
                break;
            };
            flr |= at == caps.exp_devctl + 1 && byte & 0x80 != 0;
            // A write that names D1 or D2 is ignored.
            if at == caps.pm_ctrl && matches!(byte & 3, 1 | 2) {
                continue;
            }
            let mask = writable(at, &caps, &fresh);
            model[at] = model[at] & !mask | byte & mask;
        }
        let after = (space.dma_enabled(), space.power());
        assert_eq!(changes.flr, flr);
        assert_eq!(changes.dma, (before.0 != after.0).then_some(after.0));
        assert_eq!(changes.power, (before.1 != after.1).then_some(after.1));
        assert_eq!(
            after.0,
            model[COMMAND] & 4 != 0 && after.1 == PowerState::D0
        );
        assert!(image(&space) == model, "after {offset:#x} {data:x?}");
    }
    space.reset();
    assert!(image(&space) == fresh, "reset leaves something");
    Ok(())
}

fn offset(u: &mut Unstructured<'_>, caps: &Caps) -> Result<u64> {
    let known = [
        COMMAND,
        0x0c,
        0x10,
        0x18,
        0x20,
        0x30,
        0x3c,
        caps.pm_ctrl,
        caps.exp_devctl,
    ];
    let at = mostly(u, &known.map(|at| at as u64))?;
    Ok(at.wrapping_add(u.int_in_range(0..=4)?).wrapping_sub(2))
}

fn image(space: &ConfigSpace) -> Vec<u8> {
    let mut bytes = vec![0; CONFIG_SIZE];
    space.read(0, &mut bytes);
    bytes
}

fn capability(image: &[u8], id: u8) -> usize {
    let mut at = usize::from(image[0x34]);
    while image[at] != id {
        at = usize::from(image[at + 1]);
        assert_ne!(at, 0, "no capability {id:#x}");
    }
    at
}

fn capabilities(image: &[u8]) -> Caps {
    Caps {
        pm_ctrl: capability(image, 0x01) + 4,
        exp_devctl: capability(image, 0x10) + 8,
    }
}

/// The bits that the data sheet (2.2) says software can write.
fn writable(at: usize, caps: &Caps, image: &[u8]) -> u8 {
    let msix_ctrl = capability(image, 0x11) + 2;
    let exp_lnkctl = caps.exp_devctl + 8;
    match at {
        COMMAND => 0x46,
        0x05 => 0x05,
        0x0c | 0x3c => 0xff,
        // BARs of 16 KiB and 4 KiB, 64 bits wide.
        0x11 => 0xc0,
        0x19 => 0xf0,
        0x12..=0x17 | 0x1a..=0x1f => 0xff,
        _ if at == caps.pm_ctrl => 0x03,
        _ if at == msix_ctrl + 1 => 0xc0,
        _ if at == caps.exp_devctl => 0xff,
        // Not phantom functions, auxiliary power, or the bit that resets.
        _ if at == caps.exp_devctl + 1 => 0x79,
        // ASPM, common clock, extended synch.
        _ if at == exp_lnkctl => 0xc3,
        _ => 0,
    }
}
