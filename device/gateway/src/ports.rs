// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The ports of the gateway's services.

/// TCP and UDP: returns what it gets (RFC 862).
pub const ECHO: u16 = 7;
/// TCP and UDP: swallows what it gets (RFC 863).
pub const DISCARD: u16 = 9;
/// TCP: sends lines of characters until the client leaves; UDP: a datagram of them for each that
/// it gets (RFC 864).
pub const CHARGEN: u16 = 19;
/// UDP: name server.
pub const DNS: u16 = 53;
/// UDP: DHCP server.
pub const DHCP_SERVER: u16 = 67;
/// UDP: DHCP client.
pub const DHCP_CLIENT: u16 = 68;
/// TCP: a page about the card.
pub const HTTP: u16 = 80;
/// TCP: counts and digests what it gets.
pub const SINK: u16 = 5001;
/// TCP: sends as many bytes as it is asked for.
pub const SOURCE: u16 = 5002;

/// True for UDP ports where something answers every datagram: an answer to such a port could go
/// back and forth for ever.
pub(crate) fn answers_by_itself(port: u16) -> bool {
    matches!(port, 0 | ECHO | CHARGEN | DNS)
}
