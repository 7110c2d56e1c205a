//! The task that ends the wait of messages that wait too long: it needs no connection, and is there
//! once a message waits that may.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::{Instant, sleep_until};

use crate::state::Shared;

/// Until the client ends.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut alarm = pin!(sleep_until(Instant::now()));
    poll_fn(|context| {
        loop {
            let mut state = shared.lock();
            if state.ended().is_some() {
                return Poll::Ready(());
            }
            let next = state.age(context.waker());
            shared.unlock(state);
            let Some(next) = next else {
                return Poll::Pending;
            };
            alarm.as_mut().reset(next);
            if alarm.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}
