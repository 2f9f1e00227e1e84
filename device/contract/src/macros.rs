// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Macros that define a constant and list it in one go.

/// Constants of any integer type, and the list of them.
macro_rules! constants {
    ($(#[$list_doc:meta])* $list:ident; $($(#[$doc:meta])* $name:ident: $ty:ty = $value:expr;)*) => {
        $($(#[$doc])* pub const $name: $ty = $value;)*

        $(#[$list_doc])*
        pub const $list: &[super::Constant] = &[
            $(super::Constant { name: stringify!($name), value: $name as u64 },)*
        ];
    };
}

/// The list of the members of a structure: name, offset in bytes and width in bits.
macro_rules! members {
    ($(#[$list_doc:meta])* $list:ident; $($name:ident @ $offset:expr, $width:literal;)*) => {
        $(#[$list_doc])*
        pub const $list: &[super::Member] = &[
            $(super::Member { name: stringify!($name), offset: $offset, width: $width },)*
        ];
    };
}
