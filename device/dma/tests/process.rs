// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What belongs to the process is shared by the cards, and never all taken. A program of its own, since
//! it takes all that there is.

use std::fs::File;

use rustix::fs::{ftruncate, memfd_create, MemfdFlags};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use vnet_dma::{AddressSpace, MapError, Mapping, MAX_MAPPINGS, PAGE_SIZE};

fn memfd(pages: u64) -> File {
    let fd = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, pages * PAGE_SIZE).unwrap();
    fd.into()
}

fn page(address: u64, file: &File, offset: u64) -> Mapping {
    Mapping {
        address,
        size: PAGE_SIZE,
        file: Some(file.try_clone().unwrap()),
        offset,
        read: true,
        write: true,
    }
}

/// As many pages as a card can have, in memory areas of their own: the next one never goes on where
/// the last one ends. Returns how many there were.
fn fill(space: &AddressSpace, file: &File) -> usize {
    let pages = (0..MAX_MAPPINGS as u64).map(|n| page(n * PAGE_SIZE, file, 2 * n * PAGE_SIZE));
    let refused = space.map_all(pages);
    assert!(refused.iter().all(|(_, e)| matches!(e, MapError::TooMany)));
    MAX_MAPPINGS - refused.len()
}

/// Both in one, as both are about all of the process.
#[test]
fn clients_cannot_use_up_what_is_the_process_s() {
    let file = memfd(2 * MAX_MAPPINGS as u64);
    let [first, second, third] = [(); 3].map(|()| AddressSpace::new());
    assert_eq!(fill(&first, &file), MAX_MAPPINGS);
    assert_eq!(fill(&second, &file), MAX_MAPPINGS / 2);
    assert_eq!(fill(&third, &file), 0);
    // What is not shared takes an area when it is looked into, which is too late to say no.
    let unshared = || Mapping {
        file: None,
        ..page(0, &file, 0)
    };
    assert!(matches!(third.map(unshared()), Err(MapError::TooMany)));
    // There is some left for others.
    std::thread::spawn(|| ()).join().unwrap();
    // And for those who come after.
    first.clear();
    third.map(unshared()).unwrap();
    assert_eq!(fill(&first, &file), MAX_MAPPINGS - 1);
    first.clear();
    third.clear();
    assert_eq!(fill(&third, &file), MAX_MAPPINGS);
    drop((second, third));
    assert_eq!(fill(&first, &file), MAX_MAPPINGS);
    first.clear();

    // What somebody still looks at is the card's, as before.
    assert_eq!(fill(&first, &file), MAX_MAPPINGS);
    let old = first.all();
    first.clear();
    assert_eq!(fill(&first, &file), 0);
    drop(old);
    assert_eq!(fill(&first, &file), MAX_MAPPINGS);
    first.clear();

    // Nor the addresses: all that a card can get, in halves, down to a page.
    let large = memfd(1 << 34);
    let fill = |space: &AddressSpace| {
        let mut address = 0;
        for size in (12..47).rev().map(|n| 1 << n) {
            let range = |address| Mapping {
                size,
                ..page(address, &large, 0)
            };
            let refused = loop {
                match space.map(range(address)) {
                    Ok(()) => address += size,
                    Err(e) => break e,
                }
            };
            assert!(matches!(refused, MapError::TooMany), "{refused}");
        }
        address
    };
    let cards = [(); 4].map(|()| AddressSpace::new());
    assert_eq!(cards.each_ref().map(fill), [1 << 44; 4]);
    assert_eq!(fill(&first), 0);
    std::thread::spawn(|| ()).join().unwrap();
    cards[0].clear();
    first.map(page(0, &large, 0)).unwrap();
    first.clear();
    drop(cards);

    let before = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(200),
        ..before
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let files = |space: &AddressSpace| {
        let more = (0..100).map(|n| page(n * PAGE_SIZE, &memfd(1), 0));
        let refused = more
            .filter_map(|page| space.map(page).err())
            .inspect(|e| assert!(matches!(e, MapError::TooManyFiles(_)), "{e}"));
        100 - refused.count()
    };
    let [one, other] = [(); 2].map(|()| AddressSpace::new());
    for n in 0..70 {
        one.map(page(n * PAGE_SIZE, &memfd(1), 0)).unwrap();
    }
    assert_eq!(files(&other), 30);
    one.clear();
    other.clear();
    assert_eq!(files(&one), 100);
    setrlimit(Resource::Nofile, before).unwrap();
}
