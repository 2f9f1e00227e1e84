// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The messages of a client, as the loop hands them over.

use super::*;
use crate::layout::regions;
use rustix::event::{eventfd, EventfdFlags};
use rustix::fs::{memfd_create, MemfdFlags};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Arc, Mutex};
use vfio_user::{Client, Server, ServerRegion};
use vnet_card::Config;
use vnet_contract::regs;
use vnet_loopback::Null;

const COMMAND: u64 = 4;
const MEMORY_AND_MASTER: [u8; 2] = [6, 0];
const TRIGGER_EVENTFD: u32 = VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_EVENTFD;
const TRIGGER_NONE: u32 = VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_NONE;

fn device() -> (Device, Receiver<Error>) {
    let config = Config {
        queue_pairs: 2,
        ..Config::new([2, 0, 0, 0, 0, 1])
    };
    let card = Card::new(config, Box::new(Null::new())).unwrap();
    let (sender, receiver) = channel();
    let on_fatal = Box::new(move |e| sender.send(e).unwrap());
    let device = Device::new(Arc::new(Mutex::new(card)), on_fatal);
    (device, receiver)
}

fn memory(size: u64) -> File {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(size).unwrap();
    file
}

/// An eventfd, and a second descriptor of it to read with.
fn event() -> (File, OwnedFd) {
    let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
    let reader = fd.try_clone().unwrap();
    (fd.into(), reader)
}

fn fired(reader: &OwnedFd) -> bool {
    rustix::io::read(reader, &mut [0u8; 8]).is_ok()
}

/// The error number with which a request was refused.
fn errno(done: io::Result<()>) -> Option<i32> {
    done.unwrap_err().raw_os_error()
}

fn raise(device: &Device, vector: u32) {
    device.card().vectors().raise(vector, 1).unwrap();
}

fn id(device: &mut Device) -> u32 {
    let mut data = [0; 4];
    device.region_read(REGISTERS, 0, &mut data).unwrap();
    u32::from_le_bytes(data)
}

#[test]
fn the_messages_of_a_client_that_sets_up_msix() {
    let (mut device, _fatal) = device();
    let bus_master = |device: &mut Device| {
        device
            .region_write(CONFIG, COMMAND, &MEMORY_AND_MASTER)
            .unwrap();
    };
    bus_master(&mut device);
    // Enabled, with nothing attached yet: what is raised now waits.
    device
        .set_irqs(MSIX_IRQ, TRIGGER_EVENTFD, 0, 1, vec![])
        .unwrap();
    raise(&device, 1);
    // One message for each vector that is unmasked, again at each time.
    let (first, first_reader) = event();
    device
        .set_irqs(MSIX_IRQ, TRIGGER_EVENTFD, 1, 1, vec![first])
        .unwrap();
    assert!(fired(&first_reader));
    let (second, second_reader) = event();
    device
        .set_irqs(MSIX_IRQ, TRIGGER_EVENTFD, 1, 1, vec![second])
        .unwrap();
    raise(&device, 1);
    assert!(!fired(&first_reader) && fired(&second_reader));
    // The client may raise vectors itself.
    device
        .set_irqs(MSIX_IRQ, TRIGGER_NONE, 1, 1, vec![])
        .unwrap();
    assert!(fired(&second_reader));
    // A reset leaves eventfds in place; disabling MSI-X takes them away.
    device.reset().unwrap();
    bus_master(&mut device);
    raise(&device, 1);
    assert!(fired(&second_reader));
    device
        .set_irqs(MSIX_IRQ, TRIGGER_NONE, 0, 0, vec![])
        .unwrap();
    raise(&device, 1);
    assert!(!fired(&second_reader));
}

