// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The card: registers, queues, interrupts and link, composed.
