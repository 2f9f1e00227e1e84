// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The address space as a client drives it.

use std::fs::File;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use rustix::fs::{ftruncate, memfd_create, MemfdFlags};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};
use vnet_dma::{AddressSpace, MapError, Mapping, MAX_MAPPINGS, PAGE_SIZE};

const P: u64 = PAGE_SIZE;
/// Address of the last page.
const TOP: u64 = u64::MAX - (P - 1);

fn memfd(size: u64) -> File {
    let fd = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, size).unwrap();
    File::from(fd)
}

fn with_file(address: u64, size: u64, file: &File, offset: u64) -> Mapping {
    Mapping {
        address,
        size,
        file: Some(file.try_clone().unwrap()),
        offset,
        read: true,
        write: true,
    }
}

fn without_file(address: u64, size: u64) -> Mapping {
    Mapping {
        address,
        size,
        file: None,
        offset: 0,
        read: true,
        write: true,
    }
}

fn space() -> AddressSpace {
    let space = AddressSpace::new();
    space.set_bus_master(true);
    space
}

fn reaches(space: &AddressSpace, address: u64, count: usize, access: Permissions) -> bool {
    space
        .memory()
        .is_some_and(|m| m.check_range(GuestAddress(address), count, access))
}

#[test]
fn both_sides_see_the_same_bytes_at_the_offset_of_the_file() {
    let file = memfd(3 * P);
    let space = space();
    space.map(with_file(0x10_0000, P, &file, P)).unwrap();
    let mem = space.memory().unwrap();
    mem.write_slice(b"vnet", GuestAddress(0x10_0ffc)).unwrap();
    let mut bytes = [0; 4];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 2 * P - 4).unwrap();
    assert_eq!(&bytes, b"vnet");
}

#[test]
fn an_access_may_cross_from_one_range_to_the_next_but_not_a_hole() {
    let (a, b) = (memfd(P), memfd(P));
    let space = space();
    space.map(with_file(2 * P, P, &b, 0)).unwrap();
    space.map(with_file(P, P, &a, 0)).unwrap();
    let mem = space.memory().unwrap();
    mem.write_slice(&[7; 100], GuestAddress(2 * P - 50))
        .unwrap();
    let pieces: Vec<usize> = mem
        .get_slices(GuestAddress(2 * P - 50), 100, Permissions::Read)
        .unwrap()
        .map(|s| s.unwrap().len())
        .collect();
    assert_eq!(pieces, [50, 50]);
    assert!(!reaches(&space, 3 * P - 1, 2, Permissions::Read));
    assert!(!reaches(&space, P - 1, 2, Permissions::Read));
    // An atomic access must not be torn.
    assert!(mem
        .load::<u32>(GuestAddress(2 * P - 2), Ordering::Relaxed)
        .is_err());
}

#[test]
fn permissions_are_those_of_the_range() {
    let file = memfd(P);
    let space = space();
    let mapping = |address, read, write| Mapping {
        read,
        write,
        ..with_file(address, P, &file, 0)
    };
    space.map(mapping(0, true, false)).unwrap();
    space.map(mapping(P, false, true)).unwrap();
    space.map(mapping(2 * P, false, false)).unwrap();
    space.map(without_file(3 * P, P)).unwrap();
    let got = |access| [0, P, 2 * P, 3 * P].map(|a| reaches(&space, a, 8, access));
    assert_eq!(got(Permissions::Read), [true, false, false, false]);
    assert_eq!(got(Permissions::Write), [false, true, false, false]);
    let mem = space.memory().unwrap();
    assert!(mem.write_slice(&[1], GuestAddress(0)).is_err());
    assert!(mem.store(1u16, GuestAddress(0), Ordering::Relaxed).is_err());
    assert!(mem.write_slice(&[1; 2], GuestAddress(2 * P - 1)).is_err());
}

