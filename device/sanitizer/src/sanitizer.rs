// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What is found, and what the watchers of the queues have in common.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use vnet_contract::pci::MAX_QUEUE_PAIRS;
use vnet_state::Board;

use crate::buffers::Buffers;
use crate::life::Life;
use crate::taken::Taken;
use crate::{Finding, Listener, Rule};

/// Findings of a rule that are kept of a session; more are counted only.
pub const KEPT: usize = 4;

/// What one rule's findings are.
#[derive(Clone, Debug, Default)]
pub struct Count {
    /// How many there were.
    pub total: u64,
    /// The first of the session that broke the rule last, [`KEPT`] at most.
    pub first: Vec<Finding>,
    /// That session is over, or was of another process.
    over: bool,
}

/// All findings so far, by rule.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    counts: Vec<(Rule, Count)>,
}

impl Findings {
    /// Findings of all rules.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count.total).sum()
    }

    /// The rules that were broken, in the order in which that was found, with what was found.
    pub fn by_rule(&self) -> impl Iterator<Item = (Rule, &Count)> {
        self.counts.iter().map(|(rule, count)| (*rule, count))
    }

    /// Adds a finding; returns which of the rules it is about, and whether it is one that is kept.
    fn add(&mut self, finding: &Finding) -> (usize, bool) {
        let rule = finding.rule;
        let index = match self.counts.iter().position(|(r, _)| *r == rule) {
            Some(index) => index,
            None => {
                self.counts.push((rule, Count::default()));
                self.counts.len() - 1
            }
        };
        let count = &mut self.counts[index].1;
        count.total += 1;
        if std::mem::take(&mut count.over) {
            count.first.clear();
        }
        let kept = count.first.len() < KEPT;
        if kept {
            count.first.push(finding.clone());
        }
        (index, kept)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.total() {
            0 => return f.write_str("sanitizer: no rule was broken"),
            total => write!(
                f,
                "sanitizer: {} rules were broken, {total} times in all",
                self.counts.len()
            )?,
        }
        for (rule, count) in self.by_rule() {
            write!(f, "\nsanitizer: {rule}, {} times", count.total)?;
            if let Some(first) = count.first.first() {
                write!(f, ", first: {first}")?;
            }
        }
        Ok(())
    }
}

/// What a card knows of its driver's mistakes. Everybody who finds one holds it: the message
/// thread and the observers of the queues.
#[derive(Debug)]
pub struct Sanitizer {
    /// How long a driver that is alive may neglect something before it counts as never.
    patience: Duration,
    findings: Mutex<Findings>,
    /// Where findings outlive the process.
    board: OnceLock<Board>,
    /// Findings that wait to be logged.
    news: Mutex<Vec<Finding>>,
    listener: Mutex<Option<Arc<Listener>>>,
    /// Signs of life: whatever the guest does.
    signs: AtomicU64,
    life: Mutex<Life>,
    taken: Mutex<Taken>,
    buffers: Mutex<Buffers>,
    /// By pair: whoever polls it has gone to sleep, as far as the receive queue tells.
    asleep: [AtomicBool; MAX_QUEUE_PAIRS as usize],
}

impl Sanitizer {
    /// Nothing found yet. `patience`: how long a driver may take over what it must do.
    pub fn new(patience: Duration, now: Instant) -> Self {
        Self {
            patience,
            findings: Mutex::default(),
            board: OnceLock::new(),
            news: Mutex::default(),
            listener: Mutex::default(),
            signs: AtomicU64::new(0),
            life: Mutex::new(Life::new(now)),
            taken: Mutex::default(),
            buffers: Mutex::default(),
            asleep: [const { AtomicBool::new(true) }; MAX_QUEUE_PAIRS as usize],
        }
    }

