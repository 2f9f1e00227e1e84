// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What is sent to the control socket.

use vnet_control::{Class, Command, Request, COMMANDS};

/// A line. If it is a command, it is the same when it is said again in our words; if it is none, it is
/// said why.
pub fn control(data: &[u8]) {
    let request = match Request::parse(data) {
        Ok(request) => request,
        Err(e) => return assert_eq!(e.class, Class::BadRequest),
    };
    match request.command() {
        Ok(command) => {
            assert!(COMMANDS.contains(&request.execute.as_str()));
            assert_eq!(again(&command), command);
        }
        Err(e) => match COMMANDS.contains(&request.execute.as_str()) {
            true => assert_eq!(e.class, Class::BadArgument),
            false => assert_eq!(e.class, Class::UnknownCommand),
        },
    }
}

fn again(command: &Command) -> Command {
    let line = serde_json::to_vec(&Request::from(command)).expect("a line");
    let request = Request::parse(&line).expect("as it was");
    request.command().expect("as it was")
}