#[test]
fn interrupts_that_make_no_sense_are_refused() {
    let (mut device, _fatal) = device();
    let (kept, reader) = event();
    device
        .set_irqs(MSIX_IRQ, TRIGGER_EVENTFD, 2, 1, vec![kept])
        .unwrap();
    let fd = || vec![event().0];
    for (index, flags, start, count, fds) in [
        (MSIX_IRQ, TRIGGER_EVENTFD, 3, 1, fd()),
        (MSIX_IRQ, TRIGGER_EVENTFD, u32::MAX, 1, fd()),
        (MSIX_IRQ, TRIGGER_EVENTFD, 2, 2, fd()),
        (MSIX_IRQ, TRIGGER_EVENTFD, 2, u32::MAX, vec![]),
        (MSIX_IRQ, TRIGGER_NONE, 2, 2, vec![]),
        (MSIX_IRQ, VFIO_IRQ_SET_DATA_EVENTFD, 2, 1, fd()),
        (MSIX_IRQ, TRIGGER_EVENTFD | TRIGGER_NONE, 2, 1, fd()),
        (MSIX_IRQ, u32::MAX, 0, 0, vec![]),
        (0, TRIGGER_EVENTFD, 0, 1, fd()),
        (4, TRIGGER_EVENTFD, 0, 1, fd()),
    ] {
        assert!(device.set_irqs(index, flags, start, count, fds).is_err());
    }
    // The error interrupt is taken, and nothing to take away is no mistake.
    device
        .set_irqs(ERROR_IRQ, TRIGGER_EVENTFD, 0, 1, fd())
        .unwrap();
    device.set_irqs(0, TRIGGER_NONE, 0, 0, vec![]).unwrap();
    // What is no eventfd leaves the one that is there.
    device
        .set_irqs(MSIX_IRQ, TRIGGER_EVENTFD, 2, 1, vec![memory(0x1000)])
        .unwrap_err();
    device
        .region_write(CONFIG, COMMAND, &MEMORY_AND_MASTER)
        .unwrap();
    raise(&device, 2);
    assert!(fired(&reader));
}

#[test]
fn accesses_lie_within_their_region() {
    let (mut device, _fatal) = device();
    device
        .region_write(CONFIG, COMMAND, &MEMORY_AND_MASTER)
        .unwrap();
    assert_eq!(id(&mut device), regs::ID_VALUE);
    for region in regions() {
        let (index, size) = (region.index, region.size);
        for (offset, length) in [(size, 1), (size.wrapping_sub(2), 4), (u64::MAX, 8)] {
            let mut data = vec![0; length];
            assert!(device.region_read(index, offset, &mut data).is_err());
            assert!(device.region_write(index, offset, &data).is_err());
        }
        device.region_read(index, size, &mut []).unwrap();
    }
    // Whole regions, as a client reads config space.
    let mut data = vec![0; 4096];
    device.region_read(CONFIG, 0, &mut data).unwrap();
    assert_eq!(data[..4], [0xf4, 0x1a, 0xf0, 0x10]);
    device.region_read(MSIX, 0, &mut data).unwrap();
    device.region_write(MSIX, 0, &data).unwrap();
}

#[test]
fn memory_is_mapped_unmapped_and_dropped() {
    let (mut device, _fatal) = device();
    let both = DmaMapFlags::READ_WRITE;
    let map = |device: &mut Device, address| {
        device.dma_map(both, 0, address, 0x1000, Some(memory(0x1000)))
    };
    map(&mut device, 0).unwrap();
    assert_eq!(
        errno(map(&mut device, 0)),
        Some(Errno::EXIST.raw_os_error())
    );
    let beyond = device.dma_map(both, 0x1000, 0x8000, 0x1000, Some(memory(0x1000)));
    assert_eq!(errno(beyond), Some(Errno::INVAL.raw_os_error()));
    device
        .dma_unmap(DmaUnmapFlags::empty(), 0x5000, 0x1000)
        .unwrap();
    device
        .dma_unmap(DmaUnmapFlags::empty(), 0, u64::MAX)
        .unwrap();
    map(&mut device, 0).unwrap();
    let all = DmaUnmapFlags::from_bits_retain(VFIO_DMA_UNMAP_FLAG_ALL);
    device.dma_unmap(all, 0, 0).unwrap();
    map(&mut device, 0).unwrap();
    // What the client mapped outlives a reset, but not the client.
    device.reset().unwrap();
    map(&mut device, 0).unwrap_err();
    device.disconnect();
    map(&mut device, 0).unwrap();
}

