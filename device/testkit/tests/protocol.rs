// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! vfio-user on the good path, as QEMU uses it.
#![allow(missing_docs)]

mod common;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{eventfd, EventfdFlags};

use common::{options, own, round_trip};
use vnet_contract::{pci, queue, regs};
use vnet_testkit::{
    command, irq, region, Card, Error, GuestRam, Server, Wire, LIMIT, NO_REPLY, QUIET,
};

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn words(list: &[u32]) -> Vec<u8> {
    list.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// The index of a capability in configuration space.
fn capability(card: &mut Card, id: u8) -> u64 {
    let byte = |card: &mut Card, at: u64| {
        let mut b = [0];
        card.read(region::CONFIG, at, &mut b).unwrap();
        b[0]
    };
    let mut at = byte(card, 0x34);
    for _ in 0..48 {
        assert_ne!(at, 0, "no capability {id:#x}");
        if byte(card, at.into()) == id {
            return at.into();
        }
        at = byte(card, u64::from(at) + 1);
    }
    panic!("the capability list loops");
}

#[test]
fn the_server_says_what_it_is() {
    let server = Server::start_with("null", &["--queues", "4"]).unwrap();
    let mut wire = Wire::connect(server.socket()).unwrap();
    let offer = wire.version().unwrap();
    let capabilities = &offer["capabilities"];
    assert!(capabilities["max_data_xfer_size"].as_u64().unwrap() >= 4096);
    assert!(capabilities["max_msg_fds"].as_u64().unwrap() >= 1);

    let info = wire
        .call(command::GET_INFO, &words(&[16, 0, 0, 0]), &[])
        .unwrap()
        .payload;
    const RESET: u32 = 1;
    const PCI: u32 = 2;
    assert_eq!(word(&info, 4) & (RESET | PCI), RESET | PCI);
    assert_eq!((word(&info, 8), word(&info, 12)), (9, 5));

    let sizes = [pci::BAR_REGS_SIZE, 0, pci::BAR_MSIX_SIZE, 0, 0, 0, 0];
    for (index, size) in sizes.into_iter().enumerate() {
        let request = words(&[32, 0, index as u32, 0, 0, 0, 0, 0]);
        let info = wire.call(command::GET_REGION_INFO, &request, &[]).unwrap();
        assert_eq!(u64::from(word(&info.payload, 16)), size, "region {index}");
        assert!(info.fds.is_empty());
        const MMAP: u32 = 4;
        assert_eq!(word(&info.payload, 4) & MMAP, 0, "region {index}");
    }
    for (index, count) in [0, 0, 5, 1, 0].into_iter().enumerate() {
        let request = words(&[16, 0, index as u32, 0]);
        let info = wire.call(command::GET_IRQ_INFO, &request, &[]).unwrap();
        assert_eq!(word(&info.payload, 12), count, "interrupt {index}");
        const NORESIZE: u32 = 8;
        assert_eq!(word(&info.payload, 4) & NORESIZE, 0);
    }
}

#[test]
fn configuration_space_has_the_identity_and_capabilities() {
    let server = Server::start("null").unwrap();
    let mut card = server.card().unwrap();
    let mut config = vec![0; 256];
    card.read(region::CONFIG, 0, &mut config).unwrap();
    assert_eq!(word(&config, 0), 0x10f0_1af4);
    assert_eq!(word(&config, 8) >> 8, pci::CLASS_CODE);
    assert_eq!(config[0x3d], 0, "no INTx");
    assert_eq!(word(&config, 0x30), 0, "no ROM");
    let msix = capability(&mut card, 0x11) as usize;
    let control = word(&config, msix) >> 16;
    assert_eq!(control & 0x7ff, 1, "two vectors");
    assert_eq!(word(&config, msix + 4), pci::BAR_MSIX);
    assert_eq!(
        word(&config, msix + 8),
        pci::BAR_MSIX | pci::MSIX_PBA_OFFSET
    );
    let express = capability(&mut card, 0x10) as usize;
    assert_ne!(word(&config, express + 4) & 1 << 28, 0, "FLR is offered");
    let power = capability(&mut card, 0x01) as usize;
    assert_ne!(word(&config, power + 4) & 1 << 3, 0, "No_Soft_Reset");
}

#[test]
fn the_crate_s_client_understands_the_server_too() {
    let server = Server::start("null").unwrap();
    let mut client = vfio_user::Client::new(server.socket()).unwrap();
    assert_eq!(client.region(0).unwrap().size, pci::BAR_REGS_SIZE);
    client.region_write(region::CONFIG, 4, &[6, 0]).unwrap();
    let mut id = [0; 4];
    client.region_read(region::BAR0, 0, &mut id).unwrap();
    assert_eq!(u32::from_le_bytes(id), regs::ID_VALUE);
    let msix = client.get_irq_info(irq::MSIX).unwrap();
    assert_eq!(msix.count, 2);
    client.reset().unwrap();
    client.shutdown().unwrap();
}

#[test]
fn memory_of_every_kind_can_be_mapped_and_unmapped() {
    let server = Server::start("null").unwrap();
    let mut card = server.card().unwrap();
    let ram = GuestRam::new(0x10_0000, 0x4000).unwrap();
    card.map(&ram).unwrap();
    // Parts of firmware come without a descriptor.
    let message = Card::map_message(1, 0, 0xfffc_0000, 0x4_0000);
    card.wire.call(command::DMA_MAP, &message, &[]).unwrap();
    // Nothing there, more than is there, and the top of the address space.
    card.unmap(0x7000_0000_0000, 0x1000).unwrap();
    card.unmap(0xf_f000, 0x10_0000).unwrap();
    card.unmap(0xffff_ffff_ffff_0000, 0x1_0000).unwrap();
    card.map(&ram).unwrap();
    card.unmap(0, 0x8000_0000_0000_0000).unwrap();
    card.unmap(0x8000_0000_0000_0000, 0x8000_0000_0000_0000)
        .unwrap();
    card.map(&ram).unwrap();
    // Firmware does this many times at boot.
    for _ in 0..500 {
        card.unmap(ram.base(), ram.size()).unwrap();
        card.map(&ram).unwrap();
    }
}

#[test]
fn a_mapping_that_fails_is_refused_with_a_number_and_a_line_in_the_log() {
    let mut server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    let ram = GuestRam::new(0x10_0000, 0x4000).unwrap();
    nic.card.map(&ram).unwrap();
    const EEXIST: u32 = 17;
    let overlap = nic.card.map_range(&ram, 0, 0x10_3000, 0x1000, true);
    let refused = matches!(overlap, Err(Error::Refused { errno: EEXIST, .. }));
    assert!(refused, "{overlap:?}");
    // Nothing else changes.
    round_trip(&mut nic, 0, 1);
    drop(nic);
    let text = server.end().unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("overlaps a mapped one"), "{text}");
}

