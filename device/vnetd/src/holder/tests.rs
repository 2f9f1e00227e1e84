// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! What becomes of workers and their programs, without a card.

use super::*;
use clap::Parser;

/// How long a worker has served, if it came to that, and how it ended.
type Ending = (Option<Duration>, ExitStatus);

/// A holder whose worker has just handed over to a new program, and that worker.
fn upgraded(args: &Args) -> (Holder<'_>, Worker) {
    let of = |path: &str| Program::at(path.into()).unwrap();
    let mut holder = Holder::new(args, of("/bin/true")).unwrap();
    holder.former = Some(of("/bin/false"));
    let employee = Employee::start(&holder.program).unwrap();
    (holder, Worker::new(employee))
}

#[test]
fn a_new_program_has_to_prove_itself() {
    let cli = crate::args::Cli::parse_from(["vnetd", "--socket", "none", "--net", "null"]);
    let args = cli.card.unwrap();
    let crashed = ExitStatus::from_raw(6);
    let killed = ExitStatus::from_raw(SIGKILL);
    let failed = ExitStatus::from_raw(1 << 8);
    let (soon, later) = (Duration::ZERO, Duration::from_secs(1));
    // What becomes of its workers, and what runs then.
    let courses: [(&[Ending], &str); 7] = [
        (&[(None, failed)], "/bin/false"),
        (&[(None, killed)], "/bin/false"),
        (&[(Some(soon), crashed)], "/bin/false"),
        // It took a while to come to the message that it cannot bear, and begins with that now.
        (
            &[(Some(later), crashed), (Some(soon), crashed)],
            "/bin/false",
        ),
        (
            &[(Some(later), crashed), (Some(later), crashed)],
            "/bin/true",
        ),
        (&[(Some(soon), killed)], "/bin/true"),
        // That is nothing new any more.
        (
            &[(Some(2 * PROVED), crashed), (Some(soon), crashed)],
            "/bin/true",
        ),
    ];
    for (n, (ends, runs)) in courses.into_iter().enumerate() {
        let (mut holder, mut worker) = upgraded(&args);
        for (served, status) in ends {
            // Half a second later than meant, as a test may have to wait for its turn.
            let now = Instant::now() + later / 2;
            worker.ready = served.and_then(|served| now.checked_sub(served));
            assert!(matches!(holder.judge(&worker, *status), End::Died(_)));
        }
        assert_eq!(holder.program.path(), Path::new(runs), "{n}");
        worker.employee.end().unwrap();
    }
    // The last one of the program before has not handed over in order.
    let (mut holder, mut worker) = upgraded(&args);
    worker.ready = Instant::now().checked_sub(2 * PROVED);
    worker.replaced = true;
    holder.judge(&worker, killed);
    assert!(holder.former.is_some());
    assert_eq!(holder.program.path(), Path::new("/bin/true"));
    worker.employee.end().unwrap();
    // There is another new one before the first has proved itself.
    let (mut holder, mut worker) = upgraded(&args);
    holder.change(Program::at("/bin/sh".into()).unwrap());
    holder.judge(&worker, failed);
    assert_eq!(holder.program.path(), Path::new("/bin/false"));
    worker.employee.end().unwrap();
    // Or while the last one hands over, and it is gone by then.
    let (mut holder, mut worker) = upgraded(&args);
    worker.handing_over = true;
    let status = worker.employee.end().unwrap();
    holder.hand_over(&mut worker);
    assert!(matches!(holder.judge(&worker, status), End::HandedOver));
}

#[test]
fn who_takes_over_has_to_be_ready_in_time() {
    let cli = crate::args::Cli::parse_from(["vnetd", "--socket", "none", "--net", "null"]);
    let args = cli.card.unwrap();
    let (mut holder, mut first) = upgraded(&args);
    // It says nothing, and ends when it is told nothing any more.
    holder.program = Program::at("/usr/bin/wc".into()).unwrap();
    first.employee.end().unwrap();
    let silent = Employee::start(&holder.program).unwrap();
    let mut worker = holder.begin(silent);
    assert_eq!(worker.left(), None);
    worker.employee.signal(Signal::KILL);
    worker.employee.end().unwrap();

    let place = std::env::temp_dir().join(format!("vnetd-holder-{}", std::process::id()));
    holder.door = Some(Door::open(&place).unwrap());
    let silent = Employee::start(&holder.program).unwrap();
    let mut worker = holder.begin(silent);
    assert!(worker.left().is_some());
    worker.ready_by = Instant::now().checked_add(PAUSE);
    let woken = holder.wait(&worker, None).unwrap();
    assert!(!woken.ended);
    worker.ready_by = Some(Instant::now());
    worker.press();
    let status = worker.employee.end().unwrap();
    assert_eq!(status.signal(), Some(SIGKILL));
    assert!(matches!(holder.judge(&worker, status), End::Died(_)));
    assert_eq!(holder.program.path(), Path::new("/bin/false"));

    // One that is ready has all the time, unless it is told to go.
    let (_, mut worker) = upgraded(&args);
    worker.ready_by = Some(Instant::now());
    worker.is_ready();
    assert_eq!(worker.left(), None);
    worker.limit(LONGEST_END);
    assert!(worker.left().is_some());
    worker.employee.end().unwrap();
}

#[test]
fn who_does_not_listen_is_not_waited_for() {
    let (line, _theirs) = Line::pair().unwrap();
    line.limit(PAUSE).unwrap();
    let full = (0..100_000).find_map(|_| line.ready().err());
    assert_eq!(full, Some(Errno::AGAIN));
}
