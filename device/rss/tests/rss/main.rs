// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Hash, flows and rules, against published values and a reference.

mod flows;
mod frames;
mod rules;
mod vectors;