#[test]
fn the_server_agrees_on_what_qemu_proposes() {
    let server = Server::start("null").unwrap();
    let offer = Wire::connect(server.socket()).unwrap().version().unwrap();
    let expected = serde_json::json!({"capabilities": {
        "max_msg_fds": 16,
        "max_data_xfer_size": 65536,
        "max_dma_maps": 32768,
        "pgsizes": 4096,
        "write_multiple": true,
    }});
    assert_eq!(offer, expected);
}

/// The 16 descriptors that a client may send with one message.
#[test]
fn many_vectors_are_attached_by_one_message() {
    let server = Server::start_with("null", &["--queues", "16"]).unwrap();
    let mut card = server.card().unwrap();
    let events: Vec<OwnedFd> = (0..17)
        .map(|_| eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap())
        .collect();
    let fds: Vec<_> = events.iter().map(|e| e.as_fd()).collect();
    let trigger = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;
    let request = words(&[20, trigger, irq::MSIX, 1, 16]);
    card.wire
        .call(command::SET_IRQS, &request, &fds[..16])
        .unwrap();
    let raise = words(&[20, irq::DATA_NONE | irq::ACTION_TRIGGER, irq::MSIX, 1, 16]);
    card.wire.call(command::SET_IRQS, &raise, &[]).unwrap();
    // By truth values: the first and the last but one.
    let mut some = words(&[37, irq::DATA_BOOL | irq::ACTION_TRIGGER, irq::MSIX, 0, 17]);
    some.extend((0..17).map(|n| u8::from(n == 1 || n == 15)));
    card.wire.call(command::SET_IRQS, &some, &[]).unwrap();
    let counts: Vec<u64> = events
        .iter()
        .map(|event| {
            let mut count = [0; 8];
            let _ = rustix::io::read(event, &mut count);
            u64::from_ne_bytes(count)
        })
        .collect();
    let expected: Vec<u64> = (0..17)
        .map(|n| match n {
            0 | 14 => 2,
            16 => 0,
            _ => 1,
        })
        .collect();
    assert_eq!(counts, expected);
    // One more than that is lost on the way, and nothing is attached.
    let request = words(&[20, trigger, irq::MSIX, 0, 17]);
    let refused = card
        .wire
        .request(command::SET_IRQS, &request, &fds)
        .unwrap();
    assert_eq!(refused.error, Some(24));
}