#[test]
fn a_client_that_shares_no_memory_is_found_out_when_it_wants_dma() {
    let (mut device, fatal) = device();
    let both = DmaMapFlags::READ_WRITE;
    let want_dma = |device: &mut Device| {
        device
            .region_write(CONFIG, COMMAND, &MEMORY_AND_MASTER)
            .unwrap();
    };
    // No memory at all, as behind an IOMMU; then a ROM, which is never shared.
    want_dma(&mut device);
    device
        .dma_map(DmaMapFlags::READ, 0, 0xc_0000, 0x1000, None)
        .unwrap();
    want_dma(&mut device);
    assert!(fatal.try_recv().is_err());

    device.dma_map(both, 0, 0, 0x1000, None).unwrap();
    want_dma(&mut device);
    assert!(matches!(fatal.try_recv(), Ok(Error::NoSharedMemory)));
    want_dma(&mut device);
    assert!(fatal.try_recv().is_err());

    // The next client keeps its display to itself, but shares its memory.
    device.disconnect();
    device.dma_map(both, 0, 0x8000_0000, 0x1000, None).unwrap();
    device
        .dma_map(both, 0, 0, 0x1000, Some(memory(0x1000)))
        .unwrap();
    want_dma(&mut device);
    assert!(fatal.try_recv().is_err());
}

/// The loop of the `vfio_user` crate, with its client: the device does not know which one it is.
#[test]
fn another_loop_can_run_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (mut device, _errors) = device();
    let regions = regions().into_iter().map(|region_info| ServerRegion {
        region_info,
        sparse_areas: Vec::new(),
        mmap_fd: None,
    });
    let vectors = device.card().vectors().count();
    let irqs = layout::irqs(vectors);
    let server = Server::new(&path, true, irqs, regions.collect()).unwrap();
    let thread = std::thread::spawn(move || {
        server.run(&mut device).unwrap();
        device
    });

    let mut client = Client::new(&path).unwrap();
    let mut bytes = [0; 4];
    client.region_read(CONFIG, 0, &mut bytes).unwrap();
    assert_eq!(
        u16::from_le_bytes([bytes[0], bytes[1]]),
        vnet_contract::pci::VENDOR_ID
    );
    client
        .region_write(CONFIG, COMMAND, &MEMORY_AND_MASTER)
        .unwrap();
    let mut register = |client: &mut Client, offset: u32| {
        client
            .region_read(REGISTERS, offset.into(), &mut bytes)
            .unwrap();
        u32::from_le_bytes(bytes)
    };
    assert_eq!(register(&mut client, regs::ID), regs::ID_VALUE);
    let mtu = 1400u32;
    client
        .region_write(REGISTERS, regs::MTU.into(), &mtu.to_le_bytes())
        .unwrap();
    assert_eq!(register(&mut client, regs::MTU), mtu);
    let file = memory(0x4000);
    client
        .dma_map(0, 0x10_0000, 0x4000, file.as_raw_fd())
        .unwrap();
    client
        .dma_map(0, 0x20_0000, 0x4000, file.as_raw_fd())
        .unwrap();
    client.dma_unmap(0x20_0000, 0x4000).unwrap();
    let (fd, reader) = event();
    let fds = [fd.as_raw_fd()];
    client
        .set_irqs(MSIX_IRQ, TRIGGER_EVENTFD, 1, 1, &fds)
        .unwrap();
    client.shutdown().unwrap();

    let device = thread.join().unwrap();
    raise(&device, 1);
    assert!(fired(&reader));
    let map = device.card().address_space().all();
    assert!(map.file(0x10_0000).is_some());
    assert!(map.file(0x20_0000).is_none());
}
