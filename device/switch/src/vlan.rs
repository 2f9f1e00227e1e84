// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Which VLANs a port is a member of (IEEE 802.1Q).

use std::fmt;
use std::str::FromStr;

/// Largest number of a VLAN; 0 and 4095 are none.
const MAX_VID: u16 = 4094;

/// The VLANs of a port: one whose frames have no tag there, and those whose frames have one.
#[derive(Clone, PartialEq, Eq)]
pub struct Vlans {
    untagged: Option<u16>,
    tagged: Box<[u64; 64]>,
}

impl Default for Vlans {
    /// A port of a switch that nobody has set up: frames without a tag are in VLAN 1, and tags are
    /// left as they are.
    fn default() -> Self {
        Self::new(Some(1), &"all".parse().unwrap_or_default())
    }
}

impl Vlans {
    /// An access port (with `untagged` alone), a trunk, or both. A VLAN that is in both has no tag.
    pub fn new(untagged: Option<Vid>, tagged: &VidSet) -> Self {
        Self {
            untagged,
            tagged: tagged.0.clone(),
        }
    }

    /// The VLAN of a frame that comes in with this tag, or without (or 0, which only has a
    /// priority). `None`: it is not let in.
    pub(crate) fn classify(&self, tag: Option<u16>) -> Option<u16> {
        match tag {
            None | Some(0) => self.untagged,
            Some(vid) if self.has_tagged(vid) => Some(vid),
            Some(_) => None,
        }
    }

    /// Whether frames of a VLAN go out here, and if so, whether with a tag.
    pub(crate) fn leaves(&self, vid: u16) -> Option<bool> {
        match self.untagged == Some(vid) {
            true => Some(false),
            false => self.has_tagged(vid).then_some(true),
        }
    }

    fn has_tagged(&self, vid: u16) -> bool {
        self.tagged
            .get(usize::from(vid / 64))
            .is_some_and(|word| word >> (vid % 64) & 1 != 0)
    }
}

impl fmt::Debug for Vlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = VidSet(self.tagged.clone());
        write!(f, "untagged {:?}, tagged {set}", self.untagged)
    }
}

/// The number of a VLAN.
pub type Vid = u16;

/// Checks the number of a VLAN.
pub fn vid(text: &str) -> Result<Vid, BadVlan> {
    match text.parse() {
        Ok(vid) if (1..=MAX_VID).contains(&vid) => Ok(vid),
        _ => Err(BadVlan(text.to_owned())),
    }
}

/// VLANs by number, written as `all`, or as numbers and ranges with `+` between: `10+20-29`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VidSet(Box<[u64; 64]>);

impl Default for VidSet {
    /// None.
    fn default() -> Self {
        Self(Box::new([0; 64]))
    }
}

/// What is not a VLAN, or a set of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadVlan(String);

impl fmt::Display for BadVlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no VLAN: numbers from 1 to 4094 are needed",
            self.0
        )
    }
}

impl std::error::Error for BadVlan {}

impl FromStr for VidSet {
    type Err = BadVlan;

    fn from_str(s: &str) -> Result<Self, BadVlan> {
        let mut set = Self::default();
        if s == "all" {
            set.add(1, MAX_VID);
            return Ok(set);
        }
        for item in s.split('+') {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (first, last) = (vid(first)?, vid(last)?);
            if first > last {
                return Err(BadVlan(item.to_owned()));
            }
            set.add(first, last);
        }
        Ok(set)
    }
}

impl VidSet {
    fn add(&mut self, first: u16, last: u16) {
        for vid in first..=last {
            self.0[usize::from(vid / 64)] |= 1 << (vid % 64);
        }
    }
}

impl fmt::Display for VidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |vid: u16| self.0[usize::from(vid / 64)] >> (vid % 64) & 1 != 0;
        if (1..=MAX_VID).all(has) {
            return f.write_str("all");
        }
        let mut between = "";
        let mut vid = 1;
        while vid <= MAX_VID {
            let first = vid;
            while vid <= MAX_VID && has(vid) {
                vid += 1;
            }
            match vid - first {
                0 => {}
                1 => write!(f, "{between}{first}")?,
                _ => write!(f, "{between}{first}-{}", vid - 1)?,
            }
            if vid > first {
                between = "+";
            }
            vid += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_they_are_read() {
        for text in ["all", "1", "10+20-29", "4094", "1-2+4-4093", "63-65"] {
            assert_eq!(text.parse::<VidSet>().unwrap().to_string(), text);
        }
        assert_eq!("3+1-2".parse::<VidSet>().unwrap().to_string(), "1-3");
        for bad in ["", "0", "4095", "9-1", "1,2", "1+", "a", "-", "1-2-3"] {
            let error = bad.parse::<VidSet>().unwrap_err().to_string();
            assert!(error.contains("is no VLAN"), "{error}");
        }
    }

    #[test]
    fn ports_let_in_and_out_what_is_theirs() {
        let trunk: VidSet = "20-29".parse().unwrap();
        let access = Vlans::new(Some(10), &VidSet::default());
        let pure = Vlans::new(None, &trunk);
        let both = Vlans::new(Some(25), &trunk);
        let open = Vlans::default();
        for (vlans, tag, vid) in [
            (&access, None, Some(10)),
            (&access, Some(0), Some(10)),
            (&access, Some(10), None),
            (&pure, None, None),
            (&pure, Some(20), Some(20)),
            (&pure, Some(30), None),
            (&both, None, Some(25)),
            (&both, Some(21), Some(21)),
            (&open, None, Some(1)),
            (&open, Some(4094), Some(4094)),
            (&open, Some(4095), None),
        ] {
            assert_eq!(vlans.classify(tag), vid, "{vlans:?} {tag:?}");
        }
        for (vlans, vid, tagged) in [
            (&access, 10, Some(false)),
            (&access, 1, None),
            (&pure, 20, Some(true)),
            (&both, 25, Some(false)),
            (&both, 26, Some(true)),
            (&open, 1, Some(false)),
            (&open, 2, Some(true)),
        ] {
            assert_eq!(vlans.leaves(vid), tagged, "{vlans:?} {vid}");
        }
    }
}