#[test]
fn what_cannot_be_mapped_is_refused_and_changes_nothing() {
    let file = memfd(2 * P);
    let space = space();
    space.map(with_file(4 * P, 2 * P, &file, 0)).unwrap();
    let errno = |m| space.map(m).unwrap_err().errno();
    assert_eq!(errno(with_file(8 * P, 0, &file, 0)), libc::EINVAL);
    assert_eq!(errno(with_file(8 * P + 1, P, &file, 0)), libc::EINVAL);
    assert_eq!(errno(with_file(8 * P, P + 1, &file, 0)), libc::EINVAL);
    assert_eq!(errno(with_file(8 * P, P, &file, 1)), libc::EINVAL);
    // Beyond the end of the file, and beyond every file.
    assert_eq!(errno(with_file(8 * P, 2 * P, &file, P)), libc::EINVAL);
    assert_eq!(errno(with_file(8 * P, P, &file, TOP)), libc::EINVAL);
    assert_eq!(errno(with_file(8 * P, 1 << 62, &file, 0)), libc::EINVAL);
    // Beyond the end of the address space.
    assert_eq!(errno(without_file(TOP, 2 * P)), libc::EINVAL);
    // Not a file in memory.
    let null = File::options().read(true).write(true).open("/dev/zero");
    assert_eq!(errno(with_file(8 * P, P, &null.unwrap(), 0)), libc::EINVAL);
    for (address, size) in [
        (4 * P, P),
        (5 * P, P),
        (3 * P, 2 * P),
        (5 * P, 2 * P),
        (0, TOP),
    ] {
        let e = space.map(without_file(address, size)).unwrap_err();
        assert!(matches!(e, MapError::Overlap(_)), "{address:#x}: {e}");
    }
    assert_eq!(space.memory().unwrap().len(), 1);
}

#[test]
fn unmap_at_the_top_of_the_address_space() {
    let space = space();
    let file = memfd(P);
    space.map(with_file(TOP, P, &file, 0)).unwrap();
    assert!(reaches(&space, u64::MAX, 1, Permissions::Read));
    // Nothing lies behind the last byte, not even the first one.
    space.map(with_file(0, P, &file, 0)).unwrap();
    assert!(!reaches(&space, u64::MAX, 2, Permissions::Read));
    assert_eq!(space.unmap(1 << 63, 1 << 63), 1);
    assert!(!reaches(&space, u64::MAX, 1, Permissions::Read));
    // An end beyond 2^64 means the end.
    space.map(with_file(TOP, P, &file, 0)).unwrap();
    assert_eq!(space.unmap(P, u64::MAX), 1);
    assert_eq!(space.unmap(0, u64::MAX), 1);
    assert_eq!(space.unmap(0, 0), 0);
    assert_eq!(space.unmap(u64::MAX, u64::MAX), 0);
    assert!(space.memory().unwrap().is_empty());
}

#[test]
fn what_is_within_reach_of_a_stretch() {
    let space = space();
    let file = memfd(2 * P);
    space.map(with_file(2 * P, 2 * P, &file, 0)).unwrap();
    space.map(without_file(5 * P, P)).unwrap();
    space.map(with_file(TOP, P, &file, 0)).unwrap();
    let map = space.all();
    let found = |stretch| map.within_reach(stretch).collect::<Vec<_>>();
    let (low, high) = (2 * P..=4 * P - 1, TOP..=u64::MAX);
    assert_eq!(found(0..=u64::MAX), [low.clone(), high.clone()]);
    assert_eq!(found(4 * P - 1..=4 * P), [low]);
    assert_eq!(found(u64::MAX..=u64::MAX), [high]);
    for nothing in [0..=2 * P - 1, 4 * P..=TOP - 1] {
        assert_eq!(found(nothing), []);
    }
}

#[test]
fn bus_mastering_hides_the_memory_and_gives_it_back() {
    let space = AddressSpace::new();
    space.map(with_file(0, P, &memfd(P), 0)).unwrap();
    assert!(space.memory().is_none() && space.snapshot().memory().is_none());
    space.set_bus_master(true);
    let before = space.snapshot();
    assert!(reaches(&space, 0, 8, Permissions::ReadWrite));
    space.set_bus_master(false);
    assert!(space.memory().is_none() && space.snapshot().memory().is_none());
    assert_eq!(before.memory().unwrap().len(), 1);
    space.clear();
    space.set_bus_master(true);
    assert!(space.memory().unwrap().is_empty());
}

