// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Clients of a port that anybody on this machine can connect to: so many at a time, and none keeps others
//! out by saying nothing.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use tokio::task::{yield_now, AbortHandle, JoinSet};

/// Those that are served.
pub(crate) struct Clients {
    most: usize,
    tasks: JoinSet<()>,
    /// The oldest first.
    list: Vec<Client>,
}

struct Client {
    task: AbortHandle,
    stays: Arc<AtomicBool>,
}

impl Clients {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            tasks: JoinSet::new(),
            list: Vec::new(),
        }
    }

    /// Serves one more, and gives it its turn. If there is no place, the oldest goes for it; or it waits for
    /// one, if all others may stay, as they have set what they were given.
    pub(crate) async fn serve<F>(&mut self, serve: impl FnOnce(Arc<AtomicBool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while self.tasks.try_join_next().is_some() {}
        self.list.retain(|client| !client.task.is_finished());
        if self.list.len() >= self.most {
            let mut list = self.list.iter();
            match list.position(|client| !client.stays.load(Ordering::Relaxed)) {
                Some(oldest) => self.list.remove(oldest).task.abort(),
                None => drop(self.tasks.join_next().await),
            }
        }
        let stays = Arc::new(AtomicBool::new(false));
        let task = self.tasks.spawn(serve(Arc::clone(&stays)));
        self.list.push(Client { task, stays });
        // One that has asked already has its answer before others come in its place.
        yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::time::Duration;

    use tokio::runtime::Builder;
    use tokio::sync::oneshot::error::TryRecvError;
    use tokio::sync::oneshot::{channel, Receiver};
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn the_oldest_makes_room_unless_it_may_stay() {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut clients = Clients::new(3);
            let mut ends = Vec::new();
            for n in 0..10 {
                let (alive, end) = channel::<()>();
                ends.push(end);
                clients
                    .serve(|stays| async move {
                        stays.store(n == 1, Ordering::Relaxed);
                        pending::<()>().await;
                        drop(alive);
                    })
                    .await;
            }
            yield_now().await;
            let alive = |end: &mut Receiver<()>| end.try_recv() == Err(TryRecvError::Empty);
            let alive: Vec<_> = ends.iter_mut().map(alive).collect();
            let mut due = [false; 10];
            for n in [1, 8, 9] {
                due[n] = true;
            }
            assert_eq!(alive, due);
        });
    }

    #[test]
    fn where_all_may_stay_one_more_waits() {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut clients = Clients::new(1);
            let (leave, left) = channel::<()>();
            clients
                .serve(|stays| async move {
                    stays.store(true, Ordering::Relaxed);
                    let _ = left.await;
                })
                .await;
            let (here, mut is_here) = channel();
            let mut next = pin!(clients.serve(|_| async { here.send(()).unwrap() }));
            let soon = timeout(Duration::from_millis(10), &mut next).await;
            assert!(soon.is_err(), "it did not wait");
            leave.send(()).unwrap();
            next.await;
            assert!(is_here.try_recv().is_ok());
        });
    }
}
