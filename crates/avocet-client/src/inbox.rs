//! Messages that wait for the application.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use avocet_codec::QoS;

use crate::WhenSlow;
use crate::received::Delivery;

/// The messages of one stream, bounded: those of QoS 0 by their number, the others by Receive
/// Maximum.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    waiting: VecDeque<Delivery>,
    /// Of these, QoS 0.
    qos0: usize,
    missed: u64,
    waker: Option<Waker>,
    /// Nothing comes any more.
    pub(crate) ended: bool,
}

impl Inbox {
    /// Puts one behind the others. Who is to be woken for it.
    pub(crate) fn put(
        &mut self,
        delivery: Delivery,
        max: usize,
        when_slow: WhenSlow,
    ) -> Option<Waker> {
        if delivery.qos() == QoS::AtMostOnce {
            match when_slow {
                WhenSlow::StopReading => {}
                WhenSlow::DropNewest if self.qos0 >= max => {
                    self.missed += 1;
                    return None;
                }
                WhenSlow::DropOldest if self.qos0 >= max => self.drop_oldest(),
                WhenSlow::DropNewest | WhenSlow::DropOldest => {}
            }
            self.qos0 += 1;
        }
        self.waiting.push_back(delivery);
        self.waker.take()
    }

    fn drop_oldest(&mut self) {
        let is_qos0 = |delivery: &Delivery| delivery.qos() == QoS::AtMostOnce;
        if let Some(index) = self.waiting.iter().position(is_qos0) {
            self.waiting.remove(index);
            self.qos0 -= 1;
            self.missed += 1;
        }
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether so many messages wait that a slow application stops the reading.
    pub(crate) fn is_full(&self, max: usize) -> bool {
        self.waiting.len() >= max
    }

    pub(crate) fn take(&mut self, context: &Context<'_>) -> Poll<Option<Delivery>> {
        match self.waiting.pop_front() {
            Some(delivery) => {
                if delivery.qos() == QoS::AtMostOnce {
                    self.qos0 -= 1;
                }
                Poll::Ready(Some(delivery))
            }
            None if self.ended => Poll::Ready(None),
            None => {
                match &mut self.waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    none @ None => *none = Some(context.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    /// How many messages of QoS 0 were dropped since this was last asked.
    pub(crate) fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    pub(crate) fn end(&mut self) -> Option<Waker> {
        self.ended = true;
        self.waker.take()
    }

    /// Everything that waits.
    pub(crate) fn into_waiting(self) -> impl Iterator<Item = Delivery> {
        self.waiting.into_iter()
    }
}
