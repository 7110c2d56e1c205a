//! What an application is subscribed to, over all its connections.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use avocet_codec::{ReasonCode, SubscribeFilter, SubscriptionId, SubscriptionOptions};
use avocet_topic::{TopicFilter, TopicFilterBuf, TopicName, matches};

use crate::client::config::borrowed;
use crate::client::{ClientConnection, RequestId, SubscribeError};

/// Subscription Identifiers from here on are given by the client itself; smaller ones are the
/// application's.
const OWN_IDS: u32 = 8192;

/// Names one SUBSCRIBE or UNSUBSCRIBE of the application, over all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionKey(u32);

/// What to subscribe to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionRequest {
    /// Topic Filters with their options; at least one.
    pub filters: Vec<(TopicFilterBuf, SubscriptionOptions)>,
    /// Comes with each message of these filters (5.0).
    pub subscription_id: Option<SubscriptionId>,
    /// User Properties, in order (5.0).
    pub user_properties: Vec<(String, String)>,
    /// Whether [`Subscriptions::route`] finds it, by an identifier of the client's own where the
    /// server supports that.
    pub routed: bool,
}

/// The subscriptions that an application wants, and how far each has got: on a connection whose
/// server has no Session they are asked for again.
#[derive(Debug, Default)]
pub struct Subscriptions {
    entries: BTreeMap<SubscriptionKey, Entry>,
    next: u32,
    /// To be sent, in the order of the calls.
    due: VecDeque<SubscriptionKey>,
    /// Sent, and not answered.
    asked: BTreeMap<RequestId, SubscriptionKey>,
    /// Whether messages of this connection come with identifiers.
    by_id: bool,
}

#[derive(Debug)]
struct Entry {
    wish: Wish,
    user_properties: Vec<(String, String)>,
    /// Whether the server has answered, in the Session that it has.
    done: bool,
    /// Whether the application has its answer.
    told: bool,
}

#[derive(Debug)]
enum Wish {
    Subscribed {
        filters: Vec<(TopicFilterBuf, SubscriptionOptions)>,
        subscription_id: Option<SubscriptionId>,
        routed: bool,
    },
    Unsubscribed(Vec<TopicFilterBuf>),
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionAnswer {
    /// Whose it is.
    pub key: SubscriptionKey,
    /// Whether it is the first one; the others are to requests that a new Session made necessary.
    pub first: bool,
}

impl Subscriptions {
    /// Wants these; [`poll`](Self::poll) asks the server.
    pub fn subscribe(&mut self, request: SubscriptionRequest) -> SubscriptionKey {
        let SubscriptionRequest {
            filters,
            subscription_id,
            user_properties,
            routed,
        } = request;
        let wish = Wish::Subscribed {
            filters,
            subscription_id,
            routed,
        };
        self.insert(wish, user_properties)
    }

    /// Wants these no longer, whoever subscribed to them.
    pub fn unsubscribe(
        &mut self,
        filters: Vec<TopicFilterBuf>,
        user_properties: Vec<(String, String)>,
    ) -> SubscriptionKey {
        self.entries.retain(|_, entry| match &mut entry.wish {
            Wish::Subscribed {
                filters: wanted, ..
            } => {
                wanted.retain(|(filter, _)| !filters.contains(filter));
                // An answer that is due comes nevertheless.
                !wanted.is_empty() || !entry.told
            }
            Wish::Unsubscribed(_) => true,
        });
        self.insert(Wish::Unsubscribed(filters), user_properties)
    }

    /// Forgets one, and what the server does with it is no longer looked at; its filters.
    pub fn forget(&mut self, key: SubscriptionKey) -> Vec<TopicFilterBuf> {
        let filters = self.filters(key);
        self.entries.remove(&key);
        filters
    }

    /// The filters of a subscription that are wanted.
    #[must_use]
    pub fn filters(&self, key: SubscriptionKey) -> Vec<TopicFilterBuf> {
        match self.entries.get(&key).map(|entry| &entry.wish) {
            Some(Wish::Subscribed { filters, .. }) => {
                filters.iter().map(|(filter, _)| filter.clone()).collect()
            }
            Some(Wish::Unsubscribed(_)) | None => Vec::new(),
        }
    }

    /// How many SUBSCRIBE and UNSUBSCRIBE have no answer.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.due.len() + self.asked.len()
    }

    fn insert(&mut self, wish: Wish, user_properties: Vec<(String, String)>) -> SubscriptionKey {
        let key = SubscriptionKey(self.next);
        self.next = self.next.wrapping_add(1);
        let entry = Entry {
            wish,
            user_properties,
            done: false,
            told: false,
        };
        self.entries.insert(key, entry);
        self.due.push_back(key);
        key
    }