/// A client that wants some vectors attached and none where there are holes between them sends a message for
/// each run of either, as QEMU does: a socket carries no descriptor that stands for none.
#[test]
fn vectors_have_holes_between_them() {
    const COUNT: u32 = 16;
    let server = Server::start_with("null", &["--queues", "16"]).unwrap();
    let mut card = server.card().unwrap();
    let events: Vec<OwnedFd> = (0..COUNT)
        .map(|_| eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap())
        .collect();
    let trigger = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;
    let set = |card: &mut Card, first: usize, count: usize, fds: &[OwnedFd]| {
        let request = words(&[20, trigger, irq::MSIX, first as u32, count as u32]);
        let fds: Vec<_> = fds.iter().map(|e| e.as_fd()).collect();
        card.wire
            .request(command::SET_IRQS, &request, &fds)
            .unwrap()
            .error
    };
    let attach = |card: &mut Card, wanted: u64| {
        let is = |n: usize| wanted >> n & 1 != 0;
        let mut first = 0;
        while first < events.len() {
            let end = (first..events.len()).find(|&n| is(n) != is(first));
            let end = end.unwrap_or(events.len());
            let fds = if is(first) { first..end } else { 0..0 };
            assert_eq!(set(card, first, end - first, &events[fds]), None);
            first = end;
        }
    };
    // Those that fired since the last call, and those that wait for a descriptor.
    let fired = || {
        let mut bits = 0;
        for (n, event) in events.iter().enumerate() {
            let mut count = [0; 8];
            let _ = rustix::io::read(event, &mut count);
            bits |= u64::from(u64::from_ne_bytes(count) == 1) << n;
        }
        bits
    };
    let pending = |card: &mut Card| {
        let mut bits = [0; 8];
        let at = u64::from(pci::MSIX_PBA_OFFSET);
        card.read(region::BAR2, at, &mut bits).unwrap();
        u64::from_le_bytes(bits)
    };
    let raise = |card: &mut Card| {
        let all = [
            20,
            irq::DATA_NONE | irq::ACTION_TRIGGER,
            irq::MSIX,
            0,
            COUNT,
        ];
        card.wire
            .call(command::SET_IRQS, &words(&all), &[])
            .unwrap();
    };
    const ALL: u64 = (1 << COUNT) - 1;
    for wanted in [0xb3, ALL, 0x5555, 0x8001, 0, 0x7ffe] {
        attach(&mut card, wanted);
        raise(&mut card);
        assert_eq!((fired(), pending(&mut card)), (wanted, ALL & !wanted));
        // Fewer descriptors than vectors do not say where the holes are: nothing is changed by them.
        assert_eq!(set(&mut card, 0, 16, &events[..9]), Some(22));
        assert_eq!((fired(), pending(&mut card)), (0, ALL & !wanted));
        // What waits is delivered when the hole is filled, and once.
        attach(&mut card, ALL);
        assert_eq!((fired(), pending(&mut card)), (ALL & !wanted, 0));
    }
}

#[test]
fn several_writes_come_in_one_message() {
    let server = Server::start("loopback").unwrap();
    let mut card = server.card().unwrap();
    let one = |offset: u32, value: u32| words(&[offset, 0, region::BAR0, 4, value, 0]);
    let writes = [
        one(regs::MTU, 3000),
        one(regs::RX_MODE, regs::RX_MODE_BROADCAST),
    ];
    let request = [words(&[2, 0]), writes.concat()].concat();
    let done = card.wire.call(command::WRITE_MULTI, &request, &[]).unwrap();
    assert_eq!(done.payload, words(&[2, 0]));
    assert_eq!(card.reg(regs::MTU).unwrap(), 3000);
    assert_eq!(card.reg(regs::RX_MODE).unwrap(), regs::RX_MODE_BROADCAST);
    // Posted, as QEMU does.
    let request = [words(&[1, 0]), one(regs::MTU, 2000)].concat();
    card.wire
        .send(command::WRITE_MULTI, NO_REPLY, &request, &[])
        .unwrap();
    assert_eq!(card.reg(regs::MTU).unwrap(), 2000);
}

