// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What a backend cannot do for a frame is done here, before it gets the frame.
//!
//! A driver hands down large frames and unfinished checksums, and what lies behind the card may
//! take neither: a user-space peer without UDP segmentation, an old kernel, a second driver that
//! accepted less than the first. [`Segmenter`] stands before the backend's queue. A frame that the
//! backend takes as it is ([`Queue::offloads`]) goes through untouched; another one is cut into
//! segments, or gets its checksum, and goes on as several frames or a finished one.
//!
//! A segment is a header of its own, made here, and the guest's own buffers: the payload is not
//! copied. It is read only if the backend needs checksums.
//!
//! The frame is the guest's, and may be anything. It is cut only if its headers are what its
//! metadata says; else it is refused. The work for a frame, and that of a call for many of them, is
//! bounded by [`MAX_SEGMENTS`].
//!
//! [`Queue::offloads`]: vnet_backend::Queue::offloads

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod cursor;
mod layout;
mod plan;
mod segmenter;
mod sum;

pub use plan::MAX_SEGMENTS;
pub use segmenter::{Segmenter, Taken};