    /// A server accepted the connection. Without a Session it has no subscriptions either.
    pub fn handle_connected(&mut self, session_present: bool, connection: &ClientConnection) {
        self.by_id = connection.server().subscription_ids_available;
        self.asked.clear();
        for entry in self.entries.values_mut() {
            entry.done &= session_present;
        }
        let due = self.entries.iter().filter(|(_, entry)| !entry.done);
        self.due = due.map(|(key, _)| *key).collect();
    }

    /// Sends what is due; an error is of the one that it names, which is forgotten. To be called
    /// until there is none.
    pub fn poll(
        &mut self,
        connection: &mut ClientConnection,
    ) -> Option<(SubscriptionKey, SubscribeError)> {
        while let Some(key) = self.due.front().copied() {
            let Some(entry) = self.entries.get(&key) else {
                self.due.pop_front();
                continue;
            };
            match entry.send(key, connection) {
                Ok(id) => {
                    self.due.pop_front();
                    self.asked.insert(id, key);
                }
                Err(SubscribeError::NotConnected | SubscribeError::TooManyRequests) => break,
                Err(error) => {
                    self.due.pop_front();
                    self.entries.remove(&key);
                    return Some((key, error));
                }
            }
        }
        None
    }

    /// A SUBACK or UNSUBACK came, with these Reason Codes. What is refused at first is not wanted
    /// any longer; what is refused later may be granted on another connection.
    pub fn handle_answered(
        &mut self,
        id: RequestId,
        reason_codes: &[ReasonCode],
    ) -> Option<SubscriptionAnswer> {
        let key = self.asked.remove(&id)?;
        let entry = self.entries.get_mut(&key)?;
        let first = !entry.told;
        entry.done = true;
        entry.told = true;
        let over = match &mut entry.wish {
            Wish::Subscribed { filters, .. } if first => {
                let mut codes = reason_codes.iter();
                filters.retain(|_| codes.next().is_some_and(|code| !code.is_error()));
                filters.is_empty()
            }
            Wish::Subscribed { filters, .. } => filters.is_empty(),
            Wish::Unsubscribed(_) => true,
        };
        if over {
            self.entries.remove(&key);
        }
        Some(SubscriptionAnswer { key, first })
    }

    /// The routed subscriptions that a message is for: by the identifiers that came with it, and on
    /// connections without identifiers by its Topic Name.
    pub fn route<'a>(
        &'a self,
        topic_name: TopicName<'a>,
        subscription_ids: &'a [SubscriptionId],
    ) -> impl Iterator<Item = SubscriptionKey> + 'a {
        let named = subscription_ids.iter().filter_map(move |id| {
            let key = SubscriptionKey(id.get().checked_sub(OWN_IDS)?);
            // The identifiers of an earlier process are known by what they do not match.
            let entry = self.entries.get(&key)?;
            entry.wants(topic_name).then_some(key)
        });
        let all = (!self.by_id).then_some(&self.entries);
        let matching = all
            .into_iter()
            .flatten()
            .filter_map(move |(key, entry)| entry.wants(topic_name).then_some(*key));
        named.chain(matching)
    }
}

impl Entry {
    fn send(
        &self,
        key: SubscriptionKey,
        connection: &mut ClientConnection,
    ) -> Result<RequestId, SubscribeError> {
        let user_properties = borrowed(&self.user_properties);
        match &self.wish {
            Wish::Subscribed {
                filters,
                subscription_id,
                routed,
            } => {
                let by_id = *routed && connection.server().subscription_ids_available;
                let own = by_id.then(|| SubscriptionId::new(OWN_IDS.checked_add(key.0)?));
                let filters: Vec<_> = filters
                    .iter()
                    .map(|(filter, options)| SubscribeFilter {
                        topic_filter: filter.as_filter(),
                        options: *options,
                    })
                    .collect();
                let id = own.flatten().or(*subscription_id);
                connection.subscribe(&filters, id, &user_properties)
            }
            Wish::Unsubscribed(filters) => {
                let filters: Vec<_> = filters.iter().map(|filter| filter.as_filter()).collect();
                connection.unsubscribe(&filters, &user_properties)
            }
        }
    }

    fn wants(&self, topic_name: TopicName<'_>) -> bool {
        let Wish::Subscribed {
            filters,
            routed: true,
            ..
        } = &self.wish
        else {
            return false;
        };
        filters
            .iter()
            .any(|(filter, _)| matches(unshared(filter.as_filter()), topic_name))
    }
}

/// Without the Share Name.
fn unshared(filter: TopicFilter<'_>) -> TopicFilter<'_> {
    match filter.share() {
        Ok(Some(share)) => share.topic_filter,
        Ok(None) | Err(_) => filter,
    }
}