/// Requests that are sent without waiting are answered in their order, each with its descriptor.
#[test]
fn requests_in_a_row() {
    let server = Server::start("null").unwrap();
    let mut card = server.card().unwrap();
    let ram = GuestRam::new(0x10_0000, 0x4000).unwrap();
    let mut ids = Vec::new();
    for n in 0..50 {
        let map = Card::map_message(3, 0, 0x1000_0000 + n * 0x4000, 0x4000);
        ids.push(
            card.wire
                .send(command::DMA_MAP, 0, &map, &[ram.fd()])
                .unwrap(),
        );
        let id = [regs::ID, 0, region::BAR0, 4];
        ids.push(
            card.wire
                .send(command::REGION_READ, 0, &words(&id), &[])
                .unwrap(),
        );
        card.post(region::BAR0, 0, &[0; 4]).unwrap();
    }
    for (n, id) in ids.into_iter().enumerate() {
        let reply = card.wire.receive().unwrap();
        assert_eq!((reply.id, reply.error), (id, None), "{n}");
        if n % 2 == 1 {
            assert_eq!(word(&reply.payload, 16), regs::ID_VALUE);
        }
    }
}

#[test]
fn the_device_reset_keeps_memory_and_interrupts() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    round_trip(&mut nic, 0, 1);
    nic.card.wire.call(command::DEVICE_RESET, &[], &[]).unwrap();
    let mut command = [0; 2];
    nic.card.read(region::CONFIG, 4, &mut command).unwrap();
    assert_eq!(command, [0, 0], "the reset covers configuration space");
    nic.card.set_bus_master(true).unwrap();
    assert_eq!(nic.card.reg(regs::MTU).unwrap(), 1500);
    assert_eq!(nic.card.status(queue::tx_index(0)).unwrap(), 0);
    nic.restart().unwrap();
    round_trip(&mut nic, 0, 2);
}

#[test]
fn the_function_level_reset_does_as_much() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    round_trip(&mut nic, 0, 1);
    let control = capability(&mut nic.card, 0x10) + 8;
    let mut value = [0; 2];
    nic.card.read(region::CONFIG, control, &mut value).unwrap();
    value[1] |= 0x80;
    nic.card.write(region::CONFIG, control, &value).unwrap();
    nic.card.read(region::CONFIG, control, &mut value).unwrap();
    assert_eq!(value[1] & 0x80, 0, "reads as zero");
    nic.card.set_bus_master(true).unwrap();
    assert_eq!(nic.card.status(queue::tx_index(0)).unwrap(), 0);
    nic.restart().unwrap();
    round_trip(&mut nic, 0, 2);
}

#[test]
fn in_d3hot_the_card_is_silent_and_keeps_its_state() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    round_trip(&mut nic, 0, 1);
    let power = capability(&mut nic.card, 0x01) + 4;
    nic.card.write(region::CONFIG, power, &[3, 0]).unwrap();
    assert_eq!(nic.card.reg(regs::ID).unwrap(), u32::MAX);
    nic.card.set_reg(regs::MTU, 4000).unwrap();
    let frame = own(&nic, 100, 2);
    nic.send(0, &frame).unwrap();
    common::silence(&mut nic, 0);
    nic.card.write(region::CONFIG, power, &[0, 0]).unwrap();
    assert_eq!(nic.card.reg(regs::MTU).unwrap(), 1500);
    assert_eq!(nic.expect(0).unwrap().frame, frame);
    round_trip(&mut nic, 0, 3);
}

#[test]
fn an_interrupt_that_nobody_listens_to_becomes_pending() {
    let server = Server::start("loopback").unwrap();
    let mut nic = server.nic_with(options()).unwrap();
    let trigger = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;
    nic.card
        .set_irqs(irq::MSIX, trigger, 0, 1, None)
        .expect("detaches vector 0");
    assert!(nic.arm(0).unwrap());
    let frame = own(&nic, 60, 1);
    nic.send(0, &frame).unwrap();
    let pending = |nic: &mut vnet_testkit::Nic| {
        let mut bits = [0; 8];
        let at = u64::from(pci::MSIX_PBA_OFFSET);
        nic.card.read(region::BAR2, at, &mut bits).unwrap();
        u64::from_le_bytes(bits)
    };
    let end = std::time::Instant::now() + LIMIT;
    while pending(&mut nic) != 1 {
        assert!(std::time::Instant::now() < end, "never pending");
    }
    assert_eq!(nic.vectors[0].take(), 0);
    // Attached again, it is delivered at once.
    let fresh = nic.card.vectors(1).unwrap();
    assert!(fresh[0].wait(LIMIT).unwrap());
    assert_eq!(pending(&mut nic), 0);
    // Replaced: the new one gets the next interrupt, the old one does not.
    let newest = nic.card.vectors(1).unwrap();
    assert_eq!(nic.expect(0).unwrap().frame, frame);
    assert!(nic.arm(0).unwrap());
    nic.send(0, &frame).unwrap();
    assert!(newest[0].wait(LIMIT).unwrap());
    assert_eq!(fresh[0].take(), 0);
    // MSI-X off: nothing is delivered any more.
    let off = irq::DATA_NONE | irq::ACTION_TRIGGER;
    nic.card.set_irqs(irq::MSIX, off, 0, 0, None).unwrap();
    assert_eq!(nic.expect_quietly(0), frame);
    assert!(nic.arm(0).unwrap());
    nic.send(0, &frame).unwrap();
    assert!(!newest[0].wait(QUIET).unwrap());
}

