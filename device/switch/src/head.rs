// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The start of a frame: addresses and tag, read once, and written as each port has them.

use vnet_backend::{Checksum, Frame, Meta};

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

const VLAN: [u8; 2] = [0x81, 0x00];
const TAG: usize = 4;
/// Destination, source and type.
const PLAIN: usize = 14;
const TAGGED: usize = PLAIN + TAG;
const VID: u16 = 0x0fff;

/// What a switch looks at. The guest may change the frame at any time, so what is written to others
/// is this, and not what is there by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    /// Priority and number of the VLAN.
    tci: Option<u16>,
    /// The type behind the tag.
    pub(crate) kind: [u8; 2],
}

impl Head {
    /// `None`: the frame is too short to have one.
    pub(crate) fn of(frame: &Frame<'_>) -> Option<Self> {
        let mut bytes = [0; TAGGED];
        let len = frame.read(&mut bytes);
        if len < PLAIN {
            return None;
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l, t0, t1, c0, c1, k0, k1] = bytes;
        let tagged = [t0, t1] == VLAN;
        if tagged && len < TAGGED {
            return None;
        }
        Some(Self {
            to: [a, b, c, d, e, f],
            from: [g, h, i, j, k, l],
            tci: tagged.then_some(u16::from_be_bytes([c0, c1])),
            kind: match tagged {
                true => [k0, k1],
                false => [t0, t1],
            },
        })
    }

    /// True if whoever finishes the checksum of the frame leaves this alone. Else a card could have its
    /// frames get other addresses, or another VLAN, behind the switch's back.
    pub(crate) fn is_safe(&self, meta: &Meta) -> bool {
        match meta.checksum {
            Checksum::Partial { start, .. } => usize::from(start) >= self.len(),
            Checksum::Unverified | Checksum::Valid => true,
        }
    }

    /// The number in the tag.
    pub(crate) fn tag(&self) -> Option<u16> {
        self.tci.map(|tci| tci & VID)
    }

    /// Where in the frame the payload begins.
    pub(crate) fn len(&self) -> usize {
        match self.tci {
            Some(_) => TAGGED,
            None => PLAIN,
        }
    }

    /// The same with the tag of a VLAN, or without one. `None`: without it a second tag would be
    /// taken for the first, and the frame get into a VLAN that it does not belong to.
    pub(crate) fn outside(&self, tag: Option<u16>) -> Option<Self> {
        let priority = self.tci.unwrap_or(0) & !VID;
        let bare = self.tci.is_some() && tag.is_none();
        (!(bare && self.kind == VLAN)).then_some(Self {
            tci: tag.map(|vid| priority | vid),
            ..*self
        })
    }
}

/// A frame as it leaves at a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outside<'f> {
    frame: &'f Frame<'f>,
    /// How long its head was when it came in.
    skip: usize,
    head: Head,
    pub(crate) len: usize,
    pub(crate) meta: Meta,
}

impl<'f> Outside<'f> {
    /// `inside` is the head with which it came in.
    pub(crate) fn new(frame: &'f Frame<'f>, inside: &Head, outside: Head) -> Self {
        let (before, after) = (inside.len(), outside.len());
        // Frames are at least as long as their heads.
        let len = frame.len - before + after;
        Self {
            frame,
            skip: before,
            head: outside,
            len,
            meta: frame.meta.moved(before, after),
        }
    }

    /// Writes all of it; `out` has its length.
    pub(crate) fn write(&self, out: &mut [u8]) {
        let Some((head, payload)) = out.split_at_mut_checked(self.head.len()) else {
            return;
        };
        head[..6].copy_from_slice(&self.head.to);
        head[6..12].copy_from_slice(&self.head.from);
        if let Some(tci) = self.head.tci {
            head[12..14].copy_from_slice(&VLAN);
            head[14..16].copy_from_slice(&tci.to_be_bytes());
        }
        let at = head.len() - 2;
        head[at..].copy_from_slice(&self.head.kind);
        self.frame.read_at(self.skip, payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::VolatileSlice;
    use vnet_backend::{Gso, GsoKind};

    const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    fn with<R>(bytes: &[u8], meta: Meta, test: impl FnOnce(&Frame<'_>) -> R) -> R {
        let mut bytes = bytes.to_vec();
        let len = bytes.len();
        let (a, b) = bytes.split_at_mut(7.min(len));
        let parts = [VolatileSlice::from(a), VolatileSlice::from(b)];
        test(&Frame {
            meta,
            len,
            parts: &parts,
        })
    }

    fn leave(bytes: &[u8], meta: Meta, tag: Option<u16>) -> Option<(Vec<u8>, Meta)> {
        with(bytes, meta, |frame| {
            let inside = Head::of(frame)?;
            let outside = Outside::new(frame, &inside, inside.outside(tag)?);
            let mut out = vec![0; outside.len];
            outside.write(&mut out);
            Some((out, outside.meta))
        })
    }

    #[test]
    fn tags_are_put_in_taken_out_and_left() {
        let plain = [&ADDRESSES[..], &[8, 0, 1, 2, 3, 4, 5]].concat();
        let tagged = |tci: [u8; 2]| [&ADDRESSES[..], &VLAN, &tci, &[8, 0, 1, 2, 3, 4, 5]].concat();
        let meta = |start| Meta {
            checksum: Checksum::Partial { start, offset: 16 },
            gso: Some(Gso {
                kind: GsoKind::TcpV4,
                ecn: false,
                size: 1000,
                hdr_len: start + 20,
            }),
        };
        for (from, at, tag, to, then) in [
            (plain.clone(), 34, None, plain.clone(), 34),
            (plain.clone(), 34, Some(5), tagged([0, 5]), 38),
            (tagged([0xe0, 5]), 38, None, plain.clone(), 34),
            (tagged([0xe0, 5]), 38, Some(5), tagged([0xe0, 5]), 38),
            (tagged([0xe0, 0]), 38, Some(9), tagged([0xe0, 9]), 38),
        ] {
            assert_eq!(leave(&from, meta(at), tag), Some((to, meta(then))));
        }
    }

    #[test]
    fn a_second_tag_does_not_come_to_light() {
        let twice = [&ADDRESSES[..], &VLAN, &[0, 5], &VLAN, &[0, 6], &[8, 0]].concat();
        assert_eq!(leave(&twice, Meta::default(), None), None);
        let (left, _) = leave(&twice, Meta::default(), Some(5)).unwrap();
        assert_eq!(left, twice);
    }

    #[test]
    fn a_frame_that_is_too_short_has_no_head() {
        for len in 0..14 {
            with(&vec![0; len], Meta::default(), |frame| {
                assert_eq!(Head::of(frame), None);
            });
        }
        let tagged = [&ADDRESSES[..], &VLAN, &[0, 5, 8]].concat();
        with(&tagged, Meta::default(), |f| assert_eq!(Head::of(f), None));
    }
}
