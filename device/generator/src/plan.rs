// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Which frame is the one of a number.

use vnet_backend::mix;

use crate::config::{Config, Protocol};
use crate::frame;

/// A frame that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) protocol: Protocol,
    /// Length of the frame.
    pub(crate) len: usize,
    /// Which flow it belongs to.
    pub(crate) flow: u16,
    /// Length of the header of IP.
    pub(crate) network: usize,
}

/// The frame of this number. Depends on the configuration alone.
pub(crate) fn frame(config: &Config, number: u64) -> Planned {
    let seed = mix(config.seed);
    let random = |kind: u64| mix(seed ^ mix(number.wrapping_mul(4).wrapping_add(kind)));
    let protocol = config.traffic.pick(random(0));
    let sizes = config.size.pick(random(1));
    let span = u64::from(sizes.max - sizes.min) + 1;
    let len = usize::from(sizes.min) + (random(2) % span) as usize;
    let flow = (random(3) % u64::from(config.flows.max(1))) as u16;
    let network = frame::network_len(config.to);
    Planned {
        protocol,
        len: match protocol {
            Protocol::Arp => frame::neighbour_len(config.to),
            _ => frame::len(protocol, len, network),
        },
        flow,
        network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(config: &str, count: u64) -> Vec<Planned> {
        let config = config.parse().unwrap();
        (0..count).map(|n| frame(&config, n)).collect()
    }

    #[test]
    fn the_same_seed_is_the_same_frames() {
        let text = "traffic=icmp+udp+tcp,size=60-1514,flows=100,seed=";
        let one = frames(&format!("{text}1"), 1000);
        assert_eq!(one, frames(&format!("{text}1"), 1000));
        assert_ne!(one, frames(&format!("{text}2"), 1000));
    }

    #[test]
    fn shares_are_kept_and_are_independent() {
        let all = frames(
            "traffic=icmp+udpx3,size=60x3+100-199,flows=4,seed=5",
            100_000,
        );
        let share = |is: fn(&Planned) -> bool| all.iter().filter(|f| is(f)).count() as f64 / 1e5;
        for (found, due) in [
            (share(|f| f.protocol == Protocol::Icmp), 0.25),
            (share(|f| f.len == 60), 0.75),
            (share(|f| f.len == 199), 0.0025),
            (share(|f| f.flow == 3), 0.25),
            (
                share(|f| f.flow == 0 && f.protocol == Protocol::Icmp),
                0.0625,
            ),
            (
                share(|f| f.len > 60 && f.protocol == Protocol::Icmp),
                0.0625,
            ),
        ] {
            // Five standard deviations.
            let deviation = 5.0 * (due * (1.0 - due) / 1e5_f64).sqrt();
            assert!((found - due).abs() < deviation, "{found} {due}");
        }
        assert!(all
            .iter()
            .all(|f| f.len == 60 || (100..200).contains(&f.len)));
    }
}
