// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What recorders are told, as another program's parser finds it in the file.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use pcap_parser::{create_reader, Block, PcapBlockOwned, PcapError, PcapNGOption};
use vm_memory::VolatileSlice;
use vnet_backend::{Checksum, Frame, Gso, GsoKind, Meta};
use vnet_capture::{
    now, BadCapture, Bell, Capture, Comment, Config, End, Event, Recorder, Selection, Status, What,
    WHOLE,
};
use vnet_contract::hdr::{FlowHash, HASH_TCPV4};

const LONG: Duration = Duration::from_secs(20);

fn config() -> Config {
    Config {
        card: "nic0".into(),
        mac: Some([2, 0, 0, 0, 0, 1]),
        pairs: 2,
        selection: Selection::default(),
        snaplen: WHOLE,
        count: None,
        time: None,
    }
}

/// Tells of a batch of frames with these bytes, which were sent.
fn send(recorder: &mut Recorder, frames: &mut [Vec<u8>], meta: Meta) {
    recorder.begin();
    recorder.lend();
    recorder.returned();
    for (n, bytes) in frames.iter_mut().enumerate() {
        let len = bytes.len();
        let parts = [VolatileSlice::from(&mut bytes[..])];
        let frame = Frame {
            meta,
            len,
            parts: &parts,
        };
        if recorder.sent(&frame) {
            recorder.chain(n as u16, false);
            recorder.descriptor(len as u32);
        }
    }
    recorder.shown(false);
    recorder.settle(true);
}

/// A packet of a file.
#[derive(Debug)]
struct Found {
    interface: u32,
    time: u64,
    bytes: Vec<u8>,
    len: u32,
    options: Vec<(u16, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct Contents {
    interfaces: Vec<String>,
    packets: Vec<Found>,
    /// Frames seen and dropped, by interface.
    statistics: Vec<(u64, u64)>,
}

impl Found {
    fn option(&self, code: u16) -> &[u8] {
        let found = self.options.iter().find(|(c, _)| *c == code);
        found.map_or(&[], |(_, value)| value)
    }

    fn comment(&self) -> Comment<'_> {
        let text = std::str::from_utf8(self.option(1)).unwrap();
        Comment::parse(text).unwrap_or_else(|| panic!("{text}"))
    }
}

fn read(file: impl io::Read + Send) -> Contents {
    let owned = |options: &[PcapNGOption<'_>]| -> Vec<(u16, Vec<u8>)> {
        let all = options.iter();
        all.map(|o| (o.code.0, o.value[..usize::from(o.len)].to_vec()))
            .collect()
    };
    let number = |options: &[(u16, Vec<u8>)], code: u16| {
        let value = options.iter().find(|(c, _)| *c == code).unwrap();
        u64::from_ne_bytes(value.1[..].try_into().unwrap())
    };
    let mut contents = Contents::default();
    let mut reader = create_reader(1 << 20, file).unwrap();
    loop {
        match reader.next() {
            Ok((len, PcapBlockOwned::NG(block))) => {
                match &block {
                    Block::InterfaceDescription(interface) => {
                        assert_eq!(interface.if_tsresol, 9);
                        let options = owned(&interface.options);
                        let name = options.iter().find(|(c, _)| *c == 2).unwrap();
                        let name = String::from_utf8(name.1.clone()).unwrap();
                        contents.interfaces.push(name);
                    }
                    Block::EnhancedPacket(packet) => contents.packets.push(Found {
                        interface: packet.if_id,
                        time: u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low),
                        bytes: packet.data[..packet.caplen as usize].to_vec(),
                        len: packet.origlen,
                        options: owned(&packet.options),
                    }),
                    Block::InterfaceStatistics(statistics) => {
                        let options = owned(&statistics.options);
                        let pair = (number(&options, 4), number(&options, 5));
                        contents.statistics.push(pair);
                    }
                    _ => {}
                }
                reader.consume(len);
            }
            Err(PcapError::Eof) => return contents,
            Err(PcapError::Incomplete(_)) => reader.refill().unwrap(),
            other => panic!("{:?}", other.map(|_| ())),
        }
    }
}