    /// Lets findings outlive the process, and goes on with those that another one left. To be called
    /// once, before anything is found.
    pub fn outlive(&self, board: Board) {
        let mut findings = lock(&self.findings);
        for (line, total) in board.lines() {
            // A newer version may have rules of its own, which are left to it.
            if let Some(first) = Finding::from_line(&line) {
                let count = Count {
                    total,
                    first: vec![first],
                    over: true,
                };
                findings.counts.push((count.first[0].rule, count));
            }
        }
        // What was left out has no place any more.
        for (index, (_, count)) in findings.counts.iter().enumerate() {
            board.write(index, &count.first[0].to_line());
            board.count(index, count.total);
        }
        for index in findings.counts.len()..vnet_state::LINES {
            board.count(index, 0);
        }
        let _ = self.board.set(board);
    }

    /// Adds a finding.
    pub fn report(&self, finding: Finding) {
        let mut findings = lock(&self.findings);
        let (index, kept) = findings.add(&finding);
        if let Some(board) = self.board.get() {
            let count = &findings.counts[index].1;
            if count.total == 1 {
                board.write(index, &finding.to_line());
            }
            board.count(index, count.total);
        }
        drop(findings);
        let listener = lock(&self.listener).clone();
        if let Some(listener) = listener {
            listener.hear(&finding);
        }
        if kept {
            lock(&self.news).push(finding);
        }
    }

    /// Says who is to hear of findings from now on, if somebody is.
    pub fn set_listener(&self, listener: Option<Listener>) {
        *lock(&self.listener) = listener.map(Arc::new);
    }

    /// All findings so far.
    pub fn findings(&self) -> Findings {
        lock(&self.findings).clone()
    }

    /// Findings that nobody was shown yet. Of a session there are at most [`KEPT`] for each rule.
    pub fn take_news(&self) -> Vec<Finding> {
        std::mem::take(&mut *lock(&self.news))
    }

    /// The guest did something.
    #[inline]
    pub fn sign_of_life(&self) {
        self.signs.fetch_add(1, Ordering::Relaxed);
    }

    /// Follows the time.
    pub fn tick(&self, now: Instant) {
        let signs = self.signs.load(Ordering::Relaxed);
        lock(&self.life).tick(now, signs);
    }

    /// Time that went by while the guest was alive.
    pub(crate) fn now(&self) -> Duration {
        lock(&self.life).now()
    }

    /// The buffers of all queues.
    pub(crate) fn buffers(&self) -> MutexGuard<'_, Buffers> {
        lock(&self.buffers)
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// A range that the card could reach is being taken from it.
    pub fn unmapped(&self, range: RangeInclusive<u64>) {
        lock(&self.taken).add(range);
    }

    /// A range was given to the card.
    pub fn mapped(&self, range: RangeInclusive<u64>) {
        lock(&self.taken).give_back(range);
    }

    /// The client is gone, and with it the driver. The mistakes of the next one are told like those
    /// of the first; and what was taken from the card was not that one's.
    pub fn end_session(&self) {
        lock(&self.taken).clear();
        for (_, count) in &mut lock(&self.findings).counts {
            count.over = true;
        }
    }

    /// True if memory at `address` was taken from the card, and not given back.
    pub(crate) fn was_unmapped(&self, address: u64) -> bool {
        lock(&self.taken).contains(address)
    }

    pub(crate) fn set_asleep(&self, queue: u16, asleep: bool) {
        if let Some(flag) = self.asleep.get(usize::from(queue / 2)) {
            flag.store(asleep, Ordering::Relaxed);
        }
    }

    /// False if the driver seems to poll the pair of a queue.
    pub(crate) fn is_asleep(&self, queue: u16) -> bool {
        let flag = self.asleep.get(usize::from(queue / 2));
        flag.is_none_or(|flag| flag.load(Ordering::Relaxed))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each of them is whole between any two statements that hold the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn findings_are_counted_and_the_first_are_kept() {
        let sanitizer = Sanitizer::new(Duration::from_secs(1), Instant::now());
        assert!(sanitizer.findings().to_string().contains("no rule"));
        for n in 0..10 {
            sanitizer.report(Finding::new(Rule::ChainLoop, format!("{n}"), "an end"));
        }
        sanitizer.report(Finding::new(Rule::AvailIndex, "9", "1"));
        let findings = sanitizer.findings();
        assert_eq!(findings.total(), 11);
        let rules: Vec<_> = findings
            .by_rule()
            .map(|(rule, c)| (rule, c.total))
            .collect();
        assert_eq!(rules, [(Rule::ChainLoop, 10), (Rule::AvailIndex, 1)]);
        assert_eq!(sanitizer.take_news().len(), KEPT + 1);
        assert!(sanitizer.take_news().is_empty());
        let text = findings.to_string();
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("chain-loop, 10 times, first: "), "{text}");
    }