/// Receives by polling, for want of interrupts.
trait ExpectQuietly {
    fn expect_quietly(&mut self, pair: u16) -> Vec<u8>;
}

impl ExpectQuietly for vnet_testkit::Nic {
    fn expect_quietly(&mut self, pair: u16) -> Vec<u8> {
        let end = std::time::Instant::now() + LIMIT;
        loop {
            if let Some(got) = self.try_receive(pair).unwrap() {
                return got.frame;
            }
            assert!(std::time::Instant::now() < end, "no frame came");
        }
    }
}

#[test]
fn a_client_that_leaves_is_forgotten_and_the_next_one_is_served() {
    let server = Server::start("loopback").unwrap();
    for seed in 0..20 {
        let mut nic = server.nic_with(options()).unwrap();
        // Nothing is left of the client before: no feature, no queue, no memory, no count.
        assert_eq!(nic.card.reg(regs::ILLEGAL_ACCESSES).unwrap(), 0);
        round_trip(&mut nic, 0, seed);
        let frame = own(&nic, 1000, seed);
        for _ in 0..100 {
            nic.queue(0, Default::default(), &frame).unwrap();
        }
        nic.flush(0).unwrap();
        let ram = Arc::clone(&nic.ram);
        drop(nic);
        // Gone in the middle of its traffic. Once the next one is served, the card has let go of
        // the memory of the last.
        let mut card = server.card().unwrap();
        assert_eq!(card.status(queue::tx_index(0)).unwrap(), 0);
        let before = ram.read_vec(ram.base(), ram.size() as usize);
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(before == ram.read_vec(ram.base(), ram.size() as usize));
    }
}

#[test]
fn a_second_client_waits_for_the_first_to_leave() {
    let server = Server::start("loopback").unwrap();
    let mut first = server.nic().unwrap();
    round_trip(&mut first, 0, 1);
    let socket = server.socket().to_owned();
    let second = std::thread::spawn(move || {
        let mut nic = vnet_testkit::Nic::connect(&socket).unwrap();
        round_trip(&mut nic, 0, 2);
    });
    std::thread::sleep(QUIET);
    assert!(!second.is_finished());
    round_trip(&mut first, 0, 3);
    drop(first);
    second.join().unwrap();
}

#[test]
fn descriptors_do_not_pile_up() {
    let server = Server::start("loopback").unwrap();
    let open = || {
        let path = format!("/proc/{}/fd", server.process.id());
        std::fs::read_dir(path).unwrap().count()
    };
    let mut nic = server.nic().unwrap();
    round_trip(&mut nic, 0, 1);
    let before = open();
    let ram = GuestRam::new(0x10_0000, 0x4000).unwrap();
    for _ in 0..200 {
        nic.card.map(&ram).unwrap();
        nic.card.unmap(ram.base(), ram.size()).unwrap();
        drop(nic.card.vectors(2).unwrap());
        // Descriptors that nobody asked for.
        let fds = [ram.fd(), ram.fd(), ram.fd()];
        let id = words(&[16, 0, 0, 0]);
        nic.card.wire.request(command::GET_INFO, &id, &fds).unwrap();
        // They are closed after the reply, but before the next request.
        nic.card.wire.request(command::GET_INFO, &id, &[]).unwrap();
    }
    assert!(open() <= before, "{before} before, {} now", open());

    // And those of clients that are gone.
    drop(nic);
    // Devices are closed by a thread that nobody waits for. With 64 of them left, the server hangs up.
    for _ in 0..20 {
        let mut card = server.card().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let map = Card::map_message(3, 0, 0, 0x1000);
        let answer = card
            .wire
            .request(command::DMA_MAP, &map, &[null.as_fd(), ram.fd()]);
        assert!(answer.unwrap().error.is_some(), "two files");
        let answer = card.wire.request(command::DMA_MAP, &map, &[null.as_fd()]);
        assert!(answer.unwrap().error.is_some(), "/dev/null is no memory");
    }
    let _nic = server.nic().unwrap();
    let since = std::time::Instant::now();
    while open() > before {
        let waited = since.elapsed();
        assert!(waited < LIMIT, "{before} before, {} now", open());
        std::thread::sleep(QUIET);
    }
}