#[test]
fn a_snapshot_outlives_the_range() {
    let space = space();
    space.map(with_file(0, P, &memfd(P), 0)).unwrap();
    let old = space.memory().unwrap();
    assert_eq!(space.unmap(0, P), 1);
    old.write_slice(&[1; 16], GuestAddress(0)).unwrap();
    assert!(!reaches(&space, 0, 1, Permissions::Read));
}

#[test]
fn the_number_of_ranges_is_bounded() {
    let space = space();
    // One after the other they would take some ten seconds.
    let all = (0..MAX_MAPPINGS as u64).map(|i| without_file(i * P, P));
    let refused = space.map_all(all.chain([without_file(TOP, P)]));
    assert!(matches!(refused[..], [(TOP, MapError::TooMany)]));
    let e = space.map(without_file(TOP, P)).unwrap_err();
    assert!(matches!(e, MapError::TooMany));
    space.unmap(0, P);
    space.map(without_file(TOP, P)).unwrap();
}

#[test]
fn of_many_ranges_at_once_those_that_cannot_be_are_left_out() {
    let space = space();
    space.map(without_file(4 * P, 2 * P)).unwrap();
    let refused = space.map_all([
        without_file(8 * P, P),
        without_file(5 * P, P),
        without_file(P, 0),
        without_file(3 * P, 2 * P),
        without_file(6 * P, 3 * P),
        without_file(TOP, P),
        without_file(0, P),
        without_file(8 * P, 2 * P),
        without_file(3 * P, P),
    ]);
    let overlapping: Vec<u64> = refused
        .iter()
        .filter_map(|(address, e)| matches!(e, MapError::Overlap(_)).then_some(*address))
        .collect();
    assert!(matches!(refused[0], (P, MapError::Empty(P))));
    assert_eq!(refused.len(), 1 + overlapping.len());
    // Of those that overlap each other, the one that begins first is there.
    assert_eq!(overlapping, [3 * P, 5 * P, 8 * P, 8 * P]);
    assert_eq!(space.all().len(), 5);
}

/// Pages at both ends of the address space, so that steps meet each other and the edges.
fn page() -> impl Strategy<Value = u64> {
    prop_oneof![0..12u64, (u64::MAX / P - 11)..=(u64::MAX / P)].prop_map(|n| n * P)
}

#[derive(Clone, Debug)]
enum Step {
    Map(u64, u64),
    Unmap(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let unmapped = prop_oneof![0..5 * P, (u64::MAX - 12 * P)..=u64::MAX];
    prop_oneof![
        3 => (page(), 1..5u64).prop_map(|(a, n)| Step::Map(a, n * P)),
        1 => (page(), unmapped).prop_map(|(a, n)| Step::Unmap(a, n)),
    ]
}

proptest! {
    /// The space behaves like a list of ranges that is searched from end to end.
    #[test]
    fn it_agrees_with_a_list(steps in prop::collection::vec(step(), 1..40)) {
        let space = space();
        let file = memfd(8 * P);
        // First and last byte, in numbers that cannot overflow.
        let mut list: Vec<(u128, u128)> = Vec::new();
        for step in steps {
            match step {
                Step::Map(address, size) => {
                    let (first, end) = (u128::from(address), u128::from(address) + u128::from(size));
                    let good = end <= 1 << 64
                        && !list.iter().any(|&(f, l)| f < end && first <= l);
                    prop_assert_eq!(space.map(with_file(address, size, &file, 0)).is_ok(), good);
                    if good {
                        list.push((first, end - 1));
                    }
                }
                Step::Unmap(address, size) => {
                    let (first, end) = (u128::from(address), u128::from(address) + u128::from(size));
                    let before = list.len();
                    list.retain(|&(f, l)| !(f < end && first <= l && size > 0));
                    prop_assert_eq!(space.unmap(address, size), before - list.len());
                }
            }
            let mem = space.memory().unwrap();
            prop_assert_eq!(mem.len(), list.len());
            for n in (0..18).chain(u64::MAX / P - 13..=u64::MAX / P) {
                for address in [n * P, n * P + (P - 1)] {
                    let a = u128::from(address);
                    let inside = list.iter().any(|&(f, l)| f <= a && a <= l);
                    let got = mem.check_range(GuestAddress(address), 1, Permissions::ReadWrite);
                    prop_assert_eq!(got, inside, "{:#x}", address);
                }
            }
        }
    }
}
