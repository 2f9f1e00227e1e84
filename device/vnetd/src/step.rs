// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Pausing queues, and having them go on a step at a time.

use tracing::{info, Span};
use vnet_card::{Operator, Refused, Work};
use vnet_contract::queue::{kind, rx_index, tx_index, Kind};
use vnet_control::{Class, Error, OfQueue, Paused, PausedQueue, Stepped};

use crate::card::Served;
use crate::words;

/// The name of a queue: that of its direction and the number of its pair.
pub(crate) fn name(queue: u16) -> String {
    let direction = match kind(queue) {
        Kind::Rx => "rx",
        Kind::Tx => "tx",
    };
    format!("{direction}{}", queue / 2)
}

/// The queue of this name.
fn parse(text: &str) -> Option<u16> {
    let (direction, pair) = text.split_at_checked(2)?;
    let pair: u16 = pair.parse().ok().filter(|&pair| pair < 0x4000)?;
    match direction {
        "rx" => Some(rx_index(pair)),
        "tx" => Some(tx_index(pair)),
        _ => None,
    }
}

/// The queues that are meant: one, or all.
fn chosen(operator: &Operator, of: &OfQueue) -> Result<Vec<u16>, Error> {
    let count = operator.queue_count();
    let Some(text) = &of.queue else {
        return Ok((0..count).collect());
    };
    let queue = parse(text).filter(|&queue| queue < count && name(queue) == *text);
    queue.map(|queue| vec![queue]).ok_or_else(|| {
        let last = count / 2 - 1;
        let text = text.escape_debug();
        let desc = format!("queue: there is no {text}; there are rx0, tx0 and so on to tx{last}");
        Error::new(Class::BadArgument, desc)
    })
}

/// A card as somebody sees it who may have to wait for its queues.
pub(crate) struct Subject {
    card: String,
    net: String,
    operator: Operator,
    span: Span,
}

impl From<&Served> for Subject {
    fn from(card: &Served) -> Self {
        Self {
            card: card.name.to_string(),
            net: card.net().to_string(),
            operator: card.operator.clone(),
            span: card.span(),
        }
    }
}

/// Has queues wait.
pub(crate) fn pause(card: &Subject, of: &OfQueue) -> Result<Paused, Error> {
    for queue in chosen(&card.operator, of)? {
        card.operator.pause(queue);
    }
    Ok(log(card))
}

/// Lets queues run again.
pub(crate) fn resume(card: &Subject, of: &OfQueue) -> Result<Paused, Error> {
    for queue in chosen(&card.operator, of)? {
        if card.operator.is_paused(queue) {
            card.operator.resume(queue);
        }
    }
    Ok(log(card))
}

/// Says in the log what is paused: whoever wonders why a guest has no network looks there.
fn log(card: &Subject) -> Paused {
    let _span = card.span.enter();
    let paused = paused(card);
    let names: Vec<_> = paused.queues.iter().map(|q| q.queue.as_str()).collect();
    match names.is_empty() {
        true => info!("no queue is paused"),
        false => info!("paused: {}", names.join(", ")),
    }
    paused
}

/// What is paused.
fn paused(card: &Subject) -> Paused {
    let operator = &card.operator;
    let queues = (0..operator.queue_count()).filter(|&queue| operator.is_paused(queue));
    let queues = queues.map(|queue| PausedQueue {
        queue: name(queue),
        next: operator
            .next_step(queue)
            .map(|next| words::next(next, kind(queue), &card.net)),
    });
    Paused {
        card: card.card.clone(),
        queues: queues.collect(),
    }
}

/// Does one step: with the queue that is named, or with the one that has most to do.
pub(crate) fn step(card: &Subject, of: &OfQueue) -> Result<Stepped, Error> {
    let operator = &card.operator;
    let mut queues = chosen(operator, of)?;
    if queues.len() > 1 {
        queues.retain(|&queue| operator.is_paused(queue));
        // A frame that is sent may be answered by one that is received.
        queues.sort_by_key(|&queue| (queue / 2, kind(queue) == Kind::Rx));
    }
    let mut best: Option<(Option<Work>, u16)> = None;
    for &queue in &queues {
        let work = operator.work(queue);
        if best.is_none_or(|(most, _)| work > most) {
            best = Some((work, queue));
        }
    }
    let Some((_, queue)) = best else {
        let desc = "no queue is paused; card-pause does that";
        return Err(Error::new(Class::Failed, desc));
    };
    let name = name(queue);
    let step = operator.step(queue).map_err(|refused| {
        let desc = match refused {
            Refused::NotPaused => "is not paused; card-pause does that",
            Refused::NotRunning => "does not run: the driver has not started it, or it has failed",
            Refused::Broken => "is not served: the backend has failed; a reset heals it",
            Refused::NoMemory => "cannot be served: the guest lets the card access no memory",
            Refused::Unshared => {
                "is in memory that is not shared with vnetd, and cannot be stepped; resume it"
            }
            Refused::Survives => "is kept for another process, and cannot be stepped",
        };
        Error::new(Class::Failed, format!("{name} {desc}"))
    })?;
    Ok(Stepped {
        card: card.card.clone(),
        queue: name,
        did: words::did(&step.did, kind(queue), &card.net),
        next: step
            .next
            .map(|next| words::next(next, kind(queue), &card.net)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_have_names() {
        for (queue, text) in [(0, "rx0"), (1, "tx0"), (31, "tx15")] {
            assert_eq!((name(queue).as_str(), parse(text)), (text, Some(queue)));
        }
        for bad in ["", "rx", "tx-1", "0", "ré0", "rx99999", "ax0"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
