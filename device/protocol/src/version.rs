// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What client and server agree on.

use std::io::Write;

use serde_json::{Map, Value};

use crate::fields::Fields;
use crate::inbox::MAX_FDS;
use crate::refusal::Refusal;

/// The version that is spoken. Nothing is defined that a higher minor version would add.
const MAJOR: u16 = 0;
const MINOR: u16 = 0;

/// Most bytes of data in one message that the server takes. Enough for every region of a PCI device
/// without memory of its own.
pub const MAX_DATA: u32 = 64 << 10;
/// The same for a client that does not say how many it takes.
const DEFAULT_MAX_DATA: u32 = 1 << 20;
/// Page sizes that ranges of memory may be made of.
const PAGE_SIZES: u64 = 4096;

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Most bytes of data that the client takes in one message.
    pub max_data: u32,
    /// The client may send several writes in one message.
    pub write_multiple: bool,
}

/// Reads a proposal and writes the answer to it.
///
/// The answer names no capability that the client did not name, as the specification wants it: a
/// client that proposes none has to assume the defaults, which all hold but the one for the
/// length of data. Whatever is longer than [`MAX_DATA`] does not fit a region anyway.
pub(crate) fn negotiate(
    payload: &[u8],
    max_maps: u32,
    reply: &mut Vec<u8>,
) -> Result<Negotiated, Refusal> {
    let mut fields = Fields::new(payload);
    let (major, minor) = (fields.u16()?, fields.u16()?);
    if major != MAJOR {
        return Err(Refusal::Version { major, minor });
    }
    let proposal = parse(fields.rest())?;
    let number = |name: &str| match proposal.get(name) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(n) => Ok(Some(n)),
            None => Err(Refusal::VersionData("a limit that is no number")),
        },
    };
    let max_data = match number("max_data_xfer_size")? {
        Some(n) => u32::try_from(n).unwrap_or(u32::MAX),
        None => DEFAULT_MAX_DATA,
    };
    let multiple = match proposal.get("write_multiple") {
        None => None,
        Some(Value::Bool(multiple)) => Some(*multiple),
        Some(_) => return Err(Refusal::VersionData("neither true nor false")),
    };

    let mut answer = Map::new();
    for (name, ours) in [
        ("max_msg_fds", MAX_FDS as u64),
        ("max_data_xfer_size", MAX_DATA.into()),
        ("max_dma_maps", max_maps.into()),
        ("pgsizes", PAGE_SIZES),
    ] {
        if number(name)?.is_some() {
            answer.insert(name.into(), ours.into());
        }
    }
    if multiple == Some(true) {
        answer.insert("write_multiple".into(), true.into());
    }
    let answer = serde_json::json!({ "capabilities": answer });
    reply.extend_from_slice(&MAJOR.to_ne_bytes());
    reply.extend_from_slice(&MINOR.to_ne_bytes());
    // Into memory, which does not fail.
    let _ = write!(reply, "{answer}\0");
    Ok(Negotiated {
        max_data,
        write_multiple: multiple == Some(true),
    })
}

/// The capabilities that a client proposes.
fn parse(data: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if data.is_empty() {
        return Ok(Map::new());
    }
    let Some((0, text)) = data.split_last() else {
        return Err(Refusal::VersionData("no NUL at the end"));
    };
    let Ok(Value::Object(mut data)) = serde_json::from_slice(text) else {
        return Err(Refusal::VersionData("no JSON object"));
    };
    match data.remove("capabilities") {
        None => Ok(Map::new()),
        Some(Value::Object(capabilities)) => Ok(capabilities),
        Some(_) => Err(Refusal::VersionData("capabilities that are no object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(data: &[u8]) -> Result<(Negotiated, Value), Refusal> {
        let payload = [&[0, 0, 1, 0], data].concat();
        let mut reply = Vec::new();
        let negotiated = negotiate(&payload, 32_768, &mut reply)?;
        assert_eq!(
            reply[..4],
            [0; 4],
            "major version 0, minor version not above the client's"
        );
        let (end, text) = reply[4..].split_last().unwrap();
        assert_eq!(*end, 0);
        Ok((negotiated, serde_json::from_slice(text).unwrap()))
    }

    #[test]
    fn what_qemu_proposes() {
        let data = br#"{"capabilities": {"migration": {"max_bitmap_size": 268435456,
            "pgsize": 4096}, "max_data_xfer_size": 1048576, "max_msg_fds": 16,
            "max_dma_maps": 65535, "pgsizes": 4096, "write_multiple": true}}"#;
        let (negotiated, answer) = answer(&[&data[..], &[0]].concat()).unwrap();
        assert_eq!(negotiated.max_data, 1 << 20);
        assert!(negotiated.write_multiple);
        let expected = serde_json::json!({"capabilities": {
            "max_msg_fds": 16,
            "max_data_xfer_size": MAX_DATA,
            "max_dma_maps": 32768,
            "pgsizes": 4096,
            "write_multiple": true,
        }});
        assert_eq!(answer, expected);
    }

    #[test]
    fn a_client_that_proposes_nothing_gets_the_defaults() {
        for data in [&b""[..], b"{}\0", b"{\"capabilities\":{}}\0"] {
            let (negotiated, answer) = answer(data).unwrap();
            assert_eq!(negotiated.max_data, 1 << 20);
            assert!(!negotiated.write_multiple);
            assert_eq!(answer, serde_json::json!({"capabilities": {}}));
        }
        let (_, answer) = answer(b"{\"capabilities\":{\"write_multiple\":false}}\0").unwrap();
        assert_eq!(answer, serde_json::json!({"capabilities": {}}));
    }

    #[test]
    fn what_is_unknown_is_passed_over_and_limits_may_be_large() {
        let data =
            b"{\"x\":1,\"capabilities\":{\"y\":[],\"max_data_xfer_size\":18446744073709551615}}\0";
        let (negotiated, _) = answer(data).unwrap();
        assert_eq!(negotiated.max_data, u32::MAX);
    }

    #[test]
    fn malformed_proposals() {
        let nested = [vec![b'['; 50_000], vec![0]].concat();
        for data in [
            &b"\0"[..],
            b"{}",
            b"{",
            b"{\0",
            b"null\0",
            b"[]\0",
            b"\xff\xfe\0",
            b"{}\0\0",
            b"{\"capabilities\":7}\0",
            b"{\"capabilities\":null}\0",
            b"{\"capabilities\":{\"max_msg_fds\":-1}}\0",
            b"{\"capabilities\":{\"max_data_xfer_size\":1e99}}\0",
            b"{\"capabilities\":{\"pgsizes\":\"4096\"}}\0",
            b"{\"capabilities\":{\"write_multiple\":1}}\0",
            &nested,
        ] {
            let refused = answer(data).unwrap_err();
            assert!(matches!(refused, Refusal::VersionData(_)), "{refused}");
            assert!(!refused.is_fatal());
        }
    }

    #[test]
    fn another_major_version_or_none() {
        let mut reply = Vec::new();
        let refused = negotiate(b"\x01\0\0\0{}\0", 1, &mut reply).unwrap_err();
        assert!(refused.is_fatal(), "{refused}");
        for short in 0..4 {
            let refused = negotiate(&[0; 4][..short], 1, &mut reply).unwrap_err();
            assert!(matches!(refused, Refusal::Length));
        }
    }
}