#[test]
fn a_frame_is_in_the_file_with_all_that_is_known_of_it() {
    let path = tempfile::NamedTempFile::new().unwrap();
    let capture = Capture::start(config(), path.reopen().unwrap()).unwrap();
    let bell = Bell::default();
    bell.ring();
    let mut tx = capture.recorder(3, &bell).unwrap();
    bell.ring();
    let meta = Meta {
        checksum: Checksum::Partial {
            start: 34,
            offset: 16,
        },
        gso: Some(Gso {
            kind: GsoKind::TcpV4,
            ecn: false,
            size: 1448,
            hdr_len: 54,
        }),
    };
    let before = std::time::SystemTime::now();
    send(&mut tx, &mut [vec![0xaa; 65_000], vec![0xbb; 60]], meta);

    let mut rx = capture.recorder(0, &Bell::default()).unwrap();
    rx.begin();
    let hash = FlowHash {
        value: 0x0102_0304,
        report: HASH_TCPV4,
    };
    let (mut head, mut rest) = (vec![1; 54], vec![2; 100]);
    let parts = [VolatileSlice::from(&mut rest[..])];
    let frame = Frame {
        meta: Meta::default(),
        len: 154,
        parts: &parts,
    };
    assert!(rx.received(Some(VolatileSlice::from(&mut head[..])), &frame, hash));
    rx.chain(9, true);
    assert!((0..30).all(|_| rx.descriptor(256)));
    rx.shown(false);
    rx.settle(false);
    capture.event(Event {
        time: now(),
        queue: Some(0),
        what: What::Finding,
        text: "chain-loop: it has no end".into(),
    });
    drop((tx, rx));
    assert!(capture.stop(LONG));
    let status = capture.status();
    assert_eq!((status.frames, status.end), (3, Some(End::Stopped)));
    assert_eq!(status.bytes, path.as_file().metadata().unwrap().len());

    let found = read(path.reopen().unwrap());
    let names = [
        "nic0:rx0",
        "nic0:tx0",
        "nic0:rx1",
        "nic0:tx1",
        "nic0:events",
    ];
    assert_eq!(found.interfaces, names);
    assert_eq!(found.statistics, [(1, 0), (0, 0), (0, 0), (2, 0)]);
    assert!(found.packets.is_sorted_by_key(|packet| packet.time));
    let [long, short, received, event] = &found.packets[..] else {
        panic!("{} packets", found.packets.len());
    };
    assert_eq!((long.interface, long.len), (3, 65_000));
    assert_eq!(long.bytes, vec![0xaa; 65_000]);
    // Outbound, the second frame of queue 3, pair 1.
    assert_eq!(short.option(2), 2u32.to_ne_bytes());
    assert_eq!(short.option(5), (3u64 << 48 | 2).to_ne_bytes());
    assert_eq!(short.option(6), 1u32.to_ne_bytes());
    let since = Duration::from_nanos(long.time);
    let before = before.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(since + Duration::from_secs(1) > before && since < before + LONG);
    let comment = long.comment();
    assert_eq!((comment.queue, &comment.heads[..]), ("tx1", &[0][..]));
    // All stages, in order, from the doorbell on; the frame's time is that of the backend.
    let stages: Vec<i64> = comment.stages.iter().map(|s| s.unwrap()).collect();
    assert!(stages.is_sorted() && stages[2] == 0, "{stages:?}");
    let text = std::str::from_utf8(long.option(1)).unwrap();
    for part in [" chain=0:65000 ", " csum=34+16 ", " gso=tcpv4:1448 "] {
        assert!(text.contains(part), "{text}");
    }

    assert_eq!((received.interface, received.len), (0, 154));
    assert_eq!(received.bytes, [vec![1; 54], vec![2; 100]].concat());
    assert_eq!(received.option(2), 1u32.to_ne_bytes());
    let hash = [&[5][..], &hash.value.to_ne_bytes()].concat();
    assert_eq!(received.option(3), hash);
    let stages = received.comment().stages;
    assert_eq!((stages[0], stages[3], stages[5]), (None, Some(0), None));
    let text = std::str::from_utf8(received.option(1)).unwrap();
    assert!(text.contains("+6more ") && text.contains(" hash=tcpv4:0x01020304 "));

    assert_eq!(event.interface, 4);
    let due = "vnet event=finding queue=rx0 chain-loop: it has no end";
    assert_eq!(event.bytes, due.as_bytes());
}

#[test]
fn a_capture_ends_when_it_has_what_was_wanted() {
    for (count, snaplen, time) in [(Some(3), 20, None), (None, 20, Some(Duration::ZERO))] {
        let path = tempfile::NamedTempFile::new().unwrap();
        let wanted = Config {
            count,
            snaplen,
            time,
            selection: "tx0".parse().unwrap(),
            ..config()
        };
        let capture = Capture::start(wanted, path.reopen().unwrap()).unwrap();
        assert!(capture.recorder(0, &Bell::default()).is_none());
        let tx = capture.recorder(1, &Bell::default());
        if let (Some(mut tx), true) = (tx, time.is_none()) {
            send(&mut tx, &mut vec![vec![7; 60]; 5], Meta::default());
        }
        let start = Instant::now();
        while capture.status().end.is_none() {
            assert!(start.elapsed() < LONG);
            std::thread::sleep(Duration::from_millis(1));
        }
        let found = read(path.reopen().unwrap());
        assert_eq!(found.interfaces, ["nic0:tx0"]);
        match count {
            Some(count) => assert_eq!(found.packets.len() as u64, count),
            None => assert_eq!(capture.status().end, Some(End::Time)),
        }
        // What is not in the file is counted, in both places.
        let seen = capture.status().queues[0].seen;
        let dropped = seen - found.packets.len() as u64;
        assert_eq!(capture.status().queues[0].dropped, dropped);
        assert_eq!(found.statistics, [(seen, dropped)]);
        for packet in found.packets {
            assert_eq!((packet.bytes.len(), packet.len), (20, 60));
        }
        assert!(capture.recorder(1, &Bell::default()).is_none());
    }
}

