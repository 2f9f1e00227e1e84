// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What the header of a frame says of it.

use super::*;

#[test]
fn headers() {
    let (good, frame) = datagram(3000);
    let segmented = NetHdr {
        gso_type: GSO_UDP_L4,
        gso_size: 1000,
        hdr_len: 42,
        ..good
    };
    // Those that stop the queue, and those that do not.
    let cases = [
        (
            "header-flags",
            ["flags 0x2", "none that is not defined for transmit"],
            true,
            NetHdr {
                flags: F_DATA_VALID,
                ..good
            },
        ),
        (
            "header-flags",
            ["gso_type 0x9", "a type that is defined"],
            true,
            NetHdr {
                gso_type: 9,
                ..segmented
            },
        ),
        (
            "header-checksum",
            [
                "csum_start 13, csum_offset 6",
                "within a frame of 3042 bytes",
            ],
            true,
            NetHdr {
                csum_start: 13,
                ..good
            },
        ),
        (
            "header-checksum",
            [
                "csum_start 3041, csum_offset 6",
                "within a frame of 3042 bytes",
            ],
            true,
            NetHdr {
                csum_start: 3041,
                ..good
            },
        ),
        (
            "header-checksum",
            [
                "csum_start 34, csum_offset 16, on UDP over IPv4 at 34",
                "csum_start 34, csum_offset 6",
            ],
            false,
            NetHdr {
                csum_offset: 16,
                ..good
            },
        ),
        (
            "header-segmentation",
            [
                "flags 0x1, gso_size 0",
                "F_NEEDS_CSUM and a size that is not zero",
            ],
            true,
            NetHdr {
                gso_size: 0,
                ..segmented
            },
        ),
        (
            "header-segmentation",
            ["hdr_len 41", "42 to 3042"],
            true,
            NetHdr {
                hdr_len: 41,
                ..segmented
            },
        ),
        (
            "header-segmentation",
            ["hdr_len 4000", "42 to 3042"],
            true,
            NetHdr {
                hdr_len: 4000,
                ..segmented
            },
        ),
        (
            "header-segmentation",
            [
                "gso_type 1, csum_start 34, on UDP over IPv4 at 34",
                "what the frame is",
            ],
            false,
            NetHdr {
                gso_type: GSO_TCPV4,
                hdr_len: 54,
                ..segmented
            },
        ),
    ];
    for (rule, told, stops, header) in cases {
        breaks(rule, "Queue 3, descriptor 9", told, "null", |server| {
            let mut bench = Bench::new(server);
            bench.start(TX, NO_VECTOR);
            if stops {
                bench.packet(FIRST, header, &frame);
                bench.offer_bad(TX, FIRST);
            } else {
                bench.send(header, &frame);
            }
        });
    }
    breaks(
        "header-checksum",
        "Queue 3, descriptor 9",
        [
            "0x1ed4 where the checksum goes, on UDP over IPv4 at 34",
            "0x1fd4, the sum of the pseudo header",
        ],
        "null",
        |server| {
            let mut bench = Bench::new(server);
            bench.start(TX, NO_VECTOR);
            let mut frame = frame.clone();
            frame[40] ^= 1;
            bench.send(good, &frame);
        },
    );
}
