// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! A capture, from its start to its end. The file is opened here, by who wants it, and vnetd writes it.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use vnet_capture::Selection;
use vnet_control::{
    Capture as Start, CaptureEnd, CaptureState, Card, Client, ClientError, Command, OfCapture,
    OfCard,
};

use crate::args::Capture;
use crate::run::Error;
use crate::show;

/// How often to ask whether it is over.
const PERIOD: Duration = Duration::from_millis(100);

/// Does what the arguments ask for.
pub(crate) fn capture(client: &mut Client, what: &Capture, json: bool) -> Result<(), Error> {
    let (card, queue) = match what.card.split_once(':') {
        Some((card, queue)) => (card.to_owned(), Some(queue.to_owned())),
        None => (what.card.clone(), None),
    };
    let capture = |number| OfCapture {
        card: card.clone(),
        number,
    };
    let Some(path) = &what.file else {
        let call = match what.stop {
            true => Command::CaptureStop(capture(None)),
            false => Command::CaptureShow(capture(None)),
        };
        let answer = client.call(&call)?;
        return tell(answer, json, &mut io::stdout());
    };
    let start = Command::CaptureStart(Start {
        card: card.clone(),
        queue: queue.clone(),
        snaplen: what.snaplen,
        count: what.count,
        seconds: what.seconds,
    });
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    // What stands on standard output is the capture, if that is the file.
    let piped = path == Path::new("-");
    let mut answer = match piped {
        true => begin(client, &start, io::stdout().as_fd())?,
        false => {
            // Before the file is emptied, which may be that of a capture that runs, or another good one.
            refuse_second(client, capture(None))?;
            check(client, OfCard { card: card.clone() }, queue.as_deref())?;
            let file = File::create(path).map_err(|source| Error::File {
                path: path.clone(),
                source,
            })?;
            begin(client, &start, file.as_fd())?
        }
    };
    if !what.background {
        // Somebody else may end it, and begin another.
        let this = capture(state(&answer)?.number);
        while !is_over(&answer)? && !ended.load(Ordering::Relaxed) {
            sleep(PERIOD);
            answer = client.call(&Command::CaptureShow(this.clone()))?;
        }
        answer = client.call(&Command::CaptureStop(this))?;
    }
    match piped {
        true => tell(answer, json, &mut io::stderr()),
        false => tell(answer, json, &mut io::stdout()),
    }
}

fn begin(client: &mut Client, start: &Command, file: BorrowedFd<'_>) -> Result<Value, Error> {
    Ok(client.call_with_file(start, file)?)
}

fn refuse_second(client: &mut Client, of: OfCapture) -> Result<(), Error> {
    let card = of.card.clone();
    match client.call(&Command::CaptureShow(of)) {
        Ok(answer) if !is_over(&answer)? => {
            let text = format!("there is one of {card} already");
            Err(Error::Capture(text))
        }
        // There was none; or there is no such card, which is asked next.
        Ok(_) | Err(ClientError::Refused(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sees to it that there is what is to be captured.
fn check(client: &mut Client, of: OfCard, queue: Option<&str>) -> Result<(), Error> {
    let card: Card = client.ask(&Command::CardShow(of))?;
    let Some(queue) = queue else {
        return Ok(());
    };
    let selection: Selection = queue.parse().map_err(bad_queue)?;
    selection.check(card.queues).map_err(bad_queue)
}

fn bad_queue(error: impl Display) -> Error {
    Error::Capture(format!("queue: {error}"))
}

fn is_over(answer: &Value) -> Result<bool, Error> {
    Ok(state(answer)?.end.is_some())
}

fn state(answer: &Value) -> Result<CaptureState, Error> {
    let state = serde_json::from_value(answer.clone()).map_err(ClientError::Nonsense)?;
    Ok(state)
}

fn tell(answer: Value, json: bool, out: &mut dyn Write) -> Result<(), Error> {
    let state = state(&answer)?;
    match json {
        true => writeln!(out, "{answer}")?,
        false => out.write_all(show::capture(&state).as_bytes())?,
    }
    match (state.end, state.error) {
        (Some(CaptureEnd::Failed), Some(error)) => Err(Error::Capture(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use clap::Parser;
    use serde_json::json;
    use vnet_control::{Answer, Class, Error as Refusal, Greeting, Request};

    use super::*;
    use crate::args::{Args, Command as Asked};

    /// What a vnetd says that has the card nic0, with one pair.
    fn answer(request: &Request) -> Result<Value, Refusal> {
        if request.arguments["card"] != "nic0" {
            return Err(Refusal::new(Class::NoSuchCard, "there is no such card"));
        }
        match request.execute.as_str() {
            "card-show" => Ok(json!({
                "name": "nic0", "status": "serving", "socket": "", "net": "null", "queues": 1,
                "mtu-max": 9000, "sanitize": "off", "faults": 0, "link":
                {"up": true, "speed": null, "forced-down": false, "backend-up": true},
            })),
            "capture-show" => Err(Refusal::new(Class::Failed, "there is no capture")),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_slip_of_the_pen_empties_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name).display().to_string();
        let listener = UnixListener::bind(path("control")).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&Greeting::new("0").line()).unwrap();
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let request = Request::parse(line.unwrap().as_bytes()).unwrap();
                let answer = Answer::new(answer(&request), request.id);
                stream.write_all(&answer.line()).unwrap();
            }
        });
        let mut client = Client::connect(path("control").as_ref()).unwrap();
        fs::write(path("good"), "good").unwrap();
        for (card, why) in [
            ("nic9", "no such card"),
            ("nic0:tx1", "there is no tx1"),
            ("nic0:both", "such as tx0"),
        ] {
            let args = Args::try_parse_from(["vnetctl", "capture", card, &path("good")]);
            let Asked::Capture(what) = args.unwrap().command else {
                panic!("is one");
            };
            let error = capture(&mut client, &what, false).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(fs::read(path("good")).unwrap(), b"good");
        }
    }
}