#[test]
fn who_does_not_read_loses_frames_and_holds_nobody_up() {
    let (reader, writer) = io::pipe().unwrap();
    let file = File::from(OwnedFd::from(writer));
    let capture = Capture::start(config(), file).unwrap();
    let mut tx = capture.recorder(1, &Bell::default()).unwrap();
    let mut frames = vec![vec![1; 65_000]; 10];
    for _ in 0..200 {
        send(&mut tx, &mut frames, Meta::default());
    }
    let queue = capture.status().queues[1];
    // Of 130 MB.
    assert_eq!(queue.seen, 2000);
    assert!((1000..1990).contains(&queue.dropped), "{queue:?}");
    drop(tx);
    assert!(!capture.stop(Duration::from_millis(10)), "nobody has read");
    let found = read(reader);
    assert!(capture.stop(LONG));
    assert_eq!(found.packets.len() as u64, 2000 - queue.dropped);
    assert_eq!(found.statistics[1], (2000, queue.dropped));
}

/// What waits when its time is over gets there all the same.
#[test]
fn who_reads_late_misses_nothing_that_there_was_room_for() {
    let (reader, writer) = io::pipe().unwrap();
    let file = File::from(OwnedFd::from(writer));
    let time = Some(Duration::from_millis(50));
    let capture = Capture::start(Config { time, ..config() }, file).unwrap();
    let mut tx = capture.recorder(1, &Bell::default()).unwrap();
    for _ in 0..20 {
        send(&mut tx, &mut vec![vec![1; 65_000]; 10], Meta::default());
    }
    std::thread::sleep(Duration::from_millis(100));
    let found = read(reader);
    assert_eq!(found.packets.len(), 200);
    assert_eq!(found.statistics[1], (200, 0));
    assert_eq!(capture.status().end, Some(End::Time));
}

#[test]
fn a_frame_says_how_many_are_missing_before_it() {
    let (reader, writer) = io::pipe().unwrap();
    let file = File::from(OwnedFd::from(writer));
    let capture = Capture::start(config(), file).unwrap();
    let mut tx = capture.recorder(1, &Bell::default()).unwrap();
    let mut frames = vec![vec![1; 65_000]; 10];
    while capture.status().queues[1].dropped == 0 {
        send(&mut tx, &mut frames, Meta::default());
    }
    let reading = std::thread::spawn(move || read(reader));
    // There is room again, sooner or later.
    let start = Instant::now();
    loop {
        let before = capture.status().queues[1];
        send(&mut tx, &mut [vec![9; 60]], Meta::default());
        if capture.status().queues[1].dropped == before.dropped {
            break;
        }
        assert!(start.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(tx);
    assert!(capture.stop(LONG));
    let dropped = capture.status().queues[1].dropped;
    let found = reading.join().unwrap();
    let told = found.packets.iter().map(|packet| match packet.option(4) {
        [] => 0,
        value => u64::from_ne_bytes(value.try_into().unwrap()),
    });
    assert_eq!(told.sum::<u64>(), dropped);
}

#[test]
fn a_file_that_cannot_be_written_is_told_of() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let Err(BadCapture::File(error)) = Capture::start(config(), full) else {
        panic!("it can");
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);

    let (reader, writer) = io::pipe().unwrap();
    let capture = Capture::start(config(), File::from(OwnedFd::from(writer))).unwrap();
    let mut tx = capture.recorder(1, &Bell::default()).unwrap();
    drop(reader);
    let start = Instant::now();
    while capture.status().end.is_none() {
        assert!(start.elapsed() < LONG);
        send(&mut tx, &mut [vec![1; 60]], Meta::default());
        std::thread::sleep(Duration::from_millis(1));
    }
    let Status {
        end,
        frames,
        queues,
        ..
    } = capture.status();
    assert!(matches!(end, Some(End::Failed(text)) if text.contains("pipe")));
    assert_eq!(queues[1].seen - queues[1].dropped, frames);
    // From then on nothing is kept.
    assert!(!tx.sent(&Frame {
        meta: Meta::default(),
        len: 60,
        parts: &[]
    }));
}
