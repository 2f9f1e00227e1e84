// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Backend: a TAP interface of the host.
