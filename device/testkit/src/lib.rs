// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A userspace driver and guest memory for tests.
