// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The vfio-user protocol, with a client that sends anything in pieces of any size.

use std::fs::File;
use std::io;

use arbitrary::{Result, Unstructured};
use rustix::io::Errno;
use vfio_bindings::bindings::vfio::vfio_region_info;
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerBackend};
use vnet_protocol::Layout;
use vnet_queue::mock::memfd;

use crate::client::{Has, Server};
use crate::input::rarely;

const REGIONS: [u64; 3] = [0x4000, 0, 0x1000];
/// Number and flags of each kind of interrupt.
const IRQS: [(u32, u32); 3] = [(0, 0), (1, 2), (4, 1)];
const HAS: Has = Has {
    regions: &[0, 0, 2, 1, 3],
    numbers: &[0, 1, 2, 4, 16, 32, 0x1000, 0x3ffc, 0x4000],
};

/// A stream of messages. Each that says its size right is answered once and in order, if it wants
/// to be; the device is asked for nothing that it does not have; no size costs memory.
pub fn session(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let layout = Layout {
        regions: REGIONS.map(region).to_vec(),
        irqs: (0..).zip(IRQS).map(irq).collect(),
        resettable: u.arbitrary()?,
        max_maps: 100,
    };
    let mut server = Server::new(u, layout, Device::default())?;
    let fd = memfd(0x1000);
    while !u.is_empty() && !server.ended {
        server.device.fails = rarely(u, 8)?;
        server.step(u, &HAS, |_| Ok(fd.try_clone().expect("dup")))?;
    }
    Ok(())
}

fn region(size: u64) -> vfio_region_info {
    vfio_region_info {
        argsz: 32,
        flags: if size == 0 { 0 } else { 3 },
        size,
        ..Default::default()
    }
}

fn irq((index, (count, flags)): (u32, (u32, u32))) -> IrqInfo {
    IrqInfo {
        index,
        flags,
        count,
    }
}

/// A device that has what the layout says, and is asked for nothing else.
#[derive(Default)]
struct Device {
    fails: bool,
}

impl Device {
    fn done(&self) -> io::Result<()> {
        match self.fails {
            true => Err(Errno::NOSPC.into()),
            false => Ok(()),
        }
    }

    fn access(&self, region: u32, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.checked_add(len as u64).expect("an end");
        assert!(end <= REGIONS[region as usize]);
        self.done()
    }
}

impl ServerBackend for Device {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.access(region, offset, data.len())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.access(region, offset, data.len())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        _offset: u64,
        _address: u64,
        _size: u64,
        _fd: Option<File>,
    ) -> io::Result<()> {
        assert_eq!(flags.bits() & !3, 0);
        self.done()
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, _address: u64, _size: u64) -> io::Result<()> {
        assert_eq!(flags.bits() & !2, 0);
        self.done()
    }

    fn reset(&mut self) -> io::Result<()> {
        self.done()
    }

    fn set_irqs(
        &mut self,
        index: u32,
        _flags: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> io::Result<()> {
        let end = start.checked_add(count).expect("an end");
        assert!(end <= IRQS[index as usize].0);
        assert!(fds.is_empty() || fds.len() == count as usize);
        self.done()
    }
}