    #[test]
    fn findings_outlive_the_process() {
        let new = || Sanitizer::new(Duration::from_secs(1), Instant::now());
        let board = Board::create().unwrap();
        let other = || Board::open(board.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let first = new();
        first.outlive(other());
        let finding = Finding::new(Rule::ChainLoop, "this", "that").queue(1);
        first.report(finding.clone());
        first.report(Finding::new(Rule::ChainLoop, "again", "that"));
        // Of a version with other rules.
        board.write(1, "no-such-rule\t\t\tx\ty");
        board.count(1, 7);
        let second = new();
        second.outlive(other());
        assert_eq!(second.findings().to_string(), first.findings().to_string());
        second.report(Finding::new(Rule::AvailIndex, "9", "1"));
        second.report(finding.clone());
        let third = new();
        third.outlive(other());
        let findings = third.findings();
        assert_eq!(findings.total(), 4);
        let rules: Vec<_> = findings.by_rule().collect();
        assert_eq!((rules[0].0, rules[0].1.total), (Rule::ChainLoop, 3));
        assert_eq!(rules[0].1.first, [finding]);
        assert_eq!((rules[1].0, rules[1].1.total), (Rule::AvailIndex, 1));
        // Nobody is told of them again.
        assert!(third.take_news().is_empty());
    }

    #[test]
    fn a_listener_hears_of_all_findings() {
        let sanitizer = Sanitizer::new(Duration::from_secs(1), Instant::now());
        let heard: Arc<Mutex<Vec<Finding>>> = Arc::default();
        let list = Arc::clone(&heard);
        let listener = Listener::new(move |finding| lock(&list).push(finding.clone()));
        sanitizer.set_listener(Some(listener));
        let finding = Finding::new(Rule::ChainLoop, "this", "that").queue(1);
        (0..2 * KEPT).for_each(|_| sanitizer.report(finding.clone()));
        sanitizer.set_listener(None);
        sanitizer.report(finding.clone());
        assert_eq!(*lock(&heard), vec![finding; 2 * KEPT]);
    }

    #[test]
    fn each_session_is_told_of_its_own() {
        let sanitizer = Sanitizer::new(Duration::from_secs(1), Instant::now());
        let finding = |queue| Finding::new(Rule::ChainLoop, "this", "that").queue(queue);
        let first = || sanitizer.findings().counts[0].1.first.clone();
        (0..2 * KEPT).for_each(|_| sanitizer.report(finding(1)));
        sanitizer.end_session();
        // Until then there are no others to show.
        assert_eq!(first(), vec![finding(1); KEPT]);
        assert_eq!(sanitizer.take_news().len(), KEPT);
        (0..2 * KEPT).for_each(|_| sanitizer.report(finding(3)));
        assert_eq!(first(), vec![finding(3); KEPT]);
        assert_eq!(sanitizer.take_news(), vec![finding(3); KEPT]);
        assert_eq!(sanitizer.findings().total(), 4 * KEPT as u64);
    }

    #[test]
    fn what_one_client_took_says_nothing_of_the_next() {
        let sanitizer = Sanitizer::new(Duration::from_secs(1), Instant::now());
        sanitizer.unmapped(0x1000..=0x1fff);
        assert!(sanitizer.was_unmapped(0x1000));
        sanitizer.end_session();
        assert!(!sanitizer.was_unmapped(0x1000));
    }
}
