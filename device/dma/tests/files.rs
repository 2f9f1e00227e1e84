// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What happens to the files of a client.

use std::fs::{read_to_string, File};
use std::io::Write;
use std::sync::Mutex;

use rustix::fs::{fcntl_add_seals, ftruncate, memfd_create, MemfdFlags, SealFlags};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use vm_memory::{Bytes, GuestAddress, Permissions};
use vnet_dma::{AddressSpace, MapError, Mapping, PAGE_SIZE};

const P: u64 = PAGE_SIZE;

/// Descriptors belong to the process, so tests that count them take turns.
static DESCRIPTORS: Mutex<()> = Mutex::new(());

fn memfd(flags: MemfdFlags) -> File {
    let fd = memfd_create("test", MemfdFlags::CLOEXEC | flags).unwrap();
    ftruncate(&fd, 2 * P).unwrap();
    fd.into()
}

fn mapping(address: u64, file: &File, write: bool) -> Mapping {
    Mapping {
        address,
        size: P,
        file: Some(file.try_clone().unwrap()),
        offset: 0,
        read: true,
        write,
    }
}

fn space() -> AddressSpace {
    let space = AddressSpace::new();
    space.set_bus_master(true);
    space
}

#[test]
fn ranges_of_one_file_share_a_descriptor() {
    let _turn = DESCRIPTORS.lock();
    let before = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(100),
        ..before
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let space = space();
    let file = memfd(MemfdFlags::empty());
    for n in 0..2000 {
        space.map(mapping(n * P, &file, true)).unwrap();
    }
    setrlimit(Resource::Nofile, before).unwrap();
    space
        .memory()
        .unwrap()
        .write_slice(b"vnet", GuestAddress(1999 * P))
        .unwrap();
    let mut bytes = [0; 4];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"vnet");
}

#[test]
fn the_number_of_files_is_bounded_and_unused_ones_are_closed() {
    let _turn = DESCRIPTORS.lock();
    let space = space();
    let mut most = 0;
    let refusal = loop {
        match space.map(mapping(most * P, &memfd(MemfdFlags::empty()), true)) {
            Ok(()) => most += 1,
            Err(e) => break e,
        }
        assert!(most < 900, "ends before a usual limit of descriptors");
    };
    assert!(matches!(refusal, MapError::TooManyFiles(_)), "{refusal}");
    assert_eq!(refusal.errno(), libc::ENOSPC);
    space.unmap(0, P);
    space
        .map(mapping(0, &memfd(MemfdFlags::empty()), true))
        .unwrap();
}

/// A descriptor that may only be read must not stand in for one that may be written.
#[test]
fn descriptors_of_one_file_that_differ_are_kept_apart() {
    let _turn = DESCRIPTORS.lock();
    let space = space();
    let file = memfd(MemfdFlags::empty());
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let readable = File::open(path).unwrap();
    space.map(mapping(0, &readable, false)).unwrap();
    assert!(space.map(mapping(P, &readable, true)).is_err());
    space.map(mapping(P, &file, true)).unwrap();
    let memory = space.memory().unwrap();
    assert!(vm_memory::GuestMemory::check_range(
        &*memory,
        GuestAddress(P),
        8,
        Permissions::Write
    ));
}

#[test]
fn mapped_memory_cannot_be_cut_off() {
    let _turn = DESCRIPTORS.lock();
    let space = space();
    let file = memfd(MemfdFlags::ALLOW_SEALING);
    space.map(mapping(0, &file, true)).unwrap();
    assert!(ftruncate(&file, 0).is_err());

    // One that QEMU sealed itself, against further seals too.
    let sealed = memfd(MemfdFlags::ALLOW_SEALING);
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&sealed, seals).unwrap();
    space.map(mapping(P, &sealed, true)).unwrap();
}

/// Linux maps huge pages as a whole. No page is touched, so the machine need not have any.
#[test]
fn ranges_of_huge_pages_start_and_end_anywhere() {
    let _turn = DESCRIPTORS.lock();
    let huge = MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB | MemfdFlags::CLOEXEC;
    let Ok(file) = memfd_create("vnet-huge", huge).map(File::from) else {
        let line = "SKIPPED ranges_of_huge_pages_start_and_end_anywhere: this kernel has none\n";
        let _ = std::io::stderr().write_all(line.as_bytes());
        return;
    };
    ftruncate(&file, 4 << 20).unwrap();
    let areas = || {
        let maps = read_to_string("/proc/self/maps").unwrap();
        maps.matches("vnet-huge").count()
    };
    let space = space();
    let range = |address, offset, size| Mapping {
        size,
        offset,
        ..mapping(address, &file, true)
    };
    // As QEMU has it: there is a hole in low memory, and the rest starts at 1 MiB.
    space.map(range(0, 0, 0xa_0000)).unwrap();
    space.map(range(0x10_0000, 0x10_0000, 0x10_0000)).unwrap();
    // From the second half of one page into the next.
    space.map(range(0x20_0000, 0x1f_f000, 2 * P)).unwrap();
    assert_eq!(areas(), 3);
    let memory = space.memory().unwrap();
    let reaches = |address, count| {
        vm_memory::GuestMemory::check_range(
            &*memory,
            GuestAddress(address),
            count,
            Permissions::Write,
        )
    };
    assert!(reaches(0, 0xa_0000) && !reaches(0, 0xa_0001));
    assert!(reaches(0x10_0000, 0x10_2000) && !reaches(0x10_0000, 0x10_2001));
    // None is left over, which would go uncounted.
    drop(memory);
    space.clear();
    assert_eq!(areas(), 0);
}
