// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The queue engine: split rings to frames and back.
